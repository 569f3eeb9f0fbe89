"""Arguments of the wrong kind: each public function says what it takes."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import holdfast
from holdfast import errors, maps
from support import state_of, told


def plain() -> nn.Module:
    return nn.Linear(3, 3)


def layer() -> nn.Module:
    return holdfast.orthogonal(nn.Linear(3, 3))


def optimizer_of(model: object) -> torch.optim.Optimizer:
    parameters = getattr(model, "parameters", None)
    own = [*parameters()] if isinstance(model, nn.Module) and parameters else []
    return torch.optim.SGD(own or [nn.Parameter(torch.ones(1))], lr=0.1)


def entered(scope) -> None:
    with scope:
        pass


def bounds(model, optimizer, *, map=maps.SpectralBound, bound="radius"):
    return holdfast.MoveBounds(model, optimizer, map, bound, lambda step: 1.0)


# What takes a module, with all else right; recipes are added below
TAKE_MODULES = {
    "AverageWeights": holdfast.AverageWeights,
    "AverageWeights.update_parameters": lambda m: holdfast.AverageWeights(
        layer()
    ).update_parameters(m),
    "DecayWeights": lambda m: holdfast.DecayWeights(
        m, optimizer_of(m), weight_decay=0.1
    ),
    "MoveBounds": lambda m: bounds(m, optimizer_of(m)),
    "Rebase": lambda m: holdfast.Rebase(m, optimizer_of(m)),
    "Sparsify": lambda m: holdfast.Sparsify(m, optimizer_of(m)),
    "Watch": holdfast.Watch,
    "accumulate": lambda m: entered(holdfast.accumulate(m)),
    "cached": lambda m: entered(holdfast.cached(m)),
    "disabled": lambda m: entered(holdfast.disabled(m, "weight", 0)),
    "fold": holdfast.fold,
    "folded": lambda m: entered(holdfast.folded(m)),
    "insert_link": lambda m: holdfast.insert_link(m, "weight", 0, maps.Symmetric()),
    "join": lambda m: holdfast.join(m, ["a", "b"], "w"),
    "load": lambda m: holdfast.load("nowhere.safetensors", m),
    "parameter_groups": lambda m: holdfast.parameter_groups(m, weight_decay=0.1),
    "plain_state_dict": holdfast.plain_state_dict,
    "plan": lambda m: holdfast.plan(m, {"weight": maps.Symmetric()}),
    "register_parametrization": lambda m: holdfast.register_parametrization(
        m, "weight", maps.Symmetric()
    ),
    "remove_link": lambda m: holdfast.remove_link(m, "weight", 0),
    "remove_parametrizations": lambda m: holdfast.remove_parametrizations(m, "weight"),
    "reparametrize": lambda m: holdfast.reparametrize(m, "weight", maps.Symmetric()),
    "replace_link": lambda m: holdfast.replace_link(m, "weight", 0, maps.Symmetric()),
    "report": holdfast.report,
    "residuals": holdfast.residuals,
    "save": lambda m: holdfast.save(m, "nowhere.safetensors"),
    "separate": lambda m: holdfast.separate(m, "w"),
    "spec": holdfast.spec,
    "trace": lambda m: holdfast.trace(m, "weight"),
    "transfer_parametrizations_and_params": lambda m: (
        holdfast.transfer_parametrizations_and_params(m, plain())
    ),
    "transfer_parametrizations_and_params, to": lambda m: (
        holdfast.transfer_parametrizations_and_params(layer(), m)
    ),
    "unfold": holdfast.unfold,
    "writable": lambda m: entered(holdfast.writable(m)),
}
RECIPES = [name for name in holdfast.recipes.__all__ if name != "recipes"]
TAKE_MODULES |= {name: getattr(holdfast, name) for name in RECIPES}

# As torch's: what is no module is not parametrized, and has the class that it has
QUESTIONS = {"is_parametrized", "type_before_parametrizations"}

NO_MODULES = {
    "None": None,
    "a tensor": torch.eye(3),
    "a string": "weight",
    "a boolean": True,
    "an integer": 3,
    "a list": [nn.Linear(3, 3)],
    "a state dict": nn.Linear(3, 3).state_dict(),
    "a class": dict,
}


def test_no_public_function_that_takes_a_module_is_left_out():
    named = {name.partition(",")[0] for name in TAKE_MODULES}
    found = set()
    for name in holdfast.__all__:
        thing = getattr(holdfast, name)
        if callable(thing):
            arguments = inspect.signature(thing).parameters.values()
            if any("nn.Module" in str(a.annotation) for a in arguments):
                found.add(name)
    # the first two are made of maps and of rules; the third takes `None` too
    others = {"ParametrizationList", "Plan", "swap_parameters"}
    assert found - named == others | QUESTIONS
    assert len(found) > 40


@pytest.mark.parametrize("thing", NO_MODULES)
@pytest.mark.parametrize("function", TAKE_MODULES)
def test_what_is_no_module_is_refused_by_the_name_of_the_function(
    function, thing, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError) as caught:
        TAKE_MODULES[function](NO_MODULES[thing])
    message, name = str(caught.value), function.split(",")[0]
    reporting = message.startswith("Expected a module. Got an object of ")
    assert message.startswith(f"`{name}` takes a module. Got ") or reporting
    assert "tensor(" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("thing", NO_MODULES)
def test_questions_are_answered_as_torch_does(thing):
    thing = NO_MODULES[thing]
    assert holdfast.is_parametrized(thing) is False
    assert holdfast.type_before_parametrizations(thing) is type(thing)


TAKE_NAMES = {
    "disabled": lambda m, name: entered(holdfast.disabled(m, name, 0)),
    "insert_link": lambda m, name: holdfast.insert_link(m, name, 0, maps.Symmetric()),
    "join": lambda m, name: holdfast.join(m, ["weight", name], "w"),
    "register_parametrization": lambda m, name: holdfast.register_parametrization(
        m, name, maps.Symmetric()
    ),
    "remove_link": lambda m, name: holdfast.remove_link(m, name, 0),
    "remove_parametrizations": holdfast.remove_parametrizations,
    "reparametrize": lambda m, name: holdfast.reparametrize(m, name, maps.Symmetric()),
    "replace_link": lambda m, name: holdfast.replace_link(m, name, 0, maps.Symmetric()),
    "separate": holdfast.separate,
    "trace": holdfast.trace,
    "transfer_parametrizations_and_params": lambda m, name: (
        holdfast.transfer_parametrizations_and_params(m, plain(), name)
    ),
    **{name: getattr(holdfast, name) for name in RECIPES},
}


@pytest.mark.parametrize(
    "name", [3, True, 0.5, torch.eye(3), maps.Symmetric(), object(), ["weight"]]
)
@pytest.mark.parametrize("function", TAKE_NAMES)
def test_what_is_no_name_is_refused_by_the_name_of_the_function(function, name):
    model = layer()
    before = state_of(model)
    with pytest.raises(TypeError, match=f"`{function}` takes the name of a tensor"):
        TAKE_NAMES[function](model, name)
    assert state_of(model) == before


@pytest.mark.parametrize(
    "name", ["", "nope", "weight.", "0.weight", "parametrizations"]
)
@pytest.mark.parametrize("function", TAKE_NAMES)
def test_names_of_nothing_are_refused_and_nothing_changes(function, name):
    model = layer()
    before = state_of(model)
    with pytest.raises((errors.UnknownTensorError, errors.InvalidTensorError)):
        TAKE_NAMES[function](model, name)
    assert state_of(model) == before


@pytest.mark.parametrize("thing", [None, [nn.Parameter(torch.ones(1))], "sgd", 3])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, o: holdfast.DecayWeights(m, o, weight_decay=0.1),
        bounds,
        holdfast.Rebase,
        holdfast.Sparsify,
        lambda m, o: holdfast.swap_parameters(o),
    ],
    ids=["DecayWeights", "MoveBounds", "Rebase", "Sparsify", "swap_parameters"],
)
def test_what_is_no_optimizer_is_refused(function, thing, request):
    name = request.node.callspec.id.split("-")[0]
    with pytest.raises(TypeError, match="takes an optimizer. Got ") as caught:
        function(layer(), thing)
    assert any(f"`{each}`" in str(caught.value) for each in (name, *SCHEDULES))


SCHEDULES = ["DecayWeights", "MoveBounds", "Rebase", "Sparsify", "swap_parameters"]


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda m: holdfast.remember(m), TypeError, "takes True or False"),
        (
            lambda m: holdfast.swap_parameters(optimizer_of(m), "model"),
            TypeError,
            "`swap_parameters` takes a module. Got an object of str",
        ),
        (lambda m: holdfast.join(m, "weight", "w"), TypeError, "takes a list of names"),
        (lambda m: holdfast.join(m, None, "w"), TypeError, "takes a list of names"),
        (
            lambda m: bounds(m, optimizer_of(m), map=maps.SpectralBound(1.0)),
            TypeError,
            "takes a class of maps. Got an object of SpectralBound",
        ),
        (
            lambda m: bounds(m, optimizer_of(m), bound=None),
            TypeError,
            "takes the name of a bound",
        ),
        (
            lambda m: holdfast.per_gate(nn.LSTM(3, 3), map="orthogonal"),
            TypeError,
            "`per_gate` takes a map. Got an object of str",
        ),
        (
            lambda m: maps.from_spec({"map": "Skew"}, also=["Mine"]),
            TypeError,
            "takes classes of maps. Got 'Mine'",
        ),
        (
            lambda m: holdfast.positive(nn.Linear(3, 3), bound=None),
            errors.InvalidTensorError,
            "Expected `bound` to be a number or a tensor. Got `None`",
        ),
        (
            lambda m: holdfast.parameter_groups(m, weight_decay=math.inf),
            ValueError,
            "Expected a finite `weight_decay`",
        ),
        (
            lambda m: holdfast.spectral_norm(nn.Linear(3, 3), eps=math.nan),
            ValueError,
            "Expected a finite `eps`",
        ),
        (
            lambda m: holdfast.spectral_norm(nn.Linear(3, 3), eps=-1.0),
            ValueError,
            "Expected a finite `eps`",
        ),
        (lambda m: holdfast.save(m, ""), errors.CheckpointError, "path of a file"),
        (lambda m: holdfast.load("", m), errors.CheckpointError, "path of a file"),
        (lambda m: holdfast.cached(lambda: 3), TypeError, r"as `@cached\(\)`"),
    ],
)
def test_other_arguments_of_a_wrong_kind(call, kind, says):
    model = layer()
    before = state_of(model)
    with pytest.raises(kind, match=says):
        call(model)
    assert state_of(model) == before


NORMS = [holdfast.weight_norm, parametrizations.weight_norm]


@pytest.mark.parametrize("second", NORMS)
@pytest.mark.parametrize("first", NORMS)
def test_a_second_weight_norm_is_refused(first, second):
    if first is second is parametrizations.weight_norm:
        pytest.skip("torch's own affair, which fails when the weight is read")
    model = first(nn.Linear(3, 3))
    before = state_of(model)
    with pytest.raises(errors.InvalidTensorError) as caught:
        second(model)
    assert re.search(r"`(Linear\.)?weight`", told(caught.value))
    assert "Register it first, and once." in told(caught.value)
    assert state_of(model) == before


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("old", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize(
    "recipe", [holdfast.weight_norm, holdfast.orthogonal, holdfast.spectral_norm]
)
def test_a_tensor_of_an_old_hook_is_refused_with_what_takes_the_hook_off(recipe, old):
    model = getattr(nn.utils, old)(nn.Linear(3, 3))
    with pytest.raises(errors.UnknownTensorError) as caught:
        recipe(model)
    assert "`Linear.weight`" in str(caught.value)
    assert f"call `torch.nn.utils.remove_{old}` first" in str(caught.value)
    getattr(nn.utils, f"remove_{old}")(model)
    assert holdfast.is_parametrized(recipe(model), "weight")


WRONG = [None, "orthogonal", 3, nn.Linear(2, 2), maps.Symmetric, [maps.Symmetric()]]


@pytest.mark.parametrize("thing", WRONG)
@pytest.mark.parametrize("kind", ["one", "several"])
def test_a_combinator_takes_maps(kind, thing):
    one = [maps.Matricized, maps.Transposed, maps.Scaled, maps.Cast, maps.Delta]
    one += [maps.Frozen, maps.StraightThrough, lambda map_: maps.PerBlock(map_, 2)]
    several = [maps.Chain, maps.Product]
    several += [lambda *each: maps.Concatenated(*each, sizes=(1,) * len(each))]
    for combinator in one if kind == "one" else several:
        with pytest.raises(TypeError, match=r"^`\w+` takes (a map|maps)\. Got "):
            combinator(*([maps.Symmetric()] if kind == "several" else []), thing)


@pytest.mark.parametrize("dtype", [None, "float64", 64, torch.int64])
def test_a_cast_takes_a_real_type(dtype):
    layer = nn.Linear(3, 3)
    before = state_of(layer)
    with pytest.raises(ValueError, match="Expected a real floating-point type"):
        holdfast.register_parametrization(
            layer, "weight", maps.Cast(maps.Symmetric(), dtype)
        )
    assert state_of(layer) == before
