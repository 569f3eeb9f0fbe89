"""X6: what other libraries do with torch's parametrizations, done with ours.

The pruners are torch's own, with holdfast in the place of the module they import. The
patterns of PEFT, of transformers' audio models and of bitsandbytes are written down
here, as they call the functions and in their order.
"""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.ao.pruning import NearlyDiagonalSparsifier, WeightNormSparsifier
from torch.ao.pruning._experimental.data_sparsifier import (
    DataNormSparsifier,
    base_data_sparsifier,
)
from torch.ao.pruning._experimental.pruner import (
    LSTMSaliencyPruner,
    SaliencyPruner,
    base_structured_sparsifier,
    match_utils,
    parametrization,
    prune_functions,
)
from torch.ao.pruning.sparsifier import base_sparsifier, utils
from torch.nn.utils import parametrize
from torch.testing import assert_close

import holdfast
from holdfast import maps

NAMES = (
    "ParametrizationList",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
)
USERS = (
    base_sparsifier,
    utils,
    base_structured_sparsifier,
    match_utils,
    parametrization,
    prune_functions,
    base_data_sparsifier,
)


@pytest.fixture(params=["holdfast", "torch"])
def library(request, monkeypatch):
    """Put ours in the place of torch's wherever the pruners refer to it."""
    if request.param == "torch":
        return parametrize
    for user in USERS:
        if hasattr(user, "parametrize"):
            monkeypatch.setattr(user, "parametrize", holdfast)
        for name in NAMES:
            if hasattr(user, name):
                monkeypatch.setattr(user, name, getattr(holdfast, name))
    return holdfast


# ---- torch.ao.pruning ---------------------------------------------------------------


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())


@pytest.mark.parametrize("make", [WeightNormSparsifier, NearlyDiagonalSparsifier])
def test_X6_a_sparsifier_prepares_steps_trains_and_squashes(library, make):
    model, x = classifier(), torch.randn(4, 8)
    expected = model(x)
    choices = {"sparsity_level": 0.5, "sparse_block_shape": (1, 4)}
    if make is NearlyDiagonalSparsifier:
        choices = {"nearliness": 3}
    sparsifier = make(**choices)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    assert library.is_parametrized(model[0], "weight")
    assert_close(model(x), expected)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        sparsifier.step()
    zeros = [(model[i].weight == 0).float().mean().item() for i in (0, 2)]
    assert min(zeros) >= 0.5
    value, y = model[0].weight.detach().clone(), model(x)
    again = copy.deepcopy(model)
    assert_close(again(x), y)
    state = sparsifier.state_dict()
    sparsifier.load_state_dict(state)
    kept = ("nearliness",) if make is NearlyDiagonalSparsifier else tuple(choices)
    sparsifier.squash_mask(params_to_keep_per_layer={"0": kept})
    assert model[0].sparse_params == {key: choices[key] for key in kept}
    assert not library.is_parametrized(model[0])
    assert type(model[0]) is nn.Linear
    assert_close(model[0].weight.detach(), value)
    assert_close(model(x), y)


def test_X6_a_structured_pruner_removes_rows_of_two_layers(library):
    model, x = classifier(), torch.randn(4, 8)
    pruner = SaliencyPruner({"sparsity_level": 0.5})
    pruner.prepare(model, [{"tensor_fqn": "0.weight"}])
    pruner.enable_mask_update = True
    pruner.step()
    y = model(x)
    pruned = pruner.prune()
    assert pruned.get_submodule("0").weight.shape == (4, 8)
    assert pruned.get_submodule("2").weight.shape == (8, 4)
    assert_close(pruned(x), y)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8)
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(self.lstm(x)[0])


def test_X6_a_structured_pruner_prunes_an_lstm(library):
    torch.manual_seed(0)
    model, x = Tagger(), torch.randn(5, 1, 8)
    pruner = LSTMSaliencyPruner({"sparsity_level": 0.5})
    names = ("weight_ih_l0", "weight_hh_l0")
    pruner.prepare(model, [{"tensor_fqn": f"lstm.{name}"} for name in names])
    model(x)
    pruner.enable_mask_update = True
    pruner.step()
    model.eval()
    pruned = pruner.prune()
    assert pruned.lstm.hidden_size == 4
    assert pruned(x).shape == (5, 1, 3)
    pruned(x).sum().backward()


def test_X6_a_data_sparsifier_keeps_its_data_in_a_module_of_its_own(library):
    torch.manual_seed(0)
    data = torch.randn(8, 8)
    sparsifier = DataNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4))
    sparsifier.add_data("table", data)
    assert_close(sparsifier.get_data("table"), data)
    sparsifier.step()
    sparse = sparsifier.get_data("table", return_original=False)
    assert (sparse == 0).float().mean() >= 0.5
    assert_close(sparsifier.get_data("table"), data)
    sparsifier.load_state_dict(sparsifier.state_dict())
    sparsifier.squash_mask()
    assert not library.is_parametrized(sparsifier._container, "table")


# ---- PEFT: LoRA on a parameter, registered and removed at every call -----------------


class Proxy(nn.Module):
    """Adds what the adapter computed for this call."""

    def __init__(self, delta):
        super().__init__()
        self.delta = delta

    def forward(self, W):
        return W + self.delta


class Targeting(nn.Module):
    """Wraps a module one parameter of which gets a low-rank update."""

    def __init__(self, base, name, rank=2):
        super().__init__()
        self.base, self.name = base, name
        n, k = getattr(base, name).shape
        self.A = nn.Parameter(torch.randn(rank, k))
        self.B = nn.Parameter(torch.randn(n, rank))

    @contextlib.contextmanager
    def activated(self):
        before = getattr(self.base, self.name).requires_grad
        proxy = Proxy(self.B @ self.A)
        holdfast.register_parametrization(self.base, self.name, proxy)
        chain = self.base.parametrizations[self.name]
        if len(chain) == 1:
            chain.original.requires_grad_(before)
        try:
            yield
        finally:
            if len(chain) == 1:
                holdfast.remove_parametrizations(
                    self.base, self.name, leave_parametrized=False
                )
            else:
                for i, link in reversed([*enumerate(chain)]):
                    if isinstance(link, Proxy):
                        del chain[i]
                        break

    def forward(self, x):
        with holdfast.cached(), self.activated():
            return self.base(x)


@pytest.mark.parametrize("frozen", [False, True])
def test_X6_an_adapter_on_a_parameter_registers_and_removes_at_every_call(frozen):
    base = nn.Linear(4, 3)
    weight = base.weight.requires_grad_(not frozen)
    model, x = Targeting(base, "weight"), torch.randn(5, 4)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        expected = nn.functional.linear(x, weight + model.B @ model.A, base.bias)
        found = model(x)
        assert_close(found, expected)
        assert base.weight is weight
        assert type(base) is nn.Linear
        found.square().sum().backward()
        leaves = [model.A, model.B] + ([] if frozen else [weight])
        want = torch.autograd.grad(expected.square().sum(), leaves)
        for leaf, grad in zip(leaves, want, strict=True):
            assert_close(leaf.grad, grad)
        optimizer.step()
        optimizer.zero_grad()
    assert (weight.grad is None) is frozen or not frozen
    assert [*model.state_dict()] == ["A", "B", "base.weight", "base.bias"]


def test_X6_two_adapters_nest_and_an_exception_takes_them_off():
    base = nn.Linear(4, 3)
    outer = Targeting(base, "weight")
    inner, x = Targeting(base, "weight"), torch.randn(5, 4)
    weight = base.weight
    with holdfast.cached(), outer.activated(), inner.activated():
        found = base(x)
        assert len(base.parametrizations.weight) == 2
    W = weight + outer.B @ outer.A + inner.B @ inner.A
    assert_close(found, nn.functional.linear(x, W, base.bias))
    with pytest.raises(RuntimeError, match="shapes"):
        outer(torch.randn(5, 7))
    assert base.weight is weight
    assert type(base) is nn.Linear


def test_X6_an_adapter_on_a_weight_that_is_parametrized_by_us():
    base = holdfast.weight_norm(nn.Linear(4, 3))
    model, x = Targeting(base, "weight"), torch.randn(5, 4)
    W = base.weight.detach()
    expected = nn.functional.linear(x, W + model.B @ model.A, base.bias)
    assert_close(model(x), expected)
    assert_close(base.weight.detach(), W)
    assert [type(link) for link in base.parametrizations.weight] == [maps.WeightNorm]


# ---- transformers: weight norm in audio models --------------------------------------


class Positional(nn.Module):
    """As in speech encoders: a grouped convolution, normalized over its last axis."""

    def __init__(self, weight_norm):
        super().__init__()
        conv = nn.Conv1d(8, 8, 4, padding=2, groups=2)
        self.conv = weight_norm(conv, name="weight", dim=2)

    def forward(self, x):
        return self.conv(x)[..., :-1]


class Generator(nn.Module):
    """As in vocoders: applied to all layers, and removed from all before serving."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose1d(4, 4, 4, 2, 1)
        self.blocks = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=1) for _ in range(2))

    def layers(self):
        return [self.up, *self.blocks]

    def apply_weight_norm(self, weight_norm):
        for layer in self.layers():
            weight_norm(layer)

    def remove_weight_norm(self, remove):
        for layer in self.layers():
            remove(layer)

    def forward(self, x):
        x = self.up(x)
        for block in self.blocks:
            x = x + block(nn.functional.leaky_relu(x))
        return x


def legacy(module, name="weight", dim=0):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module, name, dim)


def test_X6_a_positional_convolution_finds_its_parameters_and_loads_both_spellings():
    torch.manual_seed(0)
    ours, x = Positional(holdfast.weight_norm), torch.randn(2, 8, 10)
    g = ours.conv.parametrizations.weight.original0
    v = ours.conv.parametrizations.weight.original1
    assert g.shape == (1, 1, 4)
    assert v.shape == (8, 4, 4)
    for weight_norm in (legacy, nn.utils.parametrizations.weight_norm):
        other = Positional(weight_norm)
        ours.load_state_dict(other.state_dict())
        assert_close(ours(x), other(x))
        assert ours.conv.parametrizations.weight.original0 is g
    new = Positional(nn.utils.parametrizations.weight_norm)
    new.load_state_dict(ours.state_dict())
    assert_close(new(x), ours(x))
    spelled = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for key, tensor in ours.state_dict().items()
    }
    old = Positional(legacy)
    old.load_state_dict(spelled)
    assert_close(old(x), ours(x))


REMOVALS = {
    "ours": lambda layer: holdfast.remove_parametrizations(layer, "weight"),
    "torch's": lambda layer: parametrize.remove_parametrizations(layer, "weight"),
}


@pytest.mark.parametrize("by", REMOVALS)
def test_X6_a_generator_applies_loads_and_removes_weight_norm(by):
    torch.manual_seed(0)
    source, x = Generator(), torch.randn(2, 4, 6)
    source.apply_weight_norm(legacy)
    model = Generator()
    model.apply_weight_norm(holdfast.weight_norm)
    model.load_state_dict(source.state_dict())
    expected = source(x)
    assert_close(model(x), expected)
    model.remove_weight_norm(REMOVALS[by])
    assert [type(layer) for layer in model.layers()] == [nn.ConvTranspose1d] + 2 * [
        nn.Conv1d
    ]
    assert_close(model(x), expected)
    source.remove_weight_norm(nn.utils.remove_weight_norm)
    assert {*model.state_dict()} == {*source.state_dict()}
    for key, tensor in source.state_dict().items():
        assert_close(model.state_dict()[key], tensor)


# ---- bitsandbytes: expert weights kept in eight bits --------------------------------


class Dequantize(nn.Module):
    """Turns codes into the weights of all experts; nothing trains through it."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale  # an attribute, not a buffer: it is saved by a hook
        self.calls = []

    @torch.no_grad()
    def forward(self, codes):
        self.calls.append(None)
        return (codes.float() - 128) * self.scale


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, 4, 4))

    def forward(self, x):
        for i in range(3):  # one read for each expert
            x = x + torch.tanh(x @ self.weights[i])
        return x


def quantized(module, name="weights", *, buffer=False):
    W = getattr(module, name).detach()
    scale = W.abs().max() / 127
    codes = (W / scale).round().add(128).to(torch.uint8)
    delattr(module, name)
    if buffer:
        module.register_buffer(name, codes)
    else:
        module.register_parameter(name, nn.Parameter(codes, requires_grad=False))
    map_ = Dequantize(scale)
    holdfast.register_parametrization(module, name, map_, unsafe=True)
    scope = holdfast.cached()

    def enter(module, args):
        scope.__enter__()

    def leave(module, args, output):
        scope.__exit__(None, None, None)

    def spell(module, state, prefix, metadata):
        key = f"{prefix}parametrizations.{name}.original"
        state[f"{prefix}{name}"] = state.pop(key)
        link = next(p for p in module.parametrizations[name] if type(p) is Dequantize)
        state[f"{prefix}{name}.scale"] = link.scale

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
    module.register_state_dict_post_hook(spell)
    return map_, (codes.float() - 128) * scale


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_X6_codes_of_eight_bits_are_dequantized_once_in_a_forward(buffer, grad):
    torch.manual_seed(0)
    experts = Experts()
    map_, W = quantized(experts, buffer=buffer)
    x = torch.randn(2, 4, requires_grad=grad)
    plain = Experts()
    plain.weights = nn.Parameter(W)
    map_.calls.clear()
    with torch.set_grad_enabled(grad):
        y = experts(x)
        assert len(map_.calls) == 1
        assert_close(y, plain(x))
    if grad:
        y.sum().backward()
        assert x.grad is not None
    assert_close(experts.weights, W)
    original = experts.parametrizations.weights.original
    assert original.dtype == torch.uint8
    assert not original.requires_grad
    assert isinstance(original, nn.Parameter) is not buffer
    assert len(map_.calls) == 2  # outside of the forward nothing is kept


def test_X6_codes_are_saved_under_the_name_of_the_weight():
    model = nn.Sequential(Experts())
    map_, _ = quantized(model[0])
    state = model.state_dict()
    assert {*state} == {"0.weights", "0.weights.scale"}
    assert state["0.weights"].dtype == torch.uint8
    assert state["0.weights.scale"] is map_.scale


def test_X6_a_forward_that_fails_leaves_no_scope_open():
    experts = Experts()
    map_, _ = quantized(experts)
    with pytest.raises(RuntimeError):
        experts(torch.randn(2, 5))
    map_.calls.clear()
    experts.weights, experts.weights  # noqa: B018
    assert len(map_.calls) == 2
