"""W1: in-place writes that reach the originals."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import holdfast
from holdfast import maps
from support import Gain, OneWay, bits, state_of, told


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


KINDS = {
    "weight norm": holdfast.weight_norm,
    "orthogonal": holdfast.orthogonal,
    "gain": lambda layer: holdfast.register_parametrization(layer, "weight", Gain()),
    "torch": parametrizations.weight_norm,
    "old": old_weight_norm,
}
Q = nn.init.orthogonal_(torch.empty(4, 4))


def data(weight: torch.Tensor) -> None:
    weight.data = Q.clone()


def copy(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.copy_(Q)


def parts(weight: torch.Tensor) -> None:
    weight.data[:2], weight.data[2:] = Q[:2], Q[2:]


def init(weight: torch.Tensor) -> None:
    torch.manual_seed(7)
    nn.init.orthogonal_(weight)


WRITES = {write.__name__: write for write in (data, copy, parts, init)}


def expected(write: str) -> torch.Tensor:
    weight = torch.empty(4, 4)
    WRITES[write](weight)
    return weight


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", KINDS)
def test_W1_a_write_reaches_the_originals(kind, write):
    layer = KINDS[kind](nn.Linear(4, 4))
    before = [*layer.parameters()]
    with holdfast.writable(layer):
        WRITES[write](layer.weight)
    assert_close(layer.weight.detach(), expected(write))
    assert all(a is b for a, b in zip(before, layer.parameters(), strict=True))
    layer(torch.ones(1, 4)).sum().backward()
    assert_close(layer.weight.detach(), expected(write))


@pytest.mark.parametrize("write", WRITES)
def test_W1_without_the_scope_it_is_lost(write):
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    before = layer.weight.detach().clone()
    WRITES[write](layer.weight)
    assert bits(layer.weight) == bits(before)


@pytest.mark.parametrize("by", [nn.init.zeros_, lambda W: W[0].add_(1.0), copy])
def test_W1_a_lost_write_to_what_is_remembered_is_warned_about_at_the_next_read(by):
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(4, 4)))
    with torch.no_grad():
        before = model[0].weight.clone()
        by(model[0].weight)
        with pytest.warns(
            UserWarning, match=r"`0.weight` was written .*writable"
        ) as all_:
            now = model[0].weight
        assert [Path(w.filename).name for w in all_] == ["test_writing.py"]
        assert bits(now) == bits(before)
        assert bits(model[0].weight) == bits(before)  # and not again


def test_W1_what_writes_to_no_value_is_not_warned_about():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    with torch.no_grad():
        layer.weight.clone().zero_()
        layer.weight.requires_grad_(True)
        assert not layer.weight.requires_grad
        with holdfast.writable(layer):
            layer.weight.zero_()
        assert not layer.weight.any()
        with holdfast.remember(False):
            layer.weight.add_(1.0)
        layer.parametrizations.weight.original0.add_(1.0)
        layer(torch.ones(1, 4))
        layer.weight.add_(1.0)  # nobody reads it again


def stack_of_layers() -> nn.Sequential:
    return nn.Sequential(*(holdfast.orthogonal(nn.Linear(4, 4)) for _ in range(4)))


def add_quietly(W: torch.Tensor) -> None:
    with torch.no_grad():
        W.add_(1.0)


REFUSED = {
    "mul_": (lambda W: W.mul_(2), "`2.weight` was"),
    "add_": (lambda W: W.add_(1), "`2.weight` was"),
    "copy_": (lambda W: W.copy_(torch.eye(4)), "`2.weight` was"),
    "a row": (lambda W: W[0].zero_(), "a weight, it was"),
    "an entry": (lambda W: W.__setitem__((0, 0), 1.0), "a weight, it was"),
    "init": (nn.init.normal_, "`2.weight`, or another weight of its batch, was"),
    "quietly": (add_quietly, "`2.weight`, or another weight of its batch, was"),
}


@pytest.mark.parametrize("way", REFUSED)
def test_W1_writing_to_a_weight_of_a_batch_says_whose_it_is_and_what_to_do(way):
    model = stack_of_layers()
    before = bits(model[2].weight)
    write, who = REFUSED[way]
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="is a view and") as caught,
        holdfast.cached(model, foreach=True),
    ):
        write(model[2].weight)
        model[2].weight.sum()
    assert who in told(caught.value)
    assert "`with holdfast.writable(module):`, or assign" in told(caught.value)
    if "`2.weight`" in who:  # also where somebody has caught it inside
        assert "weights that `holdfast` computes (see `holdfast.writable`)" in str(
            caught.value
        )
    assert bits(model[2].weight) == before


def test_W1_control_an_error_of_other_slices_is_left_alone():
    model = stack_of_layers()
    parts = (torch.ones(2, requires_grad=True) * 1).unbind()
    for foreach in (False, True):
        with (
            pytest.raises(RuntimeError, match="Output 0 of Unbind") as caught,
            holdfast.cached(model, foreach=foreach),
        ):
            parts[0].mul_(2)
        assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("scope", [holdfast.cached, holdfast.accumulate])
@pytest.mark.parametrize("write", [nn.init.zeros_, add_quietly])
def test_W1_a_write_inside_a_scope_is_warned_about_at_its_end(scope, write):
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(4, 4)))
    before = bits(model[0].weight)
    with (
        pytest.warns(UserWarning, match=r"`0.weight` was written .*writable") as all_,
        scope(model),
    ):
        write(model[0].weight)
    assert [Path(w.filename).name for w in all_] == ["test_writing.py"]
    assert bits(model[0].weight) == before


@pytest.mark.parametrize("scope", [holdfast.cached, holdfast.accumulate])
def test_W1_control_what_writes_to_no_value_of_a_scope_is_not_warned_about(scope):
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    holdfast.register_parametrization(model[1], "weight", nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with scope(model):
        model(torch.ones(1, 4)).sum().backward()
        model[0].weight.clone().zero_()
        if scope is holdfast.cached:
            add_quietly(model[0].parametrizations.weight.original0)
            add_quietly(model[1].weight)  # it is the original
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        model(torch.ones(1, 4))
        with holdfast.writable(model):
            nn.init.zeros_(model[0].weight)


def test_W1_apply_reaches_a_whole_model():
    model = nn.Sequential(
        holdfast.weight_norm(nn.Conv1d(2, 3, 3)),
        nn.ModuleList([holdfast.weight_norm(nn.Linear(3, 3), dim=None)]),
        nn.Linear(3, 3),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def ones(module: nn.Module) -> None:
        if type(module) in (nn.Conv1d, nn.Linear):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    with holdfast.writable(model):
        model.apply(ones)
    for module in (model[0], model[1][0], model[2]):
        assert_close(module.weight.detach(), torch.ones_like(module.weight))
        assert not module.bias.any()
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for p in model.parameters()}


LAYERS = {
    "linear": lambda: nn.Linear(4, 4),
    "conv": lambda: nn.Conv2d(2, 3, 3),
    "lstm": lambda: nn.LSTM(3, 3),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "embedding": lambda: nn.Embedding(5, 3),
}
WEIGHTS = {"lstm": "weight_hh_l0", "attention": "in_proj_weight"}


@pytest.mark.parametrize("kind", LAYERS)
def test_W1_reset_parameters_starts_a_layer_anew(kind):
    layer = LAYERS[kind]()
    plain = deepcopy(layer)
    name = WEIGHTS.get(kind, "weight")
    holdfast.weight_norm(layer, name)
    reset = "_reset_parameters" if kind == "attention" else "reset_parameters"
    torch.manual_seed(3)
    getattr(plain, reset)()
    torch.manual_seed(3)
    with holdfast.writable(layer):
        getattr(layer, reset)()
    assert_close(getattr(layer, name).detach(), getattr(plain, name).detach())
    for other, parameter in plain.named_parameters():
        if other != name:
            assert bits(layer.get_parameter(other)) == bits(parameter)


def test_W1_a_value_outside_the_set_follows_the_policy_of_its_chain():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    holdfast.register_parametrization(
        model["a"], "weight", maps.Symmetric(), outside="project"
    )
    holdfast.orthogonal(model["b"])
    W = torch.arange(9.0).reshape(3, 3)
    with holdfast.writable(model):
        model["a"].weight.data.copy_(W)
        model["b"].weight.data.copy_(W + torch.eye(3))
    assert_close(model["a"].weight.detach(), (W + W.T) / 2)
    assert holdfast.sets.Stiefel().contains(model["b"].weight)


def test_W1_all_of_it_is_undone_when_one_value_is_refused():
    model = nn.ModuleDict(
        {
            "plain": nn.BatchNorm1d(3),
            "fine": holdfast.weight_norm(nn.Linear(3, 3)),
            "base": holdfast.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley"),
            "bad": nn.Linear(3, 3),
        }
    )
    holdfast.register_parametrization(model["bad"], "weight", maps.Symmetric())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(model)

    def random(module: nn.Module) -> None:
        for tensor in module._parameters.values():
            if tensor is not None:
                tensor.data.normal_()

    def write() -> None:
        with holdfast.writable(model):
            model.apply(random)
            model["plain"](torch.rand(5, 3))  # moves its statistics
            model["plain"].bias.data = torch.zeros(7)

    with pytest.raises(holdfast.errors.NotInSetError, match="`bad.weight`") as info:
        write()
    assert "fold" not in told(info.value)
    assert state_of(model) == before | changed_memory(model, before)


def changed_memory(model: nn.Module, before: dict) -> dict:
    """Return the state of the one tensor whose memory a user has exchanged."""
    now = state_of(model)["plain"]
    memory = [(k, {**t, "memory": None}) for k, t in now["parameters"]]
    was = [(k, {**t, "memory": None}) for k, t in before["plain"]["parameters"]]
    assert memory == was
    return {"plain": {**before["plain"], "parameters": now["parameters"]}}


def test_W1_all_of_it_is_undone_when_the_block_fails():
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 3))
    before = state_of(model)

    def write() -> None:
        with holdfast.writable(model):
            for layer in model:
                layer.reset_parameters()
            model[1].bias = nn.Parameter(torch.zeros(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert state_of(model) == before


def test_W1_a_map_without_right_inverse_refuses():
    layer = holdfast.register_parametrization(nn.Linear(3, 3), "weight", OneWay())
    before = state_of(layer)
    with (
        pytest.raises(holdfast.errors.NoRightInverseError, match="`Linear.weight`"),
        holdfast.writable(layer),
    ):
        nn.init.zeros_(layer.weight)
    assert state_of(layer) == before


def test_W1_what_is_not_written_to_is_left_alone():
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(3, 3)), OneWayLayer())
    before = state_of(model)
    with holdfast.writable(model):
        nn.init.zeros_(model[0].bias)
    after = state_of(model)
    for path in before:
        if path != "0":
            assert after[path] == before[path]


def OneWayLayer() -> nn.Module:
    return holdfast.register_parametrization(nn.Linear(3, 3), "weight", OneWay())


def test_W1_scopes_nest_with_each_other_and_with_folding():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    with holdfast.writable(layer), holdfast.folded(layer), holdfast.writable(layer):
        nn.init.eye_(layer.weight)
    assert_close(layer.weight.detach(), torch.eye(4))

    @holdfast.writable(layer)
    def double() -> None:
        layer.weight.data.mul_(2.0)

    double()
    assert_close(layer.weight.detach(), 2.0 * torch.eye(4))


def test_W1_it_takes_modules():
    with pytest.raises(TypeError, match="`writable` takes a module"):
        holdfast.writable("weight")
    with pytest.raises(TypeError, match="takes the modules"):
        holdfast.writable()
