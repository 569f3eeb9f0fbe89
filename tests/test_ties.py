"""A11: tied parameters are not untied silently."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import nn

import holdfast
from holdfast import errors, maps
from support import Gain, state_of


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


REGISTER = {
    "register": lambda m: holdfast.register_parametrization(m, "weight", Gain()),
    "weight_norm": holdfast.weight_norm,
    "orthogonal": holdfast.orthogonal,
}


@pytest.mark.parametrize("how", REGISTER)
@pytest.mark.parametrize("path", ["head", "embedding"])
def test_A11_a_tied_parameter_is_refused_with_its_other_names(path, how):
    model = Tied()
    other = {"head": "embedding", "embedding": "head"}[path]
    before = state_of(model)
    message = f"`{path}.weight` is tied.*`{other}.weight`.*Untie"
    with pytest.raises(holdfast.errors.TiedTensorError, match=message):
        REGISTER[how](model.get_submodule(path))
    assert state_of(model) == before


def test_A11_all_other_names_are_listed():
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abc"})
    model["b"].weight = model["c"].weight = model["a"].weight
    model["a"].register_parameter("twin", model["a"].weight)
    with pytest.raises(ValueError, match="`a.twin`, `b.weight`, `c.weight`"):
        holdfast.weight_norm(model["a"])


def test_A11_a_model_out_of_sight_counts_too():
    layers = [Tied()]
    head = layers[0].head
    with pytest.raises(ValueError, match=r"is tied.*`Embedding.weight`"):
        holdfast.weight_norm(head)


def test_A11_the_original_of_another_weight_is_tied():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    holdfast.register_parametrization(a, "weight", Gain())
    b.weight = a.parametrizations.weight.original
    with pytest.raises(ValueError, match=r"is tied.*original"):
        holdfast.weight_norm(b)


def test_A11_a_shared_buffer_is_refused():
    a, b = nn.Module(), nn.Module()
    a.register_buffer("table", torch.rand(3, 3))
    b.register_buffer("table", a.table)
    with pytest.raises(ValueError, match=r"is tied.*`Module.table`"):
        holdfast.register_parametrization(a, "table", maps.Symmetric())


def test_A11_untied_as_the_message_says_it_works():
    model = Tied()
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    holdfast.weight_norm(model.head)
    assert not holdfast.is_parametrized(model.embedding)


def held_by(kind: str, layer: nn.Module) -> object:
    weight = layer.weight
    return {
        "a name": lambda: weight,
        "an optimizer": lambda: torch.optim.Adam(layer.parameters()),
        "a dictionary": lambda: {"weight": weight},
        "a module in several places": lambda: nn.Sequential(layer, layer),
        "a shallow copy": lambda: copy.copy(layer),
        "a plain attribute": lambda: setattr(layer, "alias", [weight]),
    }[kind]()


HELD = (
    "a name",
    "an optimizer",
    "a dictionary",
    "a module in several places",
    "a shallow copy",
    "a plain attribute",
)


@pytest.mark.parametrize("kind", HELD)
def test_A11_what_is_held_and_not_tied_is_parametrized(kind):
    layer = nn.Linear(3, 3)
    holder = held_by(kind, layer)
    holdfast.weight_norm(layer)
    assert holdfast.is_parametrized(layer)
    del holder


def test_A11_a_shallow_copy_of_a_parametrized_module_ties_nothing():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    twin = copy.copy(layer)
    for module in (twin, layer):
        holdfast.register_parametrization(module, "bias", Gain())


def test_A11_a_module_that_nobody_has_any_more_ties_nothing():
    gc.disable()
    try:
        model = Tied()
        model.loop = [model]
        head = model.head
        del model
        holdfast.weight_norm(head)
    finally:
        gc.enable()


def test_A11_a_tie_made_later_is_seen_although_there_was_none_before():
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    weight = layer.weight
    for _ in range(2):
        holdfast.register_parametrization(layer, "weight", Gain())
        holdfast.remove_parametrizations(layer, "weight")
    other.weight = weight
    with pytest.raises(holdfast.errors.TiedTensorError):
        holdfast.register_parametrization(layer, "weight", Gain())


def test_A11_a_chain_that_was_removed_ties_nothing():
    layer = nn.Linear(3, 3)
    for _ in range(2):
        holdfast.register_parametrization(layer, "weight", Gain())
        chain = layer.parametrizations.weight
        holdfast.remove_parametrizations(layer, "weight")
        assert chain.original is layer.weight


@pytest.mark.parametrize("how", REGISTER)
def test_A11_of_a_tensor_that_nobody_else_holds_the_collector_is_not_asked(
    how, monkeypatch
):
    layer, ask, asked = nn.Linear(3, 3), gc.get_objects, []
    monkeypatch.setattr(gc, "get_objects", lambda *a: asked.append(1) or ask(*a))
    REGISTER[how](layer)
    assert not asked


def test_A11_registering_at_every_forward_asks_the_collector_once(monkeypatch):
    layer, asked, ask = nn.Linear(3, 3), [], gc.get_objects
    weight = layer.weight
    monkeypatch.setattr(gc, "get_objects", lambda *a: asked.append(1) or ask(*a))
    for _ in range(5):
        holdfast.register_parametrization(layer, "weight", Gain())
        holdfast.remove_parametrizations(layer, "weight")
    del weight
    assert len(asked) == 1


def test_A11_what_was_found_of_one_tensor_hides_no_later_tie_of_another():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)  # holds them all
    holdfast.register_parametrization(net[0], "weight", maps.Symmetric())
    net[2].weight = net[1].weight
    for layer in (net[1], net[2]):
        with pytest.raises(errors.TiedTensorError, match="is tied"):
            holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    holdfast.register_parametrization(net[3], "weight", maps.Symmetric())
    assert optimizer.param_groups


def test_A11_modules_that_the_collector_may_not_look_at_are_parametrized():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    gc.freeze()
    holdfast.register_parametrization(layer, "weight", Gain())
    assert holdfast.is_parametrized(layer)
    del weight
