"""Any spelling of a checkpoint goes into any parametrized model (S1)."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

import holdfast
from holdfast import errors, maps, sets


def same(a, b, atol=2e-6):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def legacy(recipe, layer, **arguments):
    """Return a layer that torch's old functions have parametrized by hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(nn.utils, recipe)(layer, **arguments)


MODELS = {
    "weight norm": lambda layer: holdfast.weight_norm(layer),
    "weight norm of all": lambda layer: holdfast.weight_norm(layer, dim=None),
    "weight norm of columns": lambda layer: holdfast.weight_norm(layer, dim=1),
    "identity by the user": lambda layer: holdfast.register_parametrization(
        layer, "weight", Halved()
    ),
    "two maps": lambda layer: holdfast.register_parametrization(
        MODELS["identity by the user"](layer), "weight", Halved()
    ),
}
ORTHOGONAL = {
    kind or "default": kind
    for kind in (
        *(None, "matrix_exp", "cayley", "householder"),
        *("thin_cayley", "thin_matrix_exp"),
    )
}


class Halved(nn.Module):
    def forward(self, X):
        return X / 2

    def right_inverse(self, W):
        return 2 * W


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_s1_a_plain_checkpoint_loads(model, assign):
    plain = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 3))
    layer = MODELS[model](nn.Linear(4, 4))
    net = nn.Sequential(layer, nn.Conv1d(4, 4, 3))
    given = plain.state_dict()
    before = dict(given)
    assert net.load_state_dict(given, assign=assign) == ([], [])
    assert given.keys() == before.keys(), "the user's dictionary stays"
    same(net[0].weight, plain[0].weight)
    assert torch.equal(net[0].bias, plain[0].bias)
    assert {type(p) for p in net.parameters()} == {nn.Parameter}
    x = torch.randn(2, 4)
    net[0](x).sum().backward()


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("recipe", ["orthogonal", "weight_norm", "spectral_norm"])
def test_s1_whole_numbers_are_refused_and_the_module_stays(recipe, assign):
    layer = getattr(holdfast, recipe)(nn.Linear(4, 4)).eval()
    before = copy.deepcopy(layer.state_dict())
    state = {"weight": torch.eye(4, dtype=torch.int64), "bias": layer.bias.detach()}
    with pytest.raises(RuntimeError, match="While loading `weight`: .*int64"):
        layer.load_state_dict(state, assign=assign)
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("trivialized", [True, False])
@pytest.mark.parametrize("kind", ORTHOGONAL)
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_s1_a_plain_orthogonal_matrix_loads_as_it_is(kind, shape, trivialized):
    kind = ORTHOGONAL[kind]
    torchs = kind in ("matrix_exp", "cayley") or (kind is None and shape == (4, 4))
    if torchs and not trivialized:
        pytest.skip("these have no right inverse without a base point")
    Q = sets.Stiefel().sample(shape)
    layer = nn.Linear(*reversed(shape))
    holdfast.orthogonal(layer, "weight", kind, use_trivialization=trivialized)
    result = layer.load_state_dict({"weight": Q, "bias": layer.bias.detach().clone()})
    assert result == ([], [])
    same(layer.weight, Q, atol=1e-5)
    again = nn.Linear(*reversed(shape))
    holdfast.orthogonal(again, "weight", kind, use_trivialization=trivialized)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight), "with all that belongs to the map"


def test_s1_an_original_keeps_its_identity_and_its_optimizer():
    layer = holdfast.orthogonal(nn.Linear(3, 3))
    original = layer.parametrizations.weight.original
    layer.load_state_dict(nn.Linear(3, 3).state_dict())
    assert layer.parametrizations.weight.original is original


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("model", [*MODELS, "orthogonal"])
def test_s1_legacy_weight_norm_loads(model, dim):
    old = legacy("weight_norm", nn.Linear(4, 4), dim=dim)
    if model == "orthogonal":
        nn.init.orthogonal_(old.weight_v)
        old.weight_g.data.copy_(old.weight_v.norm() if dim is None else 1)
    old.weight_g.data.mul_(1 if model == "orthogonal" else 3)
    layer = MODELS.get(model, holdfast.orthogonal)(nn.Linear(4, 4))
    assert layer.load_state_dict(old.state_dict()) == ([], [])
    x = torch.randn(2, 4)
    same(layer(x), old(x), atol=1e-5)


@pytest.mark.parametrize("make", [nn.Linear, nn.ConvTranspose1d])
@pytest.mark.parametrize("model", ["weight norm", "identity by the user"])
def test_s1_legacy_spectral_norm_loads_as_the_value(make, model):
    arguments = (4, 4) if make is nn.Linear else (4, 4, 3)
    old = legacy("spectral_norm", make(*arguments))
    x = torch.randn(2, 4) if make is nn.Linear else torch.randn(2, 4, 5)
    for _ in range(20):
        old(x)
    old.eval()
    layer = MODELS[model](make(*arguments)).eval()
    assert layer.load_state_dict(old.state_dict()) == ([], [])
    same(layer(x), old(x))


def test_s1_legacy_spectral_norm_loads_bit_exactly():
    old = legacy("spectral_norm", nn.Linear(4, 3))
    layer = holdfast.spectral_norm(nn.Linear(4, 3))
    assert layer.load_state_dict(old.state_dict()) == ([], [])
    state, given = layer.state_dict(), old.state_dict()
    assert torch.equal(state["parametrizations.weight.original"], given["weight_orig"])
    for end in "uv":
        loaded = state[f"parametrizations.weight.0._{end}"]
        assert torch.equal(loaded, given[f"weight_{end}"])
    theirs = parametrizations.spectral_norm(nn.Linear(4, 3))
    assert theirs.load_state_dict(state) == ([], [])


@pytest.mark.parametrize(
    "recipe",
    [
        ("weight_norm", {}),
        ("weight_norm", {"dim": 1}),
        ("weight_norm", {"dim": None}),
        ("spectral_norm", {}),
        *(
            ("orthogonal", {"orthogonal_map": kind, "use_trivialization": based})
            for kind in ("matrix_exp", "cayley", "householder")
            for based in (True, False)
        ),
    ],
    ids=str,
)
def test_s1_torchs_checkpoints_load_and_save_bit_exactly(recipe):
    name, arguments = recipe
    theirs = getattr(parametrizations, name)(nn.Linear(3, 5), **arguments)
    ours = getattr(holdfast, name)(nn.Linear(3, 5), **arguments)
    given = {key: value.clone() for key, value in theirs.state_dict().items()}
    assert ours.load_state_dict(given) == ([], [])
    saved = ours.state_dict()
    assert saved.keys() == given.keys()
    assert all(torch.equal(saved[key], given[key]) for key in given)


# ---- Strict stays strict


def test_s1_missing_and_unexpected_keys_are_reported():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    own = {f"parametrizations.weight.original{i}" for i in (0, 1)}
    missing, unexpected = layer.load_state_dict({"bias": torch.ones(3)}, strict=False)
    assert {*missing} == own
    assert unexpected == []
    given = {**layer.state_dict(), "weight": torch.ones(3, 3)}
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\).*"weight"'):
        layer.load_state_dict(given)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*wieght"):
        layer.load_state_dict({**nn.Linear(3, 3).state_dict(), "wieght": 1})
    with pytest.raises(RuntimeError, match=r"Missing key.*weight.original0"):
        layer.load_state_dict({"weight_g": torch.ones(3, 1), "bias": torch.ones(3)})


def test_s1_a_wrong_shape_is_told_in_torchs_words():
    net = nn.Sequential(holdfast.weight_norm(nn.Linear(3, 3)))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(
        RuntimeError,
        match=r"size mismatch for 0.weight: copying a param with shape "
        r"torch.Size\(\[2, 3\]\) from checkpoint, the shape in current model is "
        r"torch.Size\(\[3, 3\]\)",
    ) as caught:
        net.load_state_dict({"0.weight": torch.ones(2, 3), "0.bias": torch.ones(3)})
    assert "Missing" not in str(caught.value)
    after = net.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if "bias" not in k)


def test_s1_a_value_outside_the_set_follows_the_policy():
    def layer(**arguments):
        made = nn.Linear(3, 3)
        return holdfast.register_parametrization(
            made, "weight", maps.Symmetric(), **arguments
        )

    W = torch.arange(9.0).reshape(3, 3)
    given = {"weight": W, "bias": torch.zeros(3)}
    strict, before = nn.Sequential(layer()), torch.zeros(3, 3)
    strict[0].weight = before
    outer = {f"0.{key}": value for key, value in given.items()}
    with pytest.raises(RuntimeError, match=r"`0.weight` is not in .*residual"):
        strict.load_state_dict(outer)
    assert torch.equal(strict[0].weight, before)
    moved = layer(outside="project")
    moved.load_state_dict(given)
    same(moved.weight, (W + W.mT) / 2)


class Fussy(holdfast.Parametrization):
    """Moves a buffer in its right inverse, and then fails for negative weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(3, 3))

    def forward(self, X):
        return X + self.seen

    def right_inverse(self, W):
        self.seen.copy_(W)
        if (W < 0).any():
            raise ValueError("too low")
        return torch.zeros_like(W)


def test_s1_nothing_is_half_loaded():
    layer = nn.Linear(3, 3)
    nn.init.ones_(layer.weight)
    holdfast.register_parametrization(layer, "weight", Fussy())
    given = {"weight": -torch.ones(3, 3), "bias": torch.zeros(3)}
    with pytest.raises(RuntimeError, match=r"`weight`: too low"):
        layer.load_state_dict(given)
    assert torch.equal(layer.weight, torch.ones(3, 3))
    given["weight"] = torch.full((3, 3), 5.0)
    layer.load_state_dict(given)
    assert torch.equal(layer.weight, given["weight"])
    assert torch.equal(layer.parametrizations.weight[0].seen, given["weight"])


def test_s1_a_map_without_right_inverse_says_so():
    class OneWay(nn.Module):
        def forward(self, X):
            return X.exp()

    layer = holdfast.register_parametrization(nn.Linear(2, 2), "weight", OneWay())
    with pytest.raises(RuntimeError, match="does not implement right_inverse"):
        layer.load_state_dict(nn.Linear(2, 2).state_dict())


# ---- Other layers, dtypes and devices


class Noting(nn.Module):
    """Keeps what it found of the last value as a plain attribute."""

    scale = 1.0

    def forward(self, X):
        return X * self.scale

    def right_inverse(self, W):
        self.scale = float(W.abs().max())
        return W / self.scale


@pytest.mark.parametrize("buffers", [False, True])
def test_s1_what_a_map_notes_in_an_attribute_is_noted_and_goes_if_it_fails(buffers):
    layer, W, map_ = nn.Linear(2, 2), torch.full((2, 2), 8.0), Noting()
    if buffers:
        map_.register_buffer("other", torch.ones(1))
    holdfast.register_parametrization(layer, "weight", map_)
    layer.load_state_dict({"weight": W}, strict=False)
    assert_close(layer.weight, W)
    with pytest.raises(RuntimeError, match="NaN or infinity"):
        layer.load_state_dict({"weight": torch.zeros(2, 2)}, strict=False)
    assert_close(layer.weight, W)


UNFIT = {
    "sparse": lambda W: W.to_sparse(),
    "compressed": lambda W: W.to_sparse_csr(),
    "of another library": lambda W: W.to_mkldnn(),
    "nested": lambda W: torch.nested.nested_tensor([*W]),
    "text": lambda _: "text",
    "of the meta device": lambda W: W.to("meta"),
}
SPELT = {
    "weight": lambda unfit: {"0.weight": unfit},
    "weight_g, weight_v": lambda unfit: {
        "0.weight_g": torch.ones(3, 1),
        "0.weight_v": unfit,
    },
    "weight_orig": lambda unfit: {
        "0.weight_orig": unfit,
        "0.weight_u": torch.ones(3),
        "0.weight_v": torch.ones(3),
    },
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize("spelling", SPELT)
@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("recipe", ["orthogonal", "weight_norm", "spectral_norm"])
def test_s1_what_no_weight_can_be_is_refused_by_its_path(recipe, kind, spelling):
    torch.manual_seed(0)
    model = nn.Sequential(getattr(holdfast, recipe)(nn.Linear(3, 3)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = SPELT[spelling](UNFIT[kind](torch.randn(3, 3)))
    with pytest.raises(RuntimeError, match=r"loading state_dict for Seq") as caught:
        model.load_state_dict({**state, "0.bias": model[0].bias.detach()})
    told = str(caught.value)
    assert "0.weight" in told or "0.parametrizations.weight" in told
    own = {"weight": (), "weight_g, weight_v": ("weight_norm",)}
    if recipe not in own.get(spelling, ("spectral_norm",)) and kind in (
        "sparse",
        "compressed",
        "of another library",
    ):
        assert "has to be a dense tensor" in told
        assert "Pass it on as `.to_dense()`" in told
        same(dict(model.state_dict()), before, atol=0.0)


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize("kind", ["sparse", "compressed", "nested"])
def test_a_layout_that_maps_do_not_know_is_refused_by_its_path(kind):
    model, W = nn.Sequential(nn.Linear(3, 3)), UNFIT[kind](torch.eye(3))
    holdfast.orthogonal(model[0])
    before = model[0].weight.detach().clone()
    for assign in (lambda: setattr(model[0], "weight", W), lambda: registered(W)):
        with pytest.raises(errors.InvalidTensorError, match="`[0M].*weight` has to be"):
            assign()
    assert torch.equal(model[0].weight, before)
    model[0].weight = torch.eye(3).to_sparse().to_dense()  # control: dense is fine


def registered(W):
    module = nn.Module()
    module.register_buffer("weight", W)
    return holdfast.orthogonal(module, "weight")


class Named(nn.Module):
    """A module whose own tensors are called as the parts of older norms."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.weight_g = nn.Parameter(torch.randn(3, 1))
        self.weight_v = nn.Parameter(torch.randn(3, 3))
        self.register_buffer("weight_orig", torch.randn(3, 3))
        self.register_buffer("weight_u", torch.randn(3))


@pytest.mark.parametrize("spelling", ["own", "plain"])
@pytest.mark.parametrize("recipe", ["weight_norm", "spectral_norm", "orthogonal"])
def test_s1_a_modules_own_tensors_are_no_older_spelling(recipe, spelling):
    source, target = (getattr(holdfast, recipe)(Named()).eval() for _ in range(2))
    state = source.state_dict()
    target.load_state_dict(
        holdfast.plain_state_dict(source) if spelling == "plain" else state
    )
    assert_close(target.weight, source.weight)
    for name in ("weight_g", "weight_v", "weight_orig", "weight_u"):
        assert torch.equal(getattr(target, name), state[name])
    with pytest.raises(RuntimeError, match='Missing.*"parametrizations.weight.orig'):
        target.load_state_dict({k: v for k, v in state.items() if "." not in k})


def test_s1_recurrent_weights_load():
    plain, rnn = nn.LSTM(3, 3), nn.LSTM(3, 3)
    holdfast.weight_norm(rnn, "weight_hh_l0")
    holdfast.weight_norm(rnn, "weight_ih_l0")
    assert rnn.load_state_dict(plain.state_dict()) == ([], [])
    x = torch.randn(4, 2, 3)
    same(rnn(x)[0], plain(x)[0])


def test_s1_dtypes_are_converted_as_torch_does():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    W = nn.Linear(3, 3).double().state_dict()
    layer.load_state_dict(W)
    assert layer.weight.dtype == torch.float32
    same(layer.weight.double(), W["weight"], atol=1e-6)


@pytest.mark.parametrize("kind", [None, "thin_matrix_exp", "householder"])
def test_l1_a_plain_checkpoint_loads_onto_the_meta_device(kind):
    with torch.device("meta"):
        layer = holdfast.orthogonal(nn.Linear(3, 3), "weight", kind)
    Q = sets.Stiefel().sample((3, 3))
    layer.load_state_dict({"weight": Q, "bias": torch.ones(3)}, assign=True)
    same(layer.weight, Q, atol=1e-5)


def test_l1_signs_come_off_the_meta_device():
    Q = sets.Stiefel().sample((4, 3))
    with torch.device("meta"):
        layer = holdfast.orthogonal(
            nn.Linear(3, 4), "weight", "householder", use_trivialization=False
        )
    layer.load_state_dict({"weight": Q, "bias": torch.ones(4)}, assign=True)
    same(layer.weight, Q, atol=1e-5)


def test_s1_a_cached_value_is_forgotten():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    plain = nn.Linear(3, 3)
    with holdfast.cached():
        _ = layer.weight
        layer.load_state_dict(plain.state_dict())
        same(layer.weight, plain.weight)


def test_s2_the_plain_spelling_leaves_with_the_parametrization():
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    holdfast.remove_parametrizations(layer, "weight")
    old = legacy("weight_norm", nn.Linear(3, 3)).state_dict()
    with pytest.raises(RuntimeError, match="weight_g"):
        layer.load_state_dict(old)
    assert parametrize.is_parametrized(layer) is False


# ---- What we copy, torch would have copied


def _dropped(name):
    return lambda state: state.pop(name)


ODD_STATES = {
    "as it is": lambda state: None,
    "a missing original": _dropped("parametrizations.weight.original1"),
    "a missing bias": _dropped("bias"),
    "no map below": lambda s: s.update({"parametrizations.weight.7.x": torch.ones(1)}),
    "no chain below": lambda s: s.update({"parametrizations.other.original": 1}),
    "an unexpected original": lambda s: s.update(
        {"parametrizations.weight.original2": torch.ones(1)}
    ),
    "an unexpected name": lambda s: s.update({"wieght": torch.ones(1)}),
    "a state of its own": lambda s: s.update({"_extra_state": 1}),
    "another dtype": lambda s: s.update(bias=s["bias"].double()),
    "another shape": lambda s: s.update(bias=torch.ones(4)),
    "a number": lambda s: s.update(bias=1.0),
    "nothing at all": lambda s: s.clear(),
    "a plain weight": lambda s: (
        s.clear(),
        s.update(weight=torch.full((3, 2), 2.0), bias=torch.ones(3)),
    ),
}


def outcome(layer, state):
    """Return what loading says, and what is there then."""
    try:
        said = tuple(map(tuple, layer.load_state_dict(state)))
    except RuntimeError as error:
        said = str(error)
    return said, layer.state_dict()


@pytest.mark.parametrize("odd", ODD_STATES)
def test_s1_copying_by_ourselves_is_what_torch_does(odd, monkeypatch):
    layer = holdfast.weight_norm(nn.Linear(2, 3))
    twin = copy.deepcopy(layer)
    state = copy.deepcopy(holdfast.weight_norm(nn.Linear(2, 3)).state_dict())
    ODD_STATES[odd](state)
    said, found = outcome(layer, state)
    for place in ("classes", "epoch"):
        name = f"holdfast.core.{place}.filled"
        monkeypatch.setattr(name, lambda *_: False)
    monkeypatch.setattr("holdfast.core.loading._written", lambda *_: False)
    assert (said, [*found]) == ((told := outcome(twin, state))[0], [*told[1]])
    assert all(torch.equal(found[key], told[1][key]) for key in found)


def test_s1_only_what_torch_would_report_is_left_to_it(monkeypatch):
    """Negative control: the states above do tell the two ways apart."""
    monkeypatch.setattr("holdfast.core.epoch.filled", lambda *_: True)
    layer = holdfast.weight_norm(nn.Linear(2, 3))
    state = copy.deepcopy(layer.state_dict())
    ODD_STATES["a missing original"](state)
    assert layer.load_state_dict(state) == ([], [])


def test_s1_hooks_on_a_chain_see_and_change_what_is_loaded():
    layer, seen = holdfast.weight_norm(nn.Linear(2, 3)), []
    chain = layer.parametrizations.weight

    def doubled(_, state, prefix, *__):
        seen.append(prefix)
        state[f"{prefix}original0"] = 2 * state[f"{prefix}original0"]

    chain.register_load_state_dict_pre_hook(doubled)
    W = torch.randn(3, 2)
    layer.load_state_dict({"weight": W, "bias": torch.ones(3)})
    assert seen == ["parametrizations.weight."]
    same(layer.weight, 2 * W)


class WithState(nn.Linear):
    note = None

    def get_extra_state(self):
        return self.note

    def set_extra_state(self, state):
        self.note = state


def test_s1_a_modules_extra_state_is_loaded():
    layer, other = (holdfast.weight_norm(WithState(2, 3)) for _ in range(2))
    other.note = "noted"
    layer.load_state_dict(other.state_dict())
    assert layer.note == "noted"
    with pytest.raises(RuntimeError, match="Missing key.*_extra_state"):
        layer.load_state_dict({"weight": torch.ones(3, 2), "bias": torch.ones(3)})


def test_s1_a_plain_weight_loads_bit_for_bit():
    layer = holdfast.weight_norm(nn.Linear(64, 64))
    state = {"weight": torch.randn(64, 64), "bias": torch.ones(64)}
    layer.load_state_dict(state)
    assert torch.equal(layer.weight, state["weight"])
    state["weight"][3] = 0
    layer.load_state_dict(state)
    same(layer.weight, state["weight"])
    assert not layer.weight[3].any(), "zeros keep a direction, and length 0"
    state["weight"][5, 5] = torch.nan
    layer.load_state_dict(state)
    assert layer.weight[5].isnan().all(), "as torch loads it"
