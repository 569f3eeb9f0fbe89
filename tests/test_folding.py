"""Fold and unfold: a plain model for inference, and the parametrized one again."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

import holdfast
from holdfast import maps
from holdfast.core.fingerprint import fingerprint
from support import Gain, Halves, OneWay, bits, recipes, state_of, told, with_sine


def legacy(kind: str, module: nn.Module, **options: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return getattr(nn.utils, kind)(module, **options)


def buffered() -> nn.Module:
    module = nn.Module()
    module.register_buffer("table", torch.rand(3, 3))
    module.register_buffer("scratch", torch.rand(3, 3), persistent=False)
    for name in ("table", "scratch"):
        holdfast.register_parametrization(module, name, maps.Symmetric())
    return module


def chained() -> nn.Module:
    layer = nn.Linear(4, 4)
    for map_ in (maps.Skew(), maps.Cayley()):
        holdfast.register_parametrization(layer, "weight", map_)
    holdfast.register_parametrization(layer, "bias", Gain())
    return layer


def frozen() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    return holdfast.weight_norm(layer)


def lstm() -> nn.Module:
    module = nn.LSTM(3, 3)
    return holdfast.orthogonal(with_sine(module, "weight_ih_l0"), "weight_hh_l0")


def mixed() -> nn.Module:
    """Torch's registration on top of ours, and an old hook beside them."""
    layer = holdfast.weight_norm(nn.Bilinear(3, 3, 3))
    parametrize.register_parametrization(layer, "bias", Gain())
    return layer


SUBJECTS = {
    **{f"ours: {name}": make for name, make in recipes().items()},
    "ours: a chain": lambda _: chained(),
    "ours: two originals": lambda layer: holdfast.register_parametrization(
        layer, "weight", Halves()
    ),
    "ours: no right inverse": lambda layer: holdfast.register_parametrization(
        layer, "weight", OneWay()
    ),
    "ours: buffers": lambda _: buffered(),
    "ours: frozen": lambda _: frozen(),
    "ours: lstm": lambda _: lstm(),
    "ours: eval": lambda layer: holdfast.spectral_norm(layer).eval(),
    "torch: weight_norm": parametrizations.weight_norm,
    "torch: spectral_norm": parametrizations.spectral_norm,
    "torch: orthogonal": parametrizations.orthogonal,
    "torch: lstm": lambda _: parametrizations.weight_norm(
        nn.LSTM(3, 3), "weight_hh_l0"
    ),
    "torch and ours": lambda _: mixed(),
    "old: weight_norm": lambda layer: legacy("weight_norm", layer),
    "old: weight_norm of all": lambda layer: legacy("weight_norm", layer, dim=None),
    "old: spectral_norm": lambda layer: legacy("spectral_norm", layer),
    "old: both": lambda layer: legacy(
        "weight_norm", legacy("spectral_norm", layer), name="bias", dim=None
    ),
    "old: lstm": lambda _: legacy("weight_norm", nn.LSTM(3, 3), name="weight_hh_l0"),
}


def make(name: str) -> nn.Module:
    layer = SUBJECTS[name](nn.Linear(4, 4))
    with torch.no_grad():
        for original in layer.parameters():
            original.add_(0.01 * torch.rand_like(original))
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "it": layer})
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    layer.register_forward_pre_hook(lambda *_: None)
    layer.register_state_dict_post_hook(lambda *_: None)
    layer.register_load_state_dict_pre_hook(lambda *_: None)
    return model


def tensor_names(layer: nn.Module) -> set[str]:
    """Return the names that a layer has when it is plain."""
    found = getattr(layer._modules.get("parametrizations"), "_modules", {})
    names = {k for k in (*layer._parameters, *layer._buffers) if "_" not in k}
    hooked = {h.name for h in layer._forward_pre_hooks.values() if hasattr(h, "name")}
    return {*found, *names, *hooked}


def forward(layer: nn.Module) -> torch.Tensor:
    shape = (5, 2, 3) if isinstance(layer, nn.LSTM) else (2, layer.in_features)
    out = layer(torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape))
    return out[0] if isinstance(layer, nn.LSTM) else out


@pytest.mark.parametrize("name", SUBJECTS)
def test_unfolding_brings_everything_back_bit_for_bit(name):
    model = make(name)
    before = state_of(model)
    assert holdfast.fold(model) is model
    assert state_of(model) != before
    assert holdfast.unfold(model) is model
    assert state_of(model) == before


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_scope_brings_everything_back_after_an_exception(name):
    model = make(name)
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt), holdfast.folded(model):
        raise KeyboardInterrupt
    assert state_of(model) == before


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_folded_module_is_a_plain_one(name):
    layer = make(name)["it"]
    plain = holdfast.type_before_parametrizations(layer)
    names = tensor_names(layer)
    with holdfast.folded(layer):
        assert type(layer) is plain
        assert not holdfast.is_parametrized(layer)
        assert not parametrize.is_parametrized(layer)
        keys = {*layer._parameters, *layer._buffers}
        assert names <= keys
        assert not [k for k in keys if re.search("original|_[guv]$|_orig$", k)]
        assert not hasattr(layer, "parametrizations")
        twin = pickle.loads(pickle.dumps(copy.deepcopy(strip_hooks(layer))))
        assert type(twin) is plain
        assert b"holdfast" not in pickle.dumps(twin)


def strip_hooks(layer: nn.Module) -> nn.Module:
    """Take off what the tests hooked on, which no file can hold."""
    for hooks in ("_forward_pre_hooks", "_state_dict_hooks"):
        layer.__dict__[hooks].clear()
    layer.__dict__["_load_state_dict_pre_hooks"].clear()
    return layer


COMPUTING = [name for name in SUBJECTS if name[:4] in ("torc", "old:")]
COMPUTING += ["ours: a chain", "ours: weight_norm", "ours: lstm", "ours: orthogonal"]
COMPUTING.remove("torch and ours")  # a bilinear layer takes two inputs


@pytest.mark.parametrize("name", COMPUTING)
def test_a_folded_forward_is_the_forward(name):
    layer = make(name)["it"].eval()
    expected = forward(layer)
    values = {n: bits(getattr(layer, n)) for n in tensor_names(layer)}
    with holdfast.folded(layer):
        assert {n: bits(getattr(layer, n)) for n in values} == values
        assert_close(forward(layer), expected)
    assert bits(forward(layer)) == bits(expected)


@pytest.mark.parametrize("name", ["torch: spectral_norm", "old: spectral_norm"])
def test_folding_in_training_moves_no_power_iteration(name):
    layer = make(name)["it"].train()
    state = {k: bits(t) for k, t in layer.state_dict().items()}
    with holdfast.folded(layer):
        forward(layer)
    assert {k: bits(t) for k, t in layer.state_dict().items()} == state


def test_a_weight_stands_where_it_stood_before_it_was_parametrized():
    layer = nn.Linear(3, 3)
    names = [name for name, _ in layer.named_parameters()]
    for name in ("bias", "weight"):
        holdfast.register_parametrization(layer, name, Gain())
    with holdfast.folded(layer):
        assert [name for name, _ in layer.named_parameters()] == names


def test_what_the_optimizer_holds_comes_back_and_trains():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        with holdfast.folded(layer):
            layer(torch.ones(1, 3))
        before = layer.weight.detach().clone()
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert not torch.equal(layer.weight, before)


def test_a_handle_of_a_hook_that_was_there_still_removes_it():
    layer = holdfast.spectral_norm(nn.Linear(3, 3))
    ran = []
    handle = layer.register_forward_pre_hook(lambda *_: ran.append(1))
    with holdfast.folded(layer):
        layer(torch.ones(1, 3))
    handle.remove()
    layer(torch.ones(1, 3))
    assert ran == [1]


# ---- What happens meanwhile ---------------------------------------------------------


def written_by(how: str, layer: nn.Module, W: torch.Tensor) -> None:
    match how:
        case "load_state_dict":
            layer.load_state_dict({"weight": W, "bias": layer.bias})
        case "load_state_dict, assign":
            state = {"weight": W, "bias": layer.bias}
            layer.load_state_dict(state, assign=True)
        case "copy_":
            with torch.no_grad():
                layer.weight.copy_(W)
        case ".data=":
            layer.weight.data = W.clone()
        case ".data.copy_":
            layer.weight.data.copy_(W)
        case "numpy":
            layer.weight.detach().numpy()[:] = W.numpy()
        case "a parameter":
            layer.weight = nn.Parameter(W)


WAYS = (
    "load_state_dict",
    "load_state_dict, assign",
    "copy_",
    ".data=",
    ".data.copy_",
    "numpy",
    "a parameter",
)
WRITABLE = {
    "ours": holdfast.weight_norm,
    "orthogonal": lambda layer: holdfast.orthogonal(layer, orthogonal_map="cayley"),
    "torch": parametrizations.weight_norm,
    "old": lambda layer: legacy("weight_norm", layer),
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", WRITABLE)
def test_a_value_written_meanwhile_is_assigned_through_the_right_inverse(kind, how):
    layer = WRITABLE[kind](nn.Linear(4, 4))
    originals = [original for name, original in layer.named_parameters()]
    W = nn.init.orthogonal_(torch.empty(4, 4))
    with holdfast.folded(layer):
        written_by(how, layer, W)
    if kind == "old":
        assert_close(layer.weight, W)
        layer(torch.ones(1, 4))  # computes it anew
    assert_close(layer.weight.detach(), W)
    for original in originals[1:]:
        assert any(original is now for now in layer.parameters())


def test_one_changed_bit_is_seen():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    holdfast.fold(layer)
    layer.weight.data[1, 2].mul_(1 + 2**-22)
    W = layer.weight.detach().clone()
    v = layer.weight
    holdfast.unfold(layer)
    assert bits(layer.parametrizations.weight.original1) == bits(W)
    assert v is not layer.weight


def test_a_stale_gradient_does_not_survive_a_change():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    layer(torch.ones(1, 4)).sum().backward()
    with holdfast.folded(layer):
        layer.weight.data.add_(1.0)
    assert layer.parametrizations.weight.original1.grad is None
    assert layer.bias.grad is not None


def test_a_change_that_the_set_does_not_contain_is_refused_and_stays():
    model = nn.Sequential(
        holdfast.weight_norm(nn.Linear(3, 3)),
        holdfast.register_parametrization(nn.Linear(3, 3), "weight", maps.Symmetric()),
    )
    before = state_of(model)
    holdfast.fold(model)
    model[0].weight.data.mul_(2.0)
    model[1].weight.data.copy_(torch.arange(9.0).reshape(3, 3))
    folded = state_of(model)
    with pytest.raises(holdfast.errors.NotInSetError, match="`1.weight`") as info:
        holdfast.unfold(model)
    assert "discard=True" in told(info.value)
    assert state_of(model) == folded
    holdfast.unfold(model, discard=True)
    assert state_of(model) == before


def test_an_exception_is_not_hidden_by_a_change_that_cannot_be_kept():
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    before = state_of(layer)

    def fail():
        with holdfast.folded(layer):
            layer.weight.data.copy_(torch.arange(9.0).reshape(3, 3))
            raise KeyError("mine")

    with pytest.raises(KeyError) as info:
        fail()
    assert "dropped" in told(info.value)
    assert state_of(layer) == before


def test_a_map_without_right_inverse_cannot_take_a_change():
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", OneWay())
    with (
        pytest.raises(holdfast.errors.NoRightInverseError, match="right_inverse"),
        holdfast.folded(layer),
    ):
        layer.weight.data.zero_()
    holdfast.unfold(layer, discard=True)


@pytest.mark.parametrize("kind", WRITABLE)
def test_a_dtype_changed_meanwhile_reaches_the_originals(kind):
    layer = WRITABLE[kind](nn.Linear(4, 4))
    before = {k: t.double() for k, t in layer.state_dict().items()}
    with holdfast.folded(layer):
        layer.double()
    after = layer.state_dict()
    assert {k: bits(t) for k, t in after.items()} == {
        k: bits(t) for k, t in before.items()
    }
    assert layer.weight.dtype == torch.float64


def test_a_dtype_and_a_value_changed_meanwhile_both_count():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    W = torch.rand(4, 4, dtype=torch.float64)
    with holdfast.folded(layer):
        layer.double()
        layer.weight.data.copy_(W)
    assert layer.parametrizations.weight.original0.dtype == torch.float64
    assert_close(layer.weight.detach(), W, rtol=0, atol=1e-6)


def test_a_model_folded_on_the_meta_device_unfolds_there():
    with torch.device("meta"):
        layer = holdfast.weight_norm(nn.Linear(4, 4))
    with holdfast.folded(layer):
        assert layer.weight.is_meta
    assert holdfast.is_parametrized(layer, "weight")
    holdfast.fold(layer)
    layer.to_empty(device="cpu")
    with pytest.raises(ValueError, match="meta device"):
        holdfast.unfold(layer)
    layer.to("meta")
    holdfast.unfold(layer)


def test_a_model_moved_to_meta_meanwhile_goes_there():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    with holdfast.folded(layer):
        layer.to("meta")
    assert layer.parametrizations.weight.original0.is_meta


@pytest.mark.parametrize("kind", ["ours", "torch"])
def test_train_and_eval_meanwhile_reach_the_maps(kind):
    layer = WRITABLE[kind](nn.Linear(4, 4))
    with holdfast.folded(layer):
        layer.eval()
    assert not layer.parametrizations.weight[0].training
    assert not layer.parametrizations.training


def test_a_map_that_was_put_in_eval_stays_there():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    layer.parametrizations.weight[0].eval()
    with holdfast.folded(layer):
        pass
    assert not layer.parametrizations.weight[0].training


def test_freezing_meanwhile_reaches_the_originals():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    with holdfast.folded(layer):
        layer.requires_grad_(False)
    assert not any(p.requires_grad for p in layer.parameters())


def test_other_tensors_and_modules_added_meanwhile_stay():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    with holdfast.folded(layer):
        layer.extra = nn.Parameter(torch.zeros(1))
        layer.child = nn.Linear(1, 1)
    assert [n for n, _ in layer.named_parameters(recurse=False)] == ["bias", "extra"]
    assert [*layer._modules] == ["parametrizations", "child"]


def test_parametrizing_a_folded_weight_is_noticed():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    holdfast.fold(layer)
    holdfast.weight_norm(layer)
    with pytest.raises(ValueError, match="`Linear.weight`.*no way back"):
        holdfast.unfold(layer)
    with pytest.raises(ValueError, match="while its module was folded"):
        holdfast.fold(layer)
    holdfast.remove_parametrizations(layer, "weight")
    holdfast.unfold(layer)
    assert holdfast.is_parametrized(layer, "weight")


def test_a_deleted_weight_is_noticed():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    holdfast.fold(layer)
    del layer.weight
    with pytest.raises(ValueError, match="gone"):
        holdfast.unfold(layer)
    holdfast.unfold(layer, discard=True)
    assert layer.weight.shape == (4, 4)


def test_an_optimizer_of_the_folded_model_can_be_bound_to_the_originals():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    holdfast.fold(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    W = layer.weight.detach().clone()
    holdfast.unfold(layer)
    assert_close(layer.weight.detach(), W)
    assert holdfast.swap_parameters(optimizer) == 1
    assert len(optimizer.param_groups[0]["params"]) == 3


# ---- Copies, scopes, trees ----------------------------------------------------------


def test_a_copy_of_a_folded_model_is_plain_and_says_so():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    holdfast.fold(layer)
    for twin in (copy.copy(layer), copy.deepcopy(layer)):
        with pytest.raises(holdfast.errors.UnknownTensorError, match="plain model"):
            holdfast.unfold(twin)
    holdfast.unfold(layer)
    assert type(twin) is nn.Linear
    twin = copy.copy(layer)
    assert holdfast.is_parametrized(twin)


def test_unfolding_a_shallow_origin_leaves_its_plain_copy_alone():
    layer = holdfast.weight_norm(nn.Linear(4, 4))
    holdfast.fold(layer)
    twin = copy.copy(layer)
    holdfast.unfold(layer)
    assert type(twin) is nn.Linear
    assert [name for name, _ in twin.named_parameters()] == ["weight", "bias"]


def test_scopes_nest():
    model = nn.Sequential(
        holdfast.weight_norm(nn.Linear(3, 3)), holdfast.orthogonal(nn.Linear(3, 3))
    )
    before = state_of(model)
    with holdfast.folded(model[0]):
        with holdfast.folded(model), holdfast.folded(model):
            assert type(model[1]) is nn.Linear
        assert holdfast.is_parametrized(model[1])
        assert not holdfast.is_parametrized(model[0])
    assert state_of(model) == before


def test_a_scope_can_be_entered_twice_and_decorates():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    scope = holdfast.folded(layer)
    with scope, scope:
        pass
    assert holdfast.is_parametrized(layer)

    @holdfast.folded(layer)
    def inside():
        return type(layer)

    assert inside() is nn.Linear
    assert holdfast.is_parametrized(layer)


def test_folding_inside_cached_serves_no_old_value():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    with holdfast.cached():
        first = layer.weight
        with holdfast.folded(layer):
            layer.weight.data.mul_(2.0)
        assert_close(layer.weight, 2.0 * first)


def test_a_module_in_several_places_is_folded_once():
    layer = with_sine(nn.Linear(3, 3))
    model = nn.Sequential(layer, nn.Sequential(layer, nn.ReLU()))
    layer.parametrizations.weight[0].calls.clear()
    with holdfast.folded(model):
        assert len(list(model.parameters())) == 2
        assert model[0] is model[1][0]
        calls = len(holdfast.core.aside._asides.get(layer).stand_ins)
    assert calls == 1
    assert len(layer.parametrizations.weight[0].calls) == 1


def test_a_chain_of_two_modules_gives_both_one_tensor():
    a = holdfast.weight_norm(nn.Linear(3, 3))
    b = holdfast.weight_norm(nn.Linear(3, 3))
    b.parametrizations._modules["weight"] = a.parametrizations.weight
    with holdfast.folded(nn.ModuleList([a, b])):
        assert a.weight is b.weight
    assert b.parametrizations.weight is a.parametrizations.weight


def test_a_map_with_parametrized_weights_of_its_own_is_left_alone():
    map_ = Gain()
    holdfast.register_parametrization(map_, "offset", Gain())
    layer = holdfast.register_parametrization(nn.Linear(3, 3), "weight", map_)
    before = state_of(layer)
    holdfast.fold(layer)
    assert holdfast.is_parametrized(map_)
    holdfast.unfold(layer)
    assert state_of(layer) == before


def test_a_failing_map_leaves_the_model_unfolded():
    class Failing(nn.Module):
        fails = False

        def forward(self, X):
            if self.fails:
                raise OSError("no")
            return X

    model = nn.Sequential(
        holdfast.weight_norm(nn.Linear(3, 3)),
        holdfast.register_parametrization(nn.Linear(3, 3), "weight", Failing()),
    )
    model[1].parametrizations.weight[0].fails = True
    before = state_of(model)
    with pytest.raises(OSError, match="no") as info:
        holdfast.fold(model)
    assert "`1.weight`" in told(info.value)
    assert state_of(model) == before


def test_a_model_without_parametrizations_folds_to_itself():
    layer = nn.Linear(3, 3)
    before = state_of(layer)
    with holdfast.folded(layer):
        assert state_of(layer) == before
    with pytest.raises(holdfast.errors.UnknownTensorError, match="is folded"):
        holdfast.unfold(layer)


def test_a_folded_model_is_freed_when_it_is_dropped():
    gc.disable()
    try:
        layer = holdfast.weight_norm(nn.Linear(3, 3))
        chain = weakref.ref(layer.parametrizations.weight)
        holdfast.fold(layer)
        gone = weakref.ref(layer)
        del layer
        assert gone() is None
        assert chain() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", ["inference", "no_grad", "autocast"])
def test_it_matters_not_in_which_mode_a_model_is_folded(mode):
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Product())
    expected = layer.weight.detach().clone()
    modes = {
        "inference": torch.inference_mode(),
        "no_grad": torch.no_grad(),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
    }
    with modes[mode]:
        holdfast.fold(layer)
    assert bits(layer.weight) == bits(expected)
    assert not layer.weight.is_inference()
    with modes[mode]:
        holdfast.unfold(layer)
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.parametrizations.weight.original.grad is not None


class Product(nn.Module):
    def forward(self, X):
        return X @ X

    def right_inverse(self, W):
        return W


def test_a_folded_weight_shares_no_memory_with_what_is_kept():
    layer = holdfast.register_parametrization(nn.Linear(3, 3), "weight", nn.Identity())
    W = layer.weight.detach().clone()
    holdfast.fold(layer)
    layer.weight.data.zero_()
    holdfast.unfold(layer, discard=True)
    assert_close(layer.weight.detach(), W, rtol=0, atol=0)


# ---- X7: what plain modules are for -------------------------------------------------


def test_X7_a_folded_model_exports_and_traces():
    model = nn.Sequential(
        holdfast.orthogonal(nn.Linear(4, 4), orthogonal_map="householder"),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(4, 4)),
        legacy("weight_norm", nn.Linear(4, 2)),
    ).eval()
    x = torch.rand(3, 4)
    expected = model(x)
    with holdfast.folded(model):
        exported = torch.export.export(model, (x,))
        traced = torch.jit.trace(model, (x,))
    names = {name for name, _ in exported.named_parameters()}
    assert names == {f"{i}.{n}" for i in (0, 2, 3) for n in ("weight", "bias")}
    operations = {
        str(node.target) for node in exported.graph.nodes if node.op == "call_function"
    }
    assert operations == {"aten.linear.default", "aten.relu.default"}
    assert_close(exported.module()(x), expected)
    assert_close(traced(x), expected)


@pytest.mark.parametrize("recipe", recipes())
def test_X7_the_values_of_every_recipe_export_as_constants(recipe):
    torch.compiler.reset()  # torch 2.6 counts the exports against a limit
    layer = recipes()[recipe](nn.Linear(4, 4)).eval()
    x = torch.rand(3, 4)
    with holdfast.folded(layer):
        exported = torch.export.export(layer, (x,))
    assert_close(exported.module()(x), layer(x))


# ---- The fingerprint ----------------------------------------------------------------

DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_fingerprint_changes_with_any_entry_and_with_their_order(dtype):
    tensor = (torch.arange(6) % 2).to(dtype).reshape(2, 3)
    seen = {fingerprint(tensor)}
    for i in range(6):
        other = tensor.clone()
        other.view(-1)[i] = 1 - int(other.view(-1)[i].real)
        seen.add(fingerprint(other))
    seen.add(fingerprint(tensor.roll(1)))
    assert len(seen) == 8
    assert fingerprint(tensor.clone()) == fingerprint(tensor)
    assert fingerprint(tensor.T.contiguous().T) == fingerprint(tensor)


def test_a_fingerprint_sees_rows_that_change_places_and_an_empty_tensor():
    tensor = torch.randint(2, (256, 256)).float()
    rows = torch.randperm(256)
    assert fingerprint(tensor[rows]) != fingerprint(tensor)
    assert isinstance(fingerprint(torch.empty(0, 3)), int)
