"""Registering, assigning and removing: A1 to A9, A12 and A13."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_recipes
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close

import holdfast
from holdfast import errors, maps
from support import Gain, Halves, OneWay, Symmetric, bits, state_of

register = holdfast.register_parametrization
remove = holdfast.remove_parametrizations


def linear(*maps: nn.Module, name: str = "weight", **options: object) -> nn.Linear:
    layer = nn.Linear(3, 3)
    for link in maps:
        register(layer, name, link, **options)
    return layer


def symmetric(seed: int = 0) -> Tensor:
    W = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))
    return W + W.mT


# ---- A1: what fails leaves no trace ------------------------------------------------


class StageError(Exception):
    """Raised on purpose, and by nothing else."""


class Failing(nn.Module):
    """A map that moves values and its own state, and then fails at one stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(2))
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.inner = nn.Dropout()
        self.calls = 0
        self.stage = stage

    def forward(self, *originals: Tensor) -> Tensor | str:
        X = originals[0] * 3.0
        wrong = {
            "forward": lambda: self.fail(StageError),
            "interrupt": lambda: self.fail(KeyboardInterrupt),
            "shape": lambda: X[..., :1],
            "dtype": lambda: X.double(),
            "type": lambda: "no tensor",
        }
        return wrong.get(self.stage, lambda: X)()

    def right_inverse(self, W: Tensor) -> object:
        self.state.add_(1.0)
        self.state = self.state + 1.0
        self.register_buffer("late", torch.ones(1))
        self.calls += 1
        self.inner.p = 0.25
        wrong = {
            "right_inverse": lambda: self.fail(StageError),
            "inverse type": lambda: "no tensor",
            "inverse element": lambda: (W, "no tensor"),
            "inverse dtype": lambda: W.double(),
            "inverse device": lambda: W.to("meta"),
            "nan": lambda: W * float("nan"),
            "infinity": lambda: (W, W / 0.0),
        }
        return wrong.get(self.stage, lambda: W / 3.0)()

    def fail(self, error: type[BaseException]) -> None:
        raise error(self.stage)


class FailingBind(holdfast.Parametrization):
    """A map whose state cannot be made."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        return X

    def bind(self, weight: Tensor) -> None:
        self.base = weight.clone()
        self.register_buffer("other", weight.clone())
        raise StageError("bind")


STAGES = {
    "forward": (StageError, "forward"),
    "interrupt": (KeyboardInterrupt, "interrupt"),
    "shape": (ValueError, "may not change the shape"),
    "dtype": (ValueError, "may not change the dtype"),
    "type": (ValueError, "must return a tensor"),
    "right_inverse": (StageError, "right_inverse"),
    "inverse type": (ValueError, "right_inverse"),
    "inverse element": (ValueError, "right_inverse|return a tensor"),
    "inverse dtype": (ValueError, "dtype"),
    "inverse device": (ValueError, "device"),
    "nan": (ValueError, "NaN"),
    "infinity": (ValueError, "(?i)infinity|return a tensor"),
    "bind": (StageError, "bind"),
}


def failing(stage: str) -> nn.Module:
    return FailingBind() if stage == "bind" else Failing(stage)


def with_history(module: nn.Module) -> nn.Module:
    """Give a module gradients, hooks, and what else a failure might lose."""
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.register_forward_hook(lambda *_: None)
    module.register_forward_pre_hook(lambda *_: None)
    module.register_state_dict_post_hook(lambda *_: None)
    module.register_load_state_dict_pre_hook(lambda *_: None)
    return module


def hooked_parameter() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.weight.register_hook(lambda grad: grad)
    return layer


def frozen() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    return layer


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.randn(2))
        self.register_buffer("weight", torch.randn(3, 3), persistent=False)
        self.register_buffer("kept", torch.randn(3, 3))
        self.last = nn.Parameter(torch.randn(2))


def recurrent() -> nn.Module:
    rnn = nn.LSTM(3, 3)
    register(rnn, "bias_hh_l0", Gain())
    return rnn


HOSTS = {
    "plain": (lambda: nn.Linear(3, 3), "weight"),
    "last parameter": (lambda: nn.Linear(3, 3), "bias"),
    "evaluating": (lambda: nn.Linear(3, 3).eval(), "weight"),
    "frozen": (frozen, "weight"),
    "hooked parameter": (hooked_parameter, "weight"),
    "convolution": (lambda: nn.Conv2d(2, 2, 3), "weight"),
    "transposed": (
        lambda: nn.Bilinear(2, 2, 2).requires_grad_(False).apply(transpose_),
        "weight",
    ),
    "unsaved buffer": (Buffered, "weight"),
    "buffer": (Buffered, "kept"),
    "another one parametrized": (lambda: linear(Gain(), name="bias"), "weight"),
    "second link": (lambda: linear(Gain()), "weight"),
    "several originals": (lambda: linear(Halves()), "weight"),
    "spectral norm": (lambda: holdfast.spectral_norm(nn.Linear(3, 3)), "weight"),
    "recurrent": (recurrent, "weight_hh_l0"),
}


def transpose_(module: nn.Module) -> None:
    module.weight.data = module.weight.data.mT


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("stage", STAGES)
def test_A1_a_failed_registration_leaves_everything_as_it_was(stage, host):
    make, name = HOSTS[host]
    module, link = with_history(make()), failing(stage)
    before, map_before = state_of(module), (state_of(link), vars(link).copy())
    error, message = STAGES[stage]
    with pytest.raises(error, match=message):
        register(module, name, link)
    assert state_of(module) == before
    assert (state_of(link), vars(link)) == map_before


def test_A1_negative_control_torch_leaves_a_changed_value():
    layer = nn.Linear(3, 3)
    before = state_of(layer)
    with pytest.raises(ValueError, match="may not change the shape"):
        torch_parametrize.register_parametrization(layer, "weight", Failing("shape"))
    assert state_of(layer) != before


@pytest.mark.parametrize("stage", ["forward", "right_inverse", "shape", "bind"])
def test_A1_a_module_still_registers_after_a_failure(stage):
    layer = nn.Linear(3, 3)
    value = layer.weight.detach().clone()
    with pytest.raises(STAGES[stage][0]):
        register(layer, "weight", failing(stage))
    register(layer, "weight", Gain())
    assert_close(layer.weight.detach(), value)


def test_A1_a_map_can_be_registered_after_its_failure():
    layer, link = nn.Linear(3, 3), Failing("forward")
    value = layer.weight.detach().clone()
    with pytest.raises(StageError):
        register(layer, "weight", link)
    link.stage = "none"
    register(layer, "weight", link)
    assert_close(layer.weight.detach(), value)


@pytest.mark.parametrize("stage", ["forward", "shape", "right_inverse"])
def test_A1_a_pending_backward_survives_a_failed_registration(stage):
    layer = nn.Linear(3, 3)
    loss = (layer(torch.randn(2, 3, requires_grad=True)) ** 2).sum()
    with pytest.raises(STAGES[stage][0]):
        register(layer, "weight", failing(stage))
    loss.backward()
    assert layer.weight.grad is not None


RECIPE_FAILURES = {
    "unknown map": (lambda m: holdfast.orthogonal(m, orthogonal_map="qr"), "one of"),
    "vector": (lambda m: holdfast.orthogonal(m, "bias"), "matrix or batch"),
    "unknown name": (lambda m: holdfast.orthogonal(m, "wait"), "no parameter or buff"),
    "no iterations": (
        lambda m: holdfast.spectral_norm(m, n_power_iterations=0),
        "n_power_iterations",
    ),
    "dim": (lambda m: holdfast.spectral_norm(m, dim=2), "(?i)dim"),
    "norm dim": (lambda m: holdfast.weight_norm(m, dim=2), "(?i)dim"),
    "norm name": (lambda m: holdfast.weight_norm(m, "wait"), "wait"),
}


@pytest.mark.parametrize("kind", RECIPE_FAILURES)
def test_A1_a_failed_recipe_leaves_everything_as_it_was(kind):
    layer = with_history(nn.Linear(3, 3))
    before = state_of(layer)
    apply, message = RECIPE_FAILURES[kind]
    with pytest.raises((ValueError, IndexError), match=message):
        apply(layer)
    assert state_of(layer) == before


# What follows a wrong value in the chain may stumble over it in its own way.
ASSIGNMENT_STAGES = {
    "right_inverse": StageError,
    "inverse type": (ValueError, TypeError),
    "inverse element": (ValueError, TypeError),
    "inverse dtype": ValueError,
    "inverse device": ValueError,
    "nan": ValueError,
}


@pytest.mark.parametrize("stage", ASSIGNMENT_STAGES)
@pytest.mark.parametrize("place", ["first", "last"])
def test_A1_a_failed_assignment_leaves_everything_as_it_was(stage, place):
    link = Failing("none")
    layer = linear(*[link, Gain()] if place == "first" else [Gain(), link])
    with_history(layer)
    link.stage = stage
    before, attributes = state_of(layer), vars(link).copy()
    with pytest.raises(ASSIGNMENT_STAGES[stage]):
        layer.weight = torch.randn(3, 3)
    assert state_of(layer) == before
    assert vars(link) == attributes


class Parts(nn.Module):
    """Two originals; ``parts`` decides what its right inverse returns."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = lambda W: (W, W)

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return (X + Y) / 2

    def right_inverse(self, W: Tensor) -> object:
        return self.parts(W)


WRONG_PARTS = {
    "too few": lambda W: (W,),
    "too many": lambda W: (W, W, W),
    "one tensor": lambda W: W,
    "second dtype": lambda W: (W, W.double()),
    "second type": lambda W: (W, None),
    "second device": lambda W: (W, W.to("meta")),
    "second not finite": lambda W: (W, W / 0.0),
    "nothing": lambda W: None,
}


@pytest.mark.parametrize("kind", WRONG_PARTS)
def test_A1_no_original_is_written_when_a_later_one_is_wrong(kind):
    link = Parts()
    layer = with_history(linear(link))
    link.parts = WRONG_PARTS[kind]
    before = state_of(layer)
    with pytest.raises(ValueError, match="right.inverse"):
        layer.weight = torch.randn(3, 3)
    assert state_of(layer) == before


@pytest.mark.parametrize("stage", ["forward", "interrupt"])
@pytest.mark.parametrize("others", [False, True])
def test_A1_a_failed_removal_leaves_everything_as_it_was(stage, others):
    link = Failing("none")
    layer = linear(link)
    if others:
        register(layer, "bias", Gain())
    with_history(layer)
    link.stage = stage
    before = state_of(layer)
    with pytest.raises(STAGES[stage][0], match=stage):
        remove(layer, "weight")
    assert state_of(layer) == before
    link.stage = "none"
    value = layer.weight.detach().clone()
    remove(layer, "weight")
    assert_close(layer.weight.detach(), value, rtol=0, atol=0)
    assert holdfast.is_parametrized(layer) is others


def test_A1_a_refused_removal_leaves_everything_as_it_was():
    layer = with_history(linear(Halves()))
    before = state_of(layer)
    with pytest.raises(ValueError, match="Cannot leave unparametrized"):
        remove(layer, "weight", leave_parametrized=False)
    with pytest.raises(ValueError, match="does not have a parametrization on"):
        remove(layer, "bias")
    assert state_of(layer) == before


def test_A1_a_recurrent_module_still_works_after_failures():
    rnn = nn.LSTM(3, 3)
    x = torch.randn(2, 1, 3)
    expected, _ = rnn(x)
    with pytest.raises(StageError):
        register(rnn, "weight_hh_l0", Failing("forward"))
    assert_close(rnn(x)[0], expected, rtol=0, atol=0)
    link = Failing("none")
    register(rnn, "weight_hh_l0", link)
    link.stage = "forward"
    with pytest.raises(StageError):
        remove(rnn, "weight_hh_l0")
    link.stage = "none"
    assert_close(rnn(x)[0], expected)


# ---- A2: awkward names -------------------------------------------------------------

AWKWARD = ["values", "keys", "items", "pop", "clear", "update", "parametrizations"]


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_A2_an_awkward_name_works_or_is_refused(name, buffer):
    module, value = nn.Module(), torch.randn(3)
    if buffer:
        module.register_buffer(name, value.clone())
    else:
        module.register_parameter(name, nn.Parameter(value.clone()))
    module.register_parameter("other", nn.Parameter(torch.randn(2)))
    before = state_of(module)
    refusal = None
    try:
        register(module, name, Gain())
    except (KeyError, ValueError) as error:
        refusal = str(error)
    if refusal is not None:
        assert name in refusal
        assert state_of(module) == before
        return
    assert_close(getattr(module, name), value)
    assert holdfast.is_parametrized(module, name)
    assert len(module.parametrizations[name]) == 1
    assert [*module.parametrizations.keys()] == [name]
    assert len([*module.parametrizations.values()]) == 1
    assert f"parametrizations.{name}.original" in module.state_dict()
    register(module, "other", Gain())
    assert [*module.parametrizations] == [name, "other"]
    setattr(module, name, value + 1)
    twin = copy.deepcopy(module)
    assert twin.load_state_dict(module.state_dict()) == ([], [])
    assert_close(getattr(twin, name), value + 1)
    remove(module, "other")
    remove(module, name)
    assert_close(getattr(module, name).detach(), value + 1)
    assert type(module) is nn.Module


def test_A2_negative_control_torch_loses_the_tensor():
    module = nn.Module()
    module.values = nn.Parameter(torch.randn(3))
    with pytest.raises((KeyError, AttributeError)):
        torch_parametrize.register_parametrization(module, "values", Gain())
    with pytest.raises((KeyError, AttributeError, TypeError)):
        module.values + 1


# ---- A3: no right inverse, and a missing kernel -------------------------------------


class MissingKernel(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, W: Tensor) -> Tensor:
        return torch.geqrf(W.half())[0].to(W.dtype)


class MissingTorchMethod(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, W: Tensor) -> Tensor:
        return torch.distributions.Distribution(validate_args=False).rsample()


class Declines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.declines = True

    def forward(self, X: Tensor) -> Tensor:
        return X.tanh()

    def right_inverse(self, W: Tensor) -> Tensor:
        if self.declines:
            raise NotImplementedError("no closed form")
        return W.atanh()


class DeclinesBare(Declines):
    def right_inverse(self, W: Tensor) -> Tensor:
        raise NotImplementedError


class Inherits(DeclinesBare):
    """Its right inverse is its base's, which has none."""


class AsksItsBase(DeclinesBare):
    def right_inverse(self, W: Tensor) -> Tensor:
        return super().right_inverse(W)


class Undeclared(holdfast.Parametrization):
    """Of the library's own base, whose right inverse is not implemented."""

    def forward(self, X: Tensor) -> Tensor:
        return X.tanh()


NO_INVERSE = [OneWay, Declines, DeclinesBare, Inherits, AsksItsBase, Undeclared]


@pytest.mark.parametrize("link", [MissingKernel, MissingTorchMethod])
@pytest.mark.parametrize("first", [False, True])
def test_A3_a_missing_kernel_surfaces_when_registering(link, first):
    layer = nn.Linear(3, 3) if first else linear(Gain())
    before = state_of(layer)
    with pytest.raises(NotImplementedError, match=r"geqrf|^(\nwhile.*)?$"):
        register(layer, "weight", link())
    assert state_of(layer) == before


@pytest.mark.parametrize("link", [MissingKernel, MissingTorchMethod])
def test_A3_a_missing_kernel_surfaces_when_assigning(link):
    layer = linear(OneWay(), name="bias")
    register(layer, "weight", Symmetric())
    layer.parametrizations.weight.append(link())
    before = state_of(layer)
    with pytest.raises(NotImplementedError) as caught:
        layer.weight = symmetric()
    assert not isinstance(caught.value, errors.NoRightInverseError)
    assert state_of(layer) == before


@pytest.mark.parametrize("link", NO_INVERSE)
def test_A3_registration_keeps_the_tensor_where_there_is_no_right_inverse(link):
    layer = nn.Linear(3, 3)
    weight, held = layer.weight, bits(layer.weight)
    register(layer, "weight", link())
    assert layer.parametrizations.weight.original is weight
    assert bits(weight) == held
    assert_close(layer.weight, weight.tanh())


@pytest.mark.parametrize("link", NO_INVERSE)
def test_A3_a_later_link_without_right_inverse_leaves_the_original(link):
    layer = linear(Symmetric())
    original, value = layer.parametrizations.weight.original, layer.weight
    held = bits(original)
    register(layer, "weight", link())
    assert bits(layer.parametrizations.weight.original) == held
    assert_close(layer.weight, value.tanh())


@pytest.mark.parametrize("link", NO_INVERSE)
@pytest.mark.parametrize("place", ["alone", "first", "last"])
def test_A3_assignment_says_what_to_implement(link, place):
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    chain = {"alone": [link()], "first": [link(), Gain()], "last": [Gain(), link()]}
    for one in chain[place]:
        register(model[1], "weight", one)
    before = state_of(model)
    with pytest.raises(
        RuntimeError, match="does not implement right_inverse"
    ) as caught:
        model[1].weight = torch.zeros(3, 3)
    assert isinstance(caught.value, errors.NoRightInverseError)
    assert not isinstance(caught.value, NotImplementedError)
    assert link.__name__ in str(caught.value)
    assert "1.weight" in str(caught.value)
    assert state_of(model) == before


def test_A3_a_maps_own_explanation_is_passed_on():
    layer = linear(Declines())
    with pytest.raises(RuntimeError, match="no closed form"):
        layer.weight = torch.zeros(3, 3)
    layer = nn.Linear(3, 3)
    holdfast.orthogonal(layer, orthogonal_map="cayley", use_trivialization=False)
    with pytest.raises(RuntimeError, match="not possible to assign"):  # torch's words
        layer.weight = torch.eye(3)


def test_A3_a_right_inverse_that_appears_later_is_used():
    link = Declines()
    layer = linear(link)
    link.declines = False
    layer.weight = torch.full((3, 3), 0.25)
    assert_close(layer.weight, torch.full((3, 3), 0.25))


# ---- A4: what a right inverse makes of finite values --------------------------------


class Breaks(nn.Module):
    """``broken`` is what the right inverse returns."""

    def __init__(self, broken: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.broken = broken

    def forward(self, X: Tensor, Y: Tensor | None = None) -> Tensor:
        return X

    def right_inverse(self, W: Tensor) -> object:
        return self.broken(W)


def some(W: Tensor, value: float) -> Tensor:
    return W.detach().flatten().index_fill(0, torch.tensor(1), value).view(W.shape)


NOT_FINITE = {
    "nan": lambda W: some(W, float("nan")),
    "infinity": lambda W: some(W, float("inf")),
    "-infinity": lambda W: some(W, float("-inf")),
    "second": lambda W: (W, some(W, float("nan"))),
}


@pytest.mark.parametrize("kind", NOT_FINITE)
@pytest.mark.parametrize("unsafe", [False, True])
def test_A4_registration_refuses_with_path_and_map(kind, unsafe):
    model = nn.ModuleDict({"encoder": nn.Sequential(nn.ReLU(), nn.Linear(3, 3))})
    before = state_of(model)
    with pytest.raises(ValueError, match=r"encoder\.1\.weight.*Breaks") as caught:
        register(model["encoder"][1], "weight", Breaks(NOT_FINITE[kind]), unsafe=unsafe)
    assert isinstance(caught.value, errors.NonFiniteError)
    assert re.search("NaN|nfinity", str(caught.value))
    assert state_of(model) == before


@pytest.mark.parametrize("kind", ["nan", "infinity", "-infinity"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_A4_assignment_refuses_with_path_and_map(kind, place):
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    link = Breaks(lambda W: W)
    for one in [link, Gain()] if place == "first" else [Gain(), link]:
        register(model[1], "weight", one)
    link.broken = NOT_FINITE[kind]
    before = state_of(model)
    with pytest.raises(errors.NonFiniteError, match=r"\b1\.weight\b.*Breaks"):
        model[1].weight = torch.ones(3, 3)
    assert state_of(model) == before


def test_A4_half_precision_overflow_is_refused():
    layer = nn.Linear(3, 3).half()
    with pytest.raises(errors.NonFiniteError, match="Linear.weight.*Breaks"):
        register(layer, "weight", Breaks(lambda W: (W.sign() * 6e4) * 2))


def test_A4_what_was_not_finite_before_may_stay():
    module = nn.Module()
    mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    module.register_buffer("mask", mask.clone())
    register(module, "mask", Breaks(lambda W: W))
    assert torch.equal(module.mask, mask)
    module.mask = mask.mT
    assert torch.equal(module.mask, mask.mT)


# ---- A5: what the set does not contain ---------------------------------------------


def orthogonal_map() -> holdfast.Parametrization:
    """The map behind the recipe, as it was before it met a tensor."""
    link = holdfast.orthogonal(nn.Linear(3, 3)).parametrizations.weight[0]
    return holdfast.maps.from_spec(link.spec())


OUTSIDE = torch.arange(9.0).view(3, 3)


def constrained(**options: object) -> nn.Sequential:
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    model[1].weight.data = symmetric(1)
    register(model[1], "weight", holdfast.maps.Symmetric(), **options)
    return model


def told_measures(message: str) -> None:
    """Residual and tolerance are numbers, and the former is the larger."""
    residual = re.search(r"residual:? (?:of )?(\d\S*\d)", message)
    tolerance = re.search(r"tolerance:? (?:of )?(\d\S*\d)", message)
    assert residual, message
    assert tolerance, message
    measured = holdfast.maps.Symmetric().codomain.residual(OUTSIDE).item()
    assert_close(float(residual[1]), measured, rtol=0.1, atol=0)
    assert 0 < float(tolerance[1]) < float(residual[1])


@pytest.mark.parametrize("options", [{}, {"outside": "error"}])
def test_A5_error_gives_path_residual_tolerance_and_the_way_out(options):
    model = constrained(**options)
    before = state_of(model)
    with pytest.raises(errors.NotInSetError, match=r"\b1\.weight\b") as caught:
        model[1].weight = OUTSIDE
    told_measures(str(caught.value))
    assert 'outside="project"' in str(caught.value)
    assert "Symmetric" in str(caught.value)
    assert state_of(model) == before


def test_A5_warn_projects_and_says_so():
    layer = constrained(outside="warn")[1]
    with pytest.warns(UserWarning, match="weight") as caught:
        layer.weight = OUTSIDE
    told_measures(str(caught[0].message))
    assert len(caught) == 1
    assert_close(
        layer.weight, layer.parametrizations.weight[0].codomain.project(OUTSIDE)
    )


def test_A5_project_projects_silently():
    layer = constrained(outside="project")[1]
    layer.weight = OUTSIDE
    assert_close(layer.weight.detach(), (OUTSIDE + OUTSIDE.mT) / 2)
    assert OUTSIDE.equal(torch.arange(9.0).view(3, 3))


@pytest.mark.parametrize("outside", ["error", "warn", "project"])
def test_A5_what_the_set_contains_is_kept_as_it_is(outside):
    layer = constrained(outside=outside)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.weight = symmetric()
    assert_close(layer.weight.detach(), symmetric(), rtol=0, atol=0)
    rounded = symmetric()
    rounded[0, 1] *= 1 + 1e-7
    layer.weight = rounded
    assert_close(layer.weight.detach(), symmetric())


def test_A5_a_map_has_its_own_default():
    layer = holdfast.orthogonal(nn.Linear(3, 3))
    layer.weight = OUTSIDE + torch.eye(3)
    assert_close(layer.weight @ layer.weight.mT, torch.eye(3), atol=1e-5, rtol=0)
    strict = nn.Linear(3, 3)
    strict.weight.data = torch.eye(3)
    register(strict, "weight", orthogonal_map(), outside="error")
    with pytest.raises(errors.NotInSetError, match="residual"):
        strict.weight = OUTSIDE + torch.eye(3)


def test_A5_the_check_reaches_through_a_chain():
    layer = nn.Linear(3, 3)
    register(layer, "weight", holdfast.maps.Symmetric())
    register(layer, "weight", Gain())
    with pytest.raises(errors.NotInSetError, match="Symmetric"):
        layer.weight = OUTSIDE
    layer.weight = symmetric()
    assert_close(layer.weight.detach(), symmetric())


def test_A5_user_written_maps_declare_nothing_so_nothing_is_checked():
    layer = linear(Symmetric(), outside="error")
    layer.weight = OUTSIDE
    assert_close(layer.weight.detach(), OUTSIDE.triu() + OUTSIDE.triu(1).mT)


@pytest.mark.parametrize(
    ("link", "size"),
    [
        (lambda: maps.DoRA(1), 3.0),
        (lambda: maps.Product(maps.Symmetric(), maps.Symmetric()), 1.0),
        (lambda: maps.Lyapunov(), 1e4),
        (lambda: maps.Stein(), 1e4),
    ],
)
def test_A5_the_value_that_is_there_may_be_assigned(link, size):
    """Its own right inverse refuses it, or may: then nothing changes at all."""
    kept = 0
    for seed in range(10):
        torch.manual_seed(seed)
        layer = register(nn.Linear(8, 8), "weight", link())
        with torch.no_grad():
            for p in layer.parametrizations.weight.parameters():
                p.add_(size * torch.randn_like(p))
        before, value = state_of(layer), layer.weight.detach().clone()
        layer.weight = value
        near = 1e-4 * float(value.abs().max())
        assert_close(layer.weight, value, rtol=0, atol=near)
        if state_of(layer) == before:
            kept += 1
            with pytest.raises(errors.HoldfastError):  # another one is still refused
                layer.weight = value.abs().max() * torch.randn_like(value)
            assert state_of(layer) == before
    assert kept


def test_A5_an_unknown_policy_is_refused():
    layer = nn.Linear(3, 3)
    before = state_of(layer)
    with pytest.raises(ValueError, match="outside.*ignore|ignore.*outside"):
        register(layer, "weight", Symmetric(), outside="ignore")
    assert state_of(layer) == before


@pytest.mark.parametrize("link", [Symmetric, holdfast.maps.Symmetric])
def test_A5_moved_is_the_relative_distance_and_zero_within_the_set(link):
    layer = nn.Linear(3, 3)
    start = layer.weight.detach().clone()
    register(layer, "weight", link())
    moved = layer.parametrizations.weight.moved
    assert isinstance(moved, float)
    distance = (layer.weight - start).norm() / start.norm()
    assert moved > 0.01
    assert_close(moved, distance.item(), rtol=1e-5, atol=0)

    inside = nn.Linear(3, 3)
    inside.weight.data = symmetric()
    register(inside, "weight", link())
    assert inside.parametrizations.weight.moved == 0.0


def test_A5_moved_is_zero_for_what_an_orthogonal_layer_contains():
    host = nn.Linear(4, 4)
    nn.init.orthogonal_(host.weight)
    holdfast.orthogonal(host)
    assert host.parametrizations.weight.moved == 0.0
    other = holdfast.orthogonal(nn.Linear(4, 4))
    assert other.parametrizations.weight.moved > 0.1


# ---- A6: clear errors --------------------------------------------------------------

BAD_VALUES = {
    "shape": (lambda: torch.zeros(2, 3), r"\(2, 3\).*\(3, 3\)|\(3, 3\).*\(2, 3\)"),
    "broadcast": (lambda: torch.zeros(3), r"\(3,\).*\(3, 3\)|\(3, 3\).*\(3,\)"),
    "dtype": (lambda: torch.zeros(3, 3).double(), r"float64(.|\n)*float32"),
    "device": (lambda: torch.zeros(3, 3, device="meta"), r"meta(.|\n)*cpu"),
    "none": (lambda: None, "None"),
    "list": (lambda: [[0.0] * 3] * 3, "list"),
    "number": (lambda: 0.0, "float"),
    "module": (lambda: nn.ReLU(), "ReLU"),
}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", BAD_VALUES)
def test_A6_a_value_of_the_wrong_kind_is_refused(kind, several):
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    register(model[1], "weight", Halves() if several else Symmetric())
    make, message = BAD_VALUES[kind]
    before = state_of(model)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        model[1].weight = make()
    assert isinstance(caught.value, errors.HoldfastError)
    assert "1.weight" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert state_of(model) == before


def expanded() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(torch.randn(1, 3).expand(3, 3))
    return layer


BAD_TENSORS = {
    "none": (lambda: nn.Linear(3, 3, bias=False), "bias", "None"),
    "expanded": (expanded, "weight", "expand"),
    "unknown": (lambda: nn.Linear(3, 3), "wieght", "Did you mean `weight`"),
    "unknown like torch": (
        lambda: nn.Linear(3, 3),
        "nothing",
        "does not have a parameter, a buffer, or a parametrized element with name",
    ),
    "no tensor": (lambda: nn.Linear(3, 3), "in_features", "in_features"),
    "submodule": (lambda: nn.Sequential(nn.ReLU()), "0", "0"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
@pytest.mark.parametrize("link", [OneWay, Symmetric])
def test_A6_a_tensor_that_cannot_be_parametrized_is_refused(kind, link):
    make, name, message = BAD_TENSORS[kind]
    module = make()
    before = state_of(module)
    with pytest.raises(ValueError, match=message) as caught:
        register(module, name, link())
    assert isinstance(caught.value, errors.HoldfastError)
    assert len(str(caught.value)) < 400
    assert state_of(module) == before


def test_A6_a_parametrized_tensor_is_suggested_too():
    layer = linear(Symmetric())
    with pytest.raises(ValueError, match="Did you mean `weight`"):
        register(layer, "weigth", Symmetric())


def test_A6_removing_from_an_unknown_name_suggests_one():
    layer = linear(Symmetric())
    with pytest.raises(
        ValueError, match="does not have a parametrization on"
    ) as caught:
        remove(layer, "wieght")
    assert "Did you mean `weight`" in str(caught.value)


@pytest.mark.parametrize("thing", [torch.tanh, Symmetric, None, "Symmetric"])
def test_A6_what_is_no_module_is_no_map(thing):
    layer = nn.Linear(3, 3)
    before = state_of(layer)
    with pytest.raises((TypeError, ValueError), match="(?i)module"):
        register(layer, "weight", thing)
    assert state_of(layer) == before


def test_A6_an_expanded_value_is_copied_into_a_whole_tensor():
    layer = linear(Gain())
    layer.weight = torch.ones(1, 3).expand(3, 3)
    original = layer.parametrizations.weight.original
    assert original.is_contiguous()
    assert original.untyped_storage().nbytes() == 9 * 4
    assert_close(layer.weight.detach(), torch.ones(3, 3))


def test_A6_negative_control_torch_takes_any_shape():
    layer = nn.Linear(3, 3)
    torch_parametrize.register_parametrization(layer, "weight", Symmetric())
    layer.weight = torch.zeros(2, 3)
    assert layer.parametrizations.weight.original.shape == (2, 3)


# ---- A7: assignment copies ---------------------------------------------------------


class Same(nn.Module):
    """Its right inverse is the identity, its result the very tensor."""

    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, W: Tensor) -> Tensor:
        return W


class Turned(Same):
    def forward(self, X: Tensor) -> Tensor:
        return X.mT

    def right_inverse(self, W: Tensor) -> Tensor:
        return W.mT


class Rows(nn.Module):
    """Originals that are views of the value, and of one another."""

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return torch.cat([X[:1], Y[1:]])

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor]:
        return W, W


def link_up(*maps: type[nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(layer: nn.Module) -> nn.Module:
        for link in maps:
            register(layer, "weight", link())
        return layer

    return apply


ALIASING = {
    "same": link_up(Same),
    "turned": link_up(Turned),
    "chain": link_up(Same, Turned),
    "rows": link_up(Rows),
    "halves": link_up(Halves),
    "weight_norm": holdfast.weight_norm,
    "spectral_norm": holdfast.spectral_norm,
    "orthogonal": holdfast.orthogonal,
}


def storages(tensors: list[Tensor]) -> list[int]:
    return [tensor.untyped_storage().data_ptr() for tensor in tensors]


def step(module: nn.Module, x: Tensor | None = None) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.zero_grad()
    (module(torch.randn(4, 3)) ** 2).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("wrap", [torch.Tensor.clone, nn.Parameter, nn.Buffer])
@pytest.mark.parametrize("kind", ALIASING)
def test_A7_the_optimizer_never_edits_what_was_assigned(kind, wrap):
    layer = ALIASING[kind](nn.Linear(3, 3))
    names = [name for name, _ in layer.named_parameters()]
    originals = [*layer.parameters()]
    value = wrap(torch.linalg.qr(torch.randn(3, 3))[0].contiguous())
    held = bits(value)
    layer.weight = value
    chain = layer.parametrizations.weight
    own = storages([*chain.parameters()])
    assert value.untyped_storage().data_ptr() not in own
    assert len({*own}) == len(own)
    step(layer)
    assert bits(value) == held
    assert [name for name, _ in layer.named_parameters()] == names
    assert all(p is q for p, q in zip(layer.parameters(), originals, strict=True))
    assert "weight" not in {*layer._parameters, *layer._buffers}


@pytest.mark.parametrize("kind", ["same", "turned", "chain", "rows", "halves"])
def test_A7_assigning_a_parameter_assigns_its_value(kind):
    layer, value = ALIASING[kind](nn.Linear(3, 3)), nn.Parameter(torch.randn(3, 3))
    layer.weight = value
    assert_close(layer.weight, value)
    assert holdfast.is_parametrized(layer, "weight")
    value.data.zero_()
    assert layer.weight.abs().min() > 0


def test_A7_editing_the_assigned_tensor_later_changes_nothing():
    layer, value = linear(Same()), torch.ones(3, 3)
    layer.weight = value
    value.zero_()
    assert_close(layer.weight.detach(), torch.ones(3, 3))


def test_A7_a_value_with_a_graph_leaves_the_graph_behind():
    layer = linear(Same())
    base = torch.ones(3, 3, requires_grad=True)
    layer.weight = base * 2
    original = layer.parametrizations.weight.original
    assert original.is_leaf
    assert original.requires_grad
    step(layer)
    assert base.grad is None


@pytest.mark.parametrize("kind", ALIASING)
def test_A7_assigning_the_value_itself_changes_nothing(kind):
    layer = ALIASING[kind](nn.Linear(3, 3)).eval()
    value = layer.weight.detach().clone()
    layer.weight = layer.weight
    assert_close(layer.weight.detach(), value, atol=1e-5, rtol=1e-5)


def test_A7_a_parametrized_buffer_is_assigned_by_copying():
    module, value = Buffered(), torch.ones(3, 3)
    register(module, "kept", Same())
    original = module.parametrizations.kept.original
    module.kept = value
    module.parametrizations.kept.original.add_(1.0)
    assert module.parametrizations.kept.original is original
    assert_close(value, torch.ones(3, 3))
    assert_close(module.kept, value + 1)


@pytest.mark.parametrize("kind", ["rows", "halves", "weight_norm"])
def test_A7_registration_shares_no_memory_between_originals(kind):
    own = storages(
        [*ALIASING[kind](nn.Linear(3, 3)).parametrizations.weight.parameters()]
    )
    assert len({*own}) == len(own) == 2


def test_A7_negative_control_torch_lets_the_optimizer_edit_it():
    layer, value = nn.Linear(3, 3), torch.ones(3, 3)
    torch_parametrize.register_parametrization(layer, "weight", Same())
    layer.weight = value
    step(layer)
    assert not value.equal(torch.ones(3, 3))


# ---- A8: what is kept --------------------------------------------------------------


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("kind", ALIASING)
def test_A8_requires_grad_is_kept(kind, trainable):
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(trainable)
    ALIASING[kind](layer)
    chain = layer.parametrizations.weight
    originals = [t for n, t in chain.named_parameters() if n.startswith("original")]
    assert [t.requires_grad for t in originals] == [trainable] * chain.ntensors
    assert layer.weight.requires_grad is trainable
    layer.weight = torch.eye(3)
    assert all(t.requires_grad is trainable for t in originals)
    assert all(t is u for t, u in zip(chain.parameters(), originals, strict=True))
    remove(layer, "weight")
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.requires_grad is trainable
    assert layer.weight.is_leaf


def test_A8_a_value_that_partly_trains_is_trainable_afterwards():
    layer = linear(Halves())
    layer.parametrizations.weight.original0.requires_grad_(False)
    remove(layer, "weight")
    assert layer.weight.requires_grad


@pytest.mark.parametrize("grad", [True, False])
def test_A8_registering_without_gradients_keeps_requires_grad(grad):
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(grad)
    with torch.no_grad():
        register(layer, "weight", Halves())
        assert layer.parametrizations.weight.original1.requires_grad is grad
        remove(layer, "weight")
    assert layer.weight.requires_grad is grad


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", ["weight", "kept"])
def test_A8_a_buffer_stays_a_buffer_and_saved_or_not(name, several):
    module = Buffered()
    saved = [*module.state_dict()]
    value = getattr(module, name).clone()
    register(module, name, Halves() if several else Same())
    chain = module.parametrizations[name]
    assert [*chain._parameters] == []
    assert len(chain._buffers) == 1 + several
    keys = [key for key in module.state_dict() if "original" in key]
    assert len(keys) == ((1 + several) if name == "kept" else 0)
    assert not getattr(module, name).requires_grad
    setattr(module, name, value + 1)
    remove(module, name)
    assert name in module._buffers
    assert not isinstance(module._buffers[name], nn.Parameter)
    assert [*module.state_dict()] == saved
    assert_close(getattr(module, name), value + 1)


def test_A8_a_registered_parameter_stays_a_parameter():
    layer = linear(Same())
    assert type(layer.parametrizations.weight.original) is nn.Parameter
    remove(layer, "weight")
    assert type(layer.weight) is nn.Parameter


@pytest.mark.parametrize("host", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("own", [True, False], ids=["map training", "map evaluating"])
@pytest.mark.parametrize("second", [False, True])
def test_A8_a_maps_mode_is_kept_and_an_evaluating_host_wins(host, own, second):
    layer = linear(Symmetric()) if second else nn.Linear(3, 3)
    layer.train(host)
    link = nn.Sequential(OneWay(), OneWay()).train(own)
    register(layer, "weight", link)
    assert [part.training for part in link.modules()] == [host and own] * 3
    assert layer.training is host


def test_A8_the_mode_of_a_part_of_a_map_is_kept():
    link = nn.Sequential(OneWay(), nn.Dropout(0.9).eval())
    layer = linear(link)
    assert [part.training for part in link.modules()] == [True, True, False]
    assert_close(layer.weight, layer.parametrizations.weight.original.tanh())
    layer.eval().train()
    assert all(part.training for part in link.modules())


def test_A8_assignment_and_removal_change_no_modes():
    link = Gain().eval()
    layer = linear(link, Symmetric())
    modes = [part.training for part in layer.modules()]
    layer.weight = symmetric()
    assert [part.training for part in layer.modules()] == modes
    remove(layer, "weight")
    assert layer.training
    assert not link.training


# ---- A9: order and identity --------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.middle = nn.Parameter(torch.randn(3, 3))
        self.norm = nn.BatchNorm1d(3)
        self.rnn = nn.GRU(3, 3)


PLACES = [
    ("first", "weight"),
    ("first", "bias"),
    ("", "middle"),
    ("norm", "weight"),
    ("norm", "running_var"),
    ("rnn", "weight_ih_l0"),
    ("rnn", "weight_hh_l0"),
    ("rnn", "bias_ih_l0"),
]


def listing(module: nn.Module) -> list[tuple[str, int]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, id(tensor)) for name, tensor in named]


@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.parametrize("order", ["as registered", "reversed"])
def test_A9_order_and_identity_are_as_before(order, leave):
    model = Model()
    before, keys = listing(model), [*model.state_dict()]
    flat = [id(w) for w in model.rnn._flat_weights]
    held = [*model.parameters(), *model.buffers()]
    for path, name in PLACES:
        register(model.get_submodule(path), name, OneWay())
    assert listing(model) != before
    assert {id(t) for t in held} == {i for _, i in listing(model)}
    for path, name in PLACES if order == "as registered" else reversed(PLACES):
        remove(model.get_submodule(path), name, leave_parametrized=leave)
    assert listing(model) == before
    assert [*model.state_dict()] == keys
    assert [id(w) for w in model.rnn._flat_weights] == flat


def test_A9_order_is_as_before_with_several_originals():
    model = Model()
    names = [name for name, _ in listing(model)]
    for path, name in PLACES:
        register(model.get_submodule(path), name, Halves())
    for path, name in PLACES:
        remove(model.get_submodule(path), name)
    assert [name for name, _ in listing(model)] == names


def test_A9_order_is_as_before_in_a_copy_and_after_pickling():
    layer = linear(Symmetric())
    twin = copy.deepcopy(layer)
    remove(twin, "weight")
    assert [name for name, _ in twin.named_parameters()] == ["weight", "bias"]


def test_A9_while_registered_the_listing_is_torchs():
    ours, theirs = nn.GRU(2, 3), nn.GRU(2, 3)
    for name, link in [("weight_hh_l0", Gain), ("bias_hh_l0", Halves)]:
        register(ours, name, link())
        torch_parametrize.register_parametrization(theirs, name, link())
    expected = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == expected
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    layer = linear(Symmetric())
    names = [name for name, _ in layer.named_parameters()]
    assert names == ["bias", "parametrizations.weight.original"]


def test_A9_an_existing_optimizer_goes_on():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    register(layer, "weight", Gain())
    for _ in range(2):
        value = layer.weight.detach().clone()
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert not layer.weight.equal(value)
        if holdfast.is_parametrized(layer):
            remove(layer, "weight")
    assert layer.weight is weight


@pytest.mark.parametrize("registry", ["_parameters", "_buffers", "_modules"])
def test_A9_identity_is_kept_while_somebody_looks_at_the_registries(registry):
    layer = nn.Linear(3, 3)
    looked_at = vars(layer)[registry]
    weight = layer.weight
    register(layer, "weight", Gain())
    assert layer.parametrizations.weight.original is weight
    remove(layer, "weight")
    assert layer.weight is weight
    assert looked_at is not None


def test_A9_negative_control_torch_moves_the_weight_to_the_end():
    layer = nn.Linear(3, 3)
    torch_parametrize.register_parametrization(layer, "weight", OneWay())
    torch_parametrize.remove_parametrizations(layer, "weight")
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"]


def momentum_model() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [
        {"params": [model[1].bias, model[0].weight], "lr": 0.25, "weight_decay": 0.5},
        {"params": [model[0].bias, model[1].weight]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.125)
    train(model, optimizer)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (model(torch.randn(4, 3)) ** 2).sum().backward()
    optimizer.step()


def members(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [[id(p) for p in group["params"]] for group in optimizer.param_groups]


def test_A9_swap_parameters_rebinds_after_registering_and_removing():
    model, optimizer = momentum_model()
    bias, other = model[1].bias, model[1].weight
    kept = bits(optimizer.state[bias]["exp_avg"])
    settings = [
        {k: v for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]
    holdfast.weight_norm(model[0])
    holdfast.swap_parameters(optimizer)
    chain = model[0].parametrizations.weight
    assert members(optimizer) == [
        [id(bias), id(chain.original0), id(chain.original1)],
        [id(model[0].bias), id(other)],
    ]
    assert set(optimizer.state) <= set(model.parameters())
    assert bits(optimizer.state[bias]["exp_avg"]) == kept
    value = [bits(chain.original0), bits(chain.original1)]
    train(model, optimizer)
    assert bits(chain.original0) != value[0]
    assert bits(chain.original1) != value[1]

    remove(model[0], "weight")
    holdfast.swap_parameters(optimizer)
    assert members(optimizer) == [
        [id(bias), id(model[0].weight)],
        [id(model[0].bias), id(other)],
    ]
    assert set(optimizer.state) <= set(model.parameters())
    for group, before in zip(optimizer.param_groups, settings, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == before
    held = bits(model[0].weight)
    train(model, optimizer)
    assert bits(model[0].weight) != held


def test_A9_swap_parameters_sees_a_registration_that_was_taken_back():
    model, optimizer = momentum_model()
    holdfast.weight_norm(model[0])
    remove(model[0], "weight")
    holdfast.swap_parameters(optimizer)
    assert members(optimizer) == [
        [id(model[1].bias), id(model[0].weight)],
        [id(model[0].bias), id(model[1].weight)],
    ]


def test_A9_swap_parameters_changes_nothing_where_nothing_changed():
    model, optimizer = momentum_model()
    register(model[0], "weight", Gain())
    before = (members(optimizer), [*optimizer.state])
    holdfast.swap_parameters(optimizer)
    holdfast.weight_norm(nn.Linear(2, 2))
    holdfast.swap_parameters(optimizer)
    assert (members(optimizer), [*optimizer.state]) == before


@pytest.mark.parametrize("link", [Symmetric, Same, Halves, Gain])
def test_A9_a_stale_gradient_never_survives(link):
    layer = nn.Linear(3, 3)
    layer(torch.ones(1, 3)).sum().backward()
    bias = layer.bias.grad
    register(layer, "weight", link())
    chain = layer.parametrizations.weight
    assert all(p.grad is None for p in chain.parameters())
    layer.zero_grad()
    layer(torch.ones(1, 3)).sum().backward()
    assert any(p.grad is not None for p in chain.parameters())
    remove(layer, "weight")
    assert layer.weight.grad is None
    assert bias is not None


def test_A9_the_gradients_of_others_survive():
    layer = nn.Linear(3, 3)
    layer(torch.ones(1, 3)).sum().backward()
    grad = layer.bias.grad
    register(layer, "weight", Gain())
    assert layer.bias.grad is grad
    remove(layer, "weight", leave_parametrized=False)
    assert layer.bias.grad is grad
    assert layer.weight.grad is None


# ---- A12: transfer -----------------------------------------------------------------

SOURCES = {
    "one": lambda: linear(Symmetric()),
    "chain": lambda: linear(Symmetric(), Gain(), OneWay()),
    "several": lambda: linear(Halves(), Gain()),
    "built-in": lambda: linear(holdfast.maps.Symmetric()),
    "orthogonal": lambda: holdfast.orthogonal(nn.Linear(3, 3)),
    "spectral_norm": lambda: holdfast.spectral_norm(nn.Linear(3, 3)).eval(),
    "weight_norm": lambda: holdfast.weight_norm(nn.Linear(3, 3)),
}


def all_storages(module: nn.Module) -> set[int]:
    return set(storages([*module.parameters(), *module.buffers()]))


@pytest.mark.parametrize("kind", SOURCES)
def test_A12_transfer_copies_and_leaves_the_source_alone(kind):
    source, target = SOURCES[kind](), nn.Linear(3, 3)
    target.train(source.training)
    bias = target.bias
    before = state_of(source)
    moved = holdfast.transfer_parametrizations_and_params(source, target)
    assert moved is target
    assert state_of(source) == before
    assert_close(target.weight, source.weight, rtol=0, atol=0)
    assert target.bias is bias
    theirs, mine = source.parametrizations.weight, target.parametrizations.weight
    assert [type(link) for link in mine] == [type(link) for link in theirs]
    assert [*mine.state_dict()] == [*theirs.state_dict()]
    assert not {id(link) for link in mine} & {id(link) for link in theirs}
    assert not all_storages(source) & all_storages(target)
    step(target)
    assert state_of(source) == before
    remove(target, "weight")
    assert state_of(source) == before
    assert type(target) is nn.Linear


@pytest.mark.parametrize("unsafe", [False, True])
def test_A12_unsafe_is_kept(unsafe):
    source, target = linear(OneWay(), unsafe=unsafe), nn.Linear(3, 3)
    holdfast.transfer_parametrizations_and_params(source, target)
    assert target.parametrizations.weight.unsafe is unsafe


class Wider(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return torch.cat([X, X])

    def right_inverse(self, W: Tensor) -> Tensor:
        return W[: len(W) // 2]


def test_A12_a_map_that_changes_the_shape_is_transferred():
    source, target = nn.Linear(3, 4), nn.Linear(3, 4)
    register(source, "weight", Wider(), unsafe=True)
    holdfast.transfer_parametrizations_and_params(source, target)
    assert_close(target.weight, source.weight, rtol=0, atol=0)
    assert target.parametrizations.weight.original.shape == (2, 3)


def test_A12_the_policy_is_kept():
    source = linear(holdfast.maps.Symmetric(), outside="project")
    target = nn.Linear(3, 3)
    holdfast.transfer_parametrizations_and_params(source, target)
    assert target.parametrizations.weight.outside == "project"
    target.weight = OUTSIDE
    assert_close(target.weight.detach(), (OUTSIDE + OUTSIDE.mT) / 2)


@pytest.mark.parametrize("kind", ["one", "several", "chain"])
@pytest.mark.parametrize("target", [nn.Linear(4, 3), nn.Linear(3, 1)])
def test_A12_shapes_are_checked(kind, target):
    source = SOURCES[kind]()
    before = state_of(source), state_of(target)
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        holdfast.transfer_parametrizations_and_params(source, target)
    assert (state_of(source), state_of(target)) == before


def test_A12_one_name_or_all_of_them():
    source = nn.Linear(3, 3)
    register(source, "weight", Gain())
    register(source, "bias", OneWay())
    target = nn.Linear(3, 3)
    holdfast.transfer_parametrizations_and_params(source, target, "bias")
    assert [*target.parametrizations] == ["bias"]
    assert_close(target.bias, source.bias)
    everything = nn.Linear(3, 3)
    holdfast.transfer_parametrizations_and_params(source, everything)
    assert [*everything.parametrizations] == ["weight", "bias"]
    assert_close(everything.weight, source.weight)


def test_A12_a_failing_transfer_takes_nothing_over():
    source = nn.Linear(3, 3)
    register(source, "bias", OneWay())
    register(source, "weight", OneWay())
    target = nn.Linear(4, 3)  # its bias fits, its weight does not
    before = state_of(source), state_of(target)
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        holdfast.transfer_parametrizations_and_params(source, target)
    assert (state_of(source), state_of(target)) == before


@pytest.mark.parametrize("kind", SOURCES)
def test_A12_a_missing_tensor_is_created(kind):
    source, target = SOURCES[kind](), nn.Module()
    target.train(source.training)
    before = state_of(source)
    holdfast.transfer_parametrizations_and_params(source, target)
    assert_close(target.weight, source.weight, rtol=0, atol=0)
    assert isinstance(next(target.parameters()), nn.Parameter)
    assert not all_storages(source) & all_storages(target)
    assert state_of(source) == before


def test_A12_nothing_happens_from_a_plain_module():
    source, target = nn.Linear(3, 3), nn.Linear(3, 3)
    before = state_of(source), state_of(target)
    assert holdfast.transfer_parametrizations_and_params(source, target) is target
    assert (state_of(source), state_of(target)) == before


def test_A12_negative_control_torch_shares_with_the_source():
    source = torch_recipes.weight_norm(nn.Linear(3, 3))
    target = nn.Linear(3, 3)
    torch_parametrize.transfer_parametrizations_and_params(source, target)
    assert all_storages(source) & all_storages(target)


# ---- A13: one map, two tensors -----------------------------------------------------


class Inside(nn.Module):
    """Has its state in a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Gain()

    def forward(self, X: Tensor) -> Tensor:
        return self.part(X)

    def right_inverse(self, W: Tensor) -> Tensor:
        return self.part.right_inverse(W)


STATEFUL = {
    "parameter": Gain,
    "in a part": Inside,
    "made at registration": orthogonal_map,
}
SECOND = {
    "same module": (lambda rnn: rnn, "weight_ih_l0"),
    "another module": (lambda rnn: nn.Linear(3, 3), "weight"),
}


@pytest.mark.parametrize("kind", STATEFUL)
@pytest.mark.parametrize("place", SECOND)
def test_A13_a_map_with_state_is_not_shared(kind, place):
    rnn, link = nn.RNN(3, 3), STATEFUL[kind]()
    register(rnn, "weight_hh_l0", link)
    other, name = SECOND[place][0](rnn), SECOND[place][1]
    before = state_of(rnn), state_of(other)
    with pytest.raises(errors.SharedMapError, match=type(link).__name__) as caught:
        register(other, name, link)
    assert isinstance(caught.value, ValueError)
    assert (state_of(rnn), state_of(other)) == before


@pytest.mark.parametrize("kind", STATEFUL)
def test_A13_a_map_is_free_again_after_removal_failure_or_with_its_module(kind):
    link = STATEFUL[kind]()
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    register(first, "weight", link)
    remove(first, "weight")
    register(second, "weight", link)
    assert second.parametrizations.weight[0] is link
    del second
    value = first.weight.detach().clone()
    register(first, "weight", link)
    assert_close(first.weight.detach(), value)


def test_A13_a_copy_has_its_own_map_which_is_not_shared_either():
    twin = copy.deepcopy(linear(Gain()))
    with pytest.raises(errors.SharedMapError, match="Gain"):
        register(nn.Linear(3, 3), "weight", twin.parametrizations.weight[0])


@pytest.mark.parametrize("make", [Symmetric, holdfast.maps.Symmetric])
def test_A13_a_map_without_state_may_be_shared(make):
    link = make()
    one, other = linear(link), linear(link)
    value = other.weight.detach().clone()
    one.weight = symmetric()
    assert_close(one.weight.detach(), symmetric())
    remove(one, "weight")
    assert other.parametrizations.weight[0] is link
    assert_close(other.weight.detach(), value, rtol=0, atol=0)


@pytest.mark.parametrize("link", [holdfast.maps.Cayley, holdfast.maps.Symmetric])
def test_A6_a_map_that_does_not_fit_names_the_path(link):
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="square|matri|takes") as caught:
        register(model[1], "weight", link())
    notes = getattr(caught.value, "__notes__", [])
    assert "`1.weight`" in str(caught.value) + "".join(notes)


def test_R1_an_error_in_a_right_inverse_names_the_path():
    class Singular(Gain):
        def right_inverse(self, W: Tensor) -> Tensor:
            return torch.linalg.solve(torch.zeros(3, 3), W)

    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    with pytest.raises(torch.linalg.LinAlgError) as caught:
        register(model[1], "weight", Singular())
    assert any("1.weight" in note for note in caught.value.__notes__)


# ---- A1: nothing is written before nothing can fail --------------------------------


class Final(nn.Linear):
    """A layer of which no class can be derived."""

    def __init_subclass__(cls, **_: object) -> None:
        raise TypeError("final")


def test_A1_a_class_that_cannot_be_derived_from_is_left_alone():
    layer = Final(3, 3)
    layer(torch.ones(1, 3)).sum().backward()
    before, gradient = state_of(layer), layer.weight.grad.clone()
    with pytest.raises(TypeError, match="final"):
        register(layer, "weight", Symmetric())
    assert state_of(layer) == before
    assert torch.equal(layer.weight.grad, gradient)


@pytest.mark.parametrize("change", ["register", "remove", "transfer"])
def test_A1_an_interruption_at_the_last_moment_changes_nothing(change, monkeypatch):
    layer = nn.Linear(3, 3) if change != "remove" else linear(Symmetric())
    source = linear(Symmetric())
    register(source, "bias", Gain())
    layer(torch.ones(1, 3)).sum().backward()
    before = state_of(layer)

    def interrupted(_: nn.Module) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holdfast.core.recurrent.release", interrupted)
    changes = {
        "register": lambda: register(layer, "weight", Symmetric()),
        "remove": lambda: remove(layer, "weight"),
        "transfer": lambda: holdfast.transfer_parametrizations_and_params(
            source, layer
        ),
    }
    with pytest.raises(KeyboardInterrupt):
        changes[change]()
    assert state_of(layer) == before


class SometimesSparse(nn.Module):
    bad = False

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b.to_dense()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        half = weight / 2
        return (weight - 1, half.to_sparse()) if self.bad else (half, half)


def test_A1_an_original_of_another_layout_is_refused_before_any_is_written():
    link = SometimesSparse()
    layer = linear(link)
    link.bad = True
    before = state_of(layer)
    with pytest.raises(errors.InvalidTensorError, match=r"Linear\.weight.*layout"):
        layer.weight = torch.full((3, 3), 7.0)
    assert state_of(layer) == before


# ---- A6: errors that say what is wrong, wherever they are raised -------------------


class HalfMade(nn.Module):
    """Registers before `nn.Module` is set up, and with a slip."""

    def __init__(self) -> None:
        layer = nn.Linear(3, 3)
        register(layer, "wieght", Symmetric())


@dataclass
class Unhashable(nn.Module):
    layer: nn.Module

    def __new__(cls, *_: object) -> Unhashable:
        made = super().__new__(cls)
        nn.Module.__init__(made)
        return made


class Lazy:
    """A proxy that fails when it is asked for its class."""

    @property
    def __class__(self) -> type:
        raise LookupError("not loaded")


def test_A6_looking_for_the_path_never_replaces_the_error():
    with pytest.raises(errors.UnknownTensorError, match="Did you mean `weight`"):
        HalfMade()
    model, proxy = Unhashable(nn.Linear(3, 3)), Lazy()
    with pytest.raises(errors.UnknownTensorError, match="`layer.wieght`"):
        register(model.layer, "wieght", Symmetric())
    assert proxy is not None


def test_A6_modules_and_maps_need_no_hash():
    model = Unhashable(nn.Linear(3, 3))
    model.scale = nn.Parameter(torch.ones(3, 3))
    register(model, "scale", Symmetric())
    assert torch.equal(model.scale, model.scale.mT)
    remove(model, "scale")
    assert isinstance(model.scale, nn.Parameter)


def test_A6_a_path_is_told_from_a_name():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(errors.UnknownTensorError, match="Pass the submodule `0`"):
        register(model, "0.weight", Symmetric())
    with pytest.raises(TypeError, match="takes a module. Got an object of str"):
        register("weight", "weight", Symmetric())


@pytest.mark.parametrize(
    "taken", [nn.ModuleList(), 3, nn.ModuleDict({"a": nn.Linear(2, 2)})]
)
def test_A2_a_module_that_uses_the_name_for_something_else_is_refused(taken):
    layer = nn.Linear(3, 3)
    layer.parametrizations = taken
    before = state_of(layer)
    with pytest.raises(errors.InvalidTensorError, match="attribute of that name"):
        register(layer, "weight", Symmetric())
    assert state_of(layer) == before


def test_A8_tensors_made_in_inference_mode_are_parametrized():
    with torch.inference_mode():
        layer = holdfast.spectral_norm(nn.Linear(3, 3))
        assert torch.linalg.matrix_norm(layer.weight, 2) < 1.1


@pytest.mark.parametrize("name", ["matrix_exp", "cayley", "householder", None])
def test_A8_what_was_assigned_in_inference_mode_is_trained(name):
    layer = holdfast.orthogonal(nn.Linear(4, 3), orthogonal_map=name)
    with torch.inference_mode():
        layer.weight = torch.eye(3, 4)
    assert_close(layer.weight.detach(), torch.eye(3, 4))
    (layer.weight[:, :3] * torch.arange(9.0).view(3, 3)).sum().backward()
    assert layer.parametrizations.weight.original.grad.any()


def test_A9_with_its_model_a_group_is_in_the_order_of_a_fresh_one():
    """So that an optimizer's saved state, which knows places only, fits."""

    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))

    def register(model):
        holdfast.weight_norm(model[0])
        holdfast.orthogonal(model[1])
        return model

    def groups_of(model):
        last = [*model[2].parameters()]
        others = [*model[0].parameters(), *model[1].parameters()]
        return [{"params": others}, {"params": last, "lr": 0.5}]

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).cumsum(1).square().sum().backward()
        optimizer.step()

    fresh = register(made())
    saved = torch.optim.Adam(groups_of(fresh), lr=0.1)
    step(fresh, saved)
    late = made()
    optimizer = torch.optim.Adam(groups_of(late), lr=0.1)
    register(late)
    assert holdfast.swap_parameters(optimizer, late) == 1
    late.load_state_dict(fresh.state_dict())
    optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
    for model, its in ((fresh, saved), (late, optimizer)):
        step(model, its)
    assert_close(late.state_dict(), fresh.state_dict())


def test_A9_control_without_it_the_order_is_another():
    layer = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    holdfast.weight_norm(layer)
    holdfast.swap_parameters(optimizer)
    group = optimizer.param_groups[0]["params"]
    assert [*map(id, group)] != [*map(id, layer.parameters())]
    assert {*map(id, group)} == {*map(id, layer.parameters())}


def test_A9_the_names_of_named_parameters_follow():
    layer = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(layer.named_parameters(), lr=0.1)
    if "param_names" not in optimizer.param_groups[0]:
        pytest.skip("torch before 2.6 forgets them")
    holdfast.weight_norm(layer)
    holdfast.swap_parameters(optimizer, layer)
    group = optimizer.param_groups[0]
    expected = dict(layer.named_parameters())
    assert dict(zip(group["param_names"], group["params"], strict=True)) == expected
