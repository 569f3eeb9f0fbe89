"""L1: modules whose tensors come later, on the meta device and lazily."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from cases import over
from holdfast import errors, maps
from holdfast.core.fitting import has_state
from holdfast.testing.case import CLOSE
from support import Gain, Sine, evaluations, recipes, state_of, told

LAZY = {
    "linear": (lambda: nn.LazyLinear(4), nn.Linear, (5, 6)),
    "conv": (lambda: nn.LazyConv1d(4, 2), nn.Conv1d, (5, 3, 6)),
    "transposed": (
        lambda: nn.LazyConvTranspose2d(4, 2),
        nn.ConvTranspose2d,
        (1, 3, 4, 4),
    ),
}


# ---- Lazy modules -------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAZY)
def test_L1_a_lazy_weight_is_parametrized_in_the_first_forward(kind):
    make, plain, shape = LAZY[kind]
    layer, x = make(), torch.randn(shape)
    assert holdfast.register_parametrization(layer, "weight", Sine()) is layer
    assert not holdfast.is_parametrized(layer)
    y = layer(x)
    assert holdfast.type_before_parametrizations(layer) is plain
    assert evaluations(layer) == 2  # registration looks at the value once
    assert_close(layer(x), y)
    y.sum().backward()
    assert layer.parametrizations.weight.original.grad.abs().sum() > 0
    assert not layer._forward_pre_hooks


def test_L1_the_first_forward_is_that_of_a_plain_layer_parametrized_afterwards():
    torch.manual_seed(0)
    later = holdfast.weight_norm(nn.LazyLinear(4))
    x = torch.randn(5, 6)
    torch.manual_seed(0)
    y = later(x)
    torch.manual_seed(0)
    before = nn.LazyLinear(4)
    before(x)
    assert_close(y, holdfast.weight_norm(before)(x))
    assert [*later.state_dict()] == [*before.state_dict()]


@pytest.mark.parametrize("recipe", recipes())
def test_L1_every_recipe_waits_for_the_shape(recipe):
    torch.manual_seed(0)
    layer, x = recipes()[recipe](nn.LazyLinear(4)), torch.randn(2, 6)
    layer(x)
    again = nn.Linear(6, 4)
    expected = recipes()[recipe](again)
    assert str(layer) == str(expected)
    assert [*layer.state_dict()] == [*expected.state_dict()]
    layer(x).sum().backward()


@pytest.mark.parametrize("recipe", ["orthogonal", "sparse", "max_norm", "low_rank"])
def test_L1_recipes_that_look_at_the_shape_choose_by_the_one_that_comes(recipe):
    choices = {"rank": 2} if recipe == "low_rank" else {}
    layer = getattr(holdfast, recipe)(nn.LazyLinear(4), **choices)
    layer(torch.randn(2, 6))
    expected = getattr(holdfast, recipe)(nn.Linear(6, 4), **choices)
    assert str(layer) == str(expected)


def test_L1_maps_asked_for_one_after_the_other_are_registered_in_this_order():
    layer = nn.LazyLinear(4)
    for map_ in (maps.Skew(), maps.Cayley()):
        holdfast.register_parametrization(layer, "weight", map_)
    holdfast.register_parametrization(layer, "weight", maps.Cayley(), once=True)
    layer(torch.randn(2, 4))
    assert [type(m) for m in layer.parametrizations.weight] == [maps.Skew, maps.Cayley]
    Q = layer.weight
    assert_close(Q.T @ Q, torch.eye(4))


def test_L1_weight_and_bias_wait_together():
    layer = nn.LazyLinear(4)
    holdfast.positive(layer, "bias")
    holdfast.orthogonal(layer)
    layer(torch.randn(2, 6))
    assert {*layer.parametrizations} == {"weight", "bias"}
    assert bool((layer.bias > 0).all())


def test_L1_moving_state_advances_in_the_first_forward_too(monkeypatch):
    seen = []
    refine = maps.SpectralNorm.refine_

    def counted(self, *originals):
        seen.append(self)
        refine(self, *originals)

    monkeypatch.setattr(maps.SpectralNorm, "refine_", counted)
    x = torch.randn(2, 6)
    plain = nn.Linear(6, 4)
    holdfast.spectral_norm(plain)(x)
    expected = len(seen)
    seen.clear()
    lazy = holdfast.spectral_norm(nn.LazyLinear(4))
    lazy(x)
    assert len(seen) == expected
    lazy(x)
    assert len(seen) == expected + 1


def test_L1_a_lazy_module_in_evaluation_gets_maps_in_evaluation():
    layer = holdfast.spectral_norm(nn.LazyLinear(4)).eval()
    layer(torch.randn(2, 6))
    assert not layer.parametrizations.weight[0].training


def copied_by_pickle(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("by", [copy.deepcopy, copied_by_pickle])
def test_L1_a_copy_waits_for_itself(by):
    model = nn.Sequential(holdfast.orthogonal(nn.LazyLinear(4)))
    holdfast.register_parametrization(model[0], "bias", Gain())
    twin = by(model)
    twin(torch.randn(2, 6))
    assert holdfast.is_parametrized(twin[0], "weight")
    assert not holdfast.is_parametrized(model[0])
    model(torch.randn(2, 3))
    assert model[0].weight.shape == (4, 3)
    assert model[0].parametrizations.bias[0] is not twin[0].parametrizations.bias[0]


def test_L1_maps_follow_a_module_that_was_moved_before_it_had_a_shape():
    with torch.device("meta"):
        model = nn.Sequential(nn.LazyLinear(4))
    mask = torch.ones(4, 6).tril()
    holdfast.register_parametrization(model[0], "weight", maps.Mask(mask))
    plan = holdfast.plan(model, {"0.bias": maps.Mask(torch.ones(4))})
    plan.apply()
    model(torch.randn(2, 6, device="meta"))
    assert model[0].weight.is_meta
    assert model[0].bias.is_meta


def test_L1_a_plain_checkpoint_initializes_and_the_next_forward_parametrizes():
    other = nn.Linear(6, 4)
    layer = holdfast.weight_norm(nn.LazyLinear(4))
    layer.load_state_dict(other.state_dict())
    x = torch.randn(2, 6)
    assert_close(layer(x), other(x))
    assert holdfast.is_parametrized(layer, "weight")
    again = holdfast.weight_norm(nn.LazyLinear(4))
    again(x)
    again.load_state_dict(layer.state_dict())
    assert_close(again(x), other(x))


@pytest.mark.parametrize("spelling", ["ours", "a copy", "pickled"])
@pytest.mark.parametrize("recipe", ["weight_norm", "spectral_norm", "orthogonal"])
def test_L1_a_parametrized_state_dict_waits_for_the_first_batch(recipe, spelling):
    def make(layer):
        return nn.Sequential(getattr(holdfast, recipe)(layer), nn.Linear(4, 2)).eval()

    trained, lazy = make(nn.Linear(6, 4)), make(nn.LazyLinear(4))
    given = copy.deepcopy(trained.state_dict())
    assert lazy.load_state_dict(given) == ([], [])
    for tensor in given.values():
        tensor.zero_()  # loaded is loaded
    if spelling != "ours":
        lazy = copy.deepcopy(lazy) if spelling == "a copy" else copied_by_pickle(lazy)
    x = torch.randn(2, 6)
    assert_close(lazy(x), trained(x))
    assert lazy.state_dict().keys() == trained.state_dict().keys()
    assert_close(dict(lazy.state_dict()), dict(trained.state_dict()))
    assert not lazy[0]._load_state_dict_pre_hooks
    assert not lazy[0]._state_dict_hooks or recipe == "spectral_norm"


@pytest.mark.parametrize("recipe", ["weight_norm", "spectral_norm", "orthogonal"])
def test_L1_what_waits_is_in_the_state_dict(recipe, tmp_path):
    def make(layer):
        return nn.Sequential(getattr(holdfast, recipe)(layer)).eval()

    trained, lazy = make(nn.Linear(6, 4)), make(nn.LazyLinear(4))
    lazy.load_state_dict(trained.state_dict())
    state = lazy.state_dict()
    assert_close(dict(state), dict(trained.state_dict()))
    again, x = make(nn.LazyLinear(4)), torch.randn(2, 6)
    again.load_state_dict(state)
    assert_close(again(x), trained(x))
    with pytest.raises(errors.CheckpointError, match="Uninitialized"):
        holdfast.save(lazy, tmp_path / "m.safetensors")  # nothing tells the maps yet


ORIGINAL0 = "0.parametrizations.weight.original0"


def waiting_model(recipe=holdfast.weight_norm, layer=None) -> nn.Sequential:
    layer = nn.LazyLinear(4) if layer is None else layer
    return nn.Sequential(recipe(layer), nn.Linear(4, 2)).eval()


def state_for(recipe=holdfast.weight_norm) -> dict[str, torch.Tensor]:
    return dict(waiting_model(recipe, nn.Linear(6, 4)).state_dict())


@pytest.mark.parametrize("key", [ORIGINAL0, "0.bias"])
def test_L1_what_is_certainly_missing_is_reported_when_it_is_loaded(key):
    state, model, x = state_for(), waiting_model(), torch.randn(2, 6)
    del state[key]
    with pytest.raises(RuntimeError, match=f'Missing key.*: "{key}"'):
        model.load_state_dict(state)
    assert model.load_state_dict(state, strict=False) == ([key], [])
    model(x)  # said before, so there is no warning
    there = model.state_dict()
    assert all(torch.equal(there[name], state[name]) for name in {*state} - {key})


@pytest.mark.parametrize("elsewhere", ["missing", "unexpected"])
@pytest.mark.parametrize("by", [lambda m: m, copy.deepcopy, copied_by_pickle])
def test_L1_who_has_not_asked_for_a_strict_load_is_told_at_the_first_batch(
    elsewhere, by
):
    recipe, x = holdfast.spectral_norm, torch.randn(2, 6)
    state, model = state_for(recipe), waiting_model(recipe)
    del state["0.parametrizations.weight.0._u"]
    state["0.parametrizations.weight.1.more"] = torch.ones(1)
    if elsewhere == "missing":
        del state["1.bias"]
    else:
        state["2.weight"] = torch.ones(1)
    assert any(model.load_state_dict(state, strict=False))
    model = by(model)
    with pytest.warns(
        UserWarning, match=r"Missing: \[.*_u'\]. Unexpected: .*more"
    ) as w:
        model(x)
    assert [each.filename for each in w] == [__file__]
    own = "0.parametrizations.weight.original"
    assert torch.equal(model.state_dict()[own], state[own])
    model(x)  # once


@pytest.mark.parametrize("assign", [False, True])
def test_L1_a_state_dict_that_waits_is_assigned_if_that_was_asked(assign):
    state = waiting_model(layer=nn.Linear(6, 4)).double().state_dict()
    model = waiting_model()
    model.load_state_dict(state, assign=assign)
    dtype = torch.float64 if assign else torch.float32
    model[0](torch.randn(2, 6, dtype=dtype))
    assert {p.dtype for p in model[0].parametrizations.parameters()} == {dtype}
    assert model[0].bias.dtype == dtype
    assert torch.equal(model[0].bias, state["0.bias"].to(dtype))
    given = state["0.parametrizations.weight.original1"]
    V = model[0].parametrizations.weight.original1
    assert torch.equal(V, given.to(dtype))


@pytest.mark.parametrize(
    "ask",
    [
        holdfast.fold,
        holdfast.plain_state_dict,
        lambda model: holdfast.folded(model).__enter__(),
        lambda model: holdfast.writable(model).__enter__(),
    ],
)
def test_L1_what_needs_the_values_asks_for_a_batch_first(ask):
    model = waiting_model()
    model.load_state_dict(state_for())
    for _ in range(2):
        with pytest.raises(
            errors.InvalidTensorError, match="`0.weight` is not init.*Run"
        ):
            ask(model)
    model(torch.randn(2, 6))
    ask(model)


def test_L1_a_state_dict_that_waits_is_strict_when_nothing_else_was_missing():
    recipe, x = holdfast.spectral_norm, torch.randn(2, 6)
    state, model = state_for(recipe), waiting_model(recipe)
    del state["0.parametrizations.weight.0._u"]
    model.load_state_dict(state)
    for _ in range(2):  # no forward runs without it
        with pytest.raises(errors.InvalidTensorError, match="Missing.*_u") as caught:
            model(x)
    assert "model.load_state_dict({}, strict=False)" in str(caught.value)
    model.load_state_dict({}, strict=False)
    model(x)
    model.load_state_dict(state, strict=False)
    plain = holdfast.weight_norm(nn.LazyLinear(4))
    plain.load_state_dict(holdfast.weight_norm(nn.Linear(6, 4)).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for parametrizations.weight"):
        plain(torch.randn(2, 5))
    with pytest.raises(RuntimeError, match="Unexpected.*parametrizations.bias"):
        waiting_model().load_state_dict(
            {**state_for(), "0.parametrizations.bias.original": torch.ones(4)}
        )


def test_L1_the_last_state_dict_counts():
    layer, first = holdfast.weight_norm(nn.LazyLinear(4)), nn.Linear(6, 4)
    layer.load_state_dict(holdfast.weight_norm(nn.Linear(6, 4)).state_dict())
    layer.load_state_dict(first.state_dict())
    x = torch.randn(2, 6)
    assert_close(layer(x), first(x))


def test_L1_what_the_shape_does_not_allow_fails_in_the_forward_and_stays_asked_for():
    model = nn.Sequential(nn.LazyLinear(4))
    holdfast.register_parametrization(model[0], "weight", maps.Skew())
    for _ in range(2):
        with pytest.raises(ValueError, match="square") as caught:
            model(torch.randn(2, 6))
        assert "`0.weight`" in told(caught.value)
        assert "in this forward" in told(caught.value)
        assert type(model[0]) is nn.Linear


def test_L1_wrong_arguments_are_refused_at_once():
    layer = nn.LazyLinear(4)
    before = len(layer._forward_pre_hooks)
    with pytest.raises(errors.InvalidTensorError, match="instance of `nn.Module`"):
        holdfast.register_parametrization(layer, "weight", torch.relu)
    with pytest.raises(errors.InvalidTensorError, match="outside"):
        holdfast.register_parametrization(layer, "weight", Sine(), outside="no")
    with pytest.raises(errors.UnknownTensorError, match="did you mean|Did you mean"):
        holdfast.register_parametrization(layer, "wieght", Sine())
    assert len(layer._forward_pre_hooks) == before


def test_L1_a_plan_takes_lazy_modules():
    model = nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(4), nn.LazyConv1d(2, 2))
    rules = {nn.Linear: maps.WeightNorm(), "0.bias": maps.Softplus()}
    plan = holdfast.plan(model, rules)
    assert [(step.path, step.shape) for step in plan.steps] == [
        ("0.weight", (3, 3)),
        ("0.bias", (3,)),
        ("1.weight", None),
    ]
    assert "not yet known" in str(plan)
    plan.apply()
    assert holdfast.is_parametrized(model[0], "weight")
    assert holdfast.plan(model, {"1.weight": maps.Skew()}).problems
    model[:2](torch.randn(2, 3))
    assert holdfast.spec(model[1]) == [
        {"tensor": "weight", "maps": [{"map": "WeightNorm", "dim": 0}]}
    ]
    assert not holdfast.plan(model, rules).steps


def test_L1_a_plan_with_problems_asks_nothing_of_lazy_modules():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(3, 2))
    plan = holdfast.plan(model, {"*.weight": maps.Skew()})
    with pytest.raises(errors.PlanError):
        plan.apply()
    assert len(model[0]._forward_pre_hooks) == 1  # torch's


def test_L1_a_lazy_tensor_has_nothing_to_save_and_nothing_to_load_into(tmp_path):
    holdfast.save(holdfast.weight_norm(nn.Linear(6, 4)), tmp_path / "m.safetensors")
    lazy = nn.LazyLinear(4)
    with pytest.raises(errors.CheckpointError, match="run a batch"):
        holdfast.load(tmp_path / "m.safetensors", lazy)
    with pytest.raises(errors.CheckpointError, match="weight"):
        holdfast.save(lazy, tmp_path / "l.safetensors")
    lazy(torch.randn(1, 6))
    holdfast.load(tmp_path / "m.safetensors", lazy)


# torch's maps that cannot be assigned to without a base
NOT_ASSIGNABLE = ("orthogonal matrix_exp", "orthogonal cayley")

# ---- The meta device ----------------------------------------------------------------


def spoil(module):
    """Fill memory with what empty memory may hold."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 77)


def converge(layer, x):
    """Let moving state find what it looks for."""
    if isinstance(layer.parametrizations.weight[0], maps.SpectralNorm):
        for _ in range(500):
            layer(x)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize(
    ("recipe", "spelling"),
    [
        (recipe, spelling)
        for recipe in recipes()
        for spelling in ("own", "plain")
        if spelling == "own" or recipe not in NOT_ASSIGNABLE
    ],
)
def test_L1_registered_on_meta_then_emptied_and_loaded(recipe, spelling, assign):
    torch.manual_seed(0)
    source = recipes()[recipe](
        nn.Linear(6, 4) if "house" in recipe else nn.Linear(4, 4)
    )
    n_in = source.in_features
    converge(source, torch.randn(1, n_in))
    state = (
        source.state_dict() if spelling == "own" else holdfast.plain_state_dict(source)
    )
    with torch.device("meta"):
        layer = recipes()[recipe](nn.Linear(n_in, 4))
    assert layer.weight.is_meta
    layer.to_empty(device="cpu")
    spoil(layer)
    layer.load_state_dict(state, assign=assign)
    x = torch.randn(2, n_in)
    converge(layer, x)  # a plain weight brings no singular vectors along
    assert_close(layer.weight, source.weight, rtol=0, atol=2e-6)
    layer(x).sum().backward()
    for parameter in layer.parameters():
        assert bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("recipe", recipes())
def test_L1_a_factory_on_meta_loads_what_was_saved(recipe, tmp_path):
    model = nn.Sequential(recipes()[recipe](nn.Linear(4, 4)), nn.Linear(4, 2))
    holdfast.save(model, tmp_path / "model.safetensors")

    def factory():
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    def parametrized_factory():
        with torch.device("meta"):
            return nn.Sequential(recipes()[recipe](nn.Linear(4, 4)), nn.Linear(4, 2))

    for make in (factory, parametrized_factory):
        again = holdfast.load(tmp_path / "model.safetensors", make)
        assert not any(t.is_meta for t in (*again.parameters(), *again.buffers()))
        assert_close(again[0].weight, model[0].weight, rtol=0, atol=0)
        x = torch.randn(2, 4)
        assert_close(again(x), model(x))


def load_plain(host, W):
    host.load_state_dict({"weight": W})


def assign(host, W):
    host.weight = W


@over("meta", (torch.float32,), ((4, 4), (5, 3), (3, 5), (6,), (4, 2, 3, 3)))
def test_L1_emptied_memory_starts_anew_by_a_plain_weight(case, shape, dtype):
    if not case.invertible:
        return
    W = case.sample(shape, dtype)
    for put in (load_plain, assign):
        with torch.device("meta"):
            host = case.registered(torch.randn(shape, dtype=dtype))
        host.to_empty(device="cpu").eval()
        spoil(host)
        if any(has_state(link) for link in case.make(shape)):
            with pytest.raises((RuntimeError, ValueError)):  # not all made by `bind`
                put(host, W)
        else:
            put(host, W)
            assert_close(
                host.weight, W, rtol=0, atol=CLOSE[dtype] * float(W.abs().max())
            )
            assert not host.parametrizations.weight._emptied


def test_L1_what_a_weight_does_not_tell_is_refused_by_name_and_nothing_changes():
    with torch.device("meta"):
        layer = nn.Linear(2, 2)
        holdfast.register_parametrization(layer, "weight", maps.Mask(torch.ones(2, 2)))
    layer.to_empty(device="cpu")
    spoil(layer)
    before = state_of(layer)
    with pytest.raises(RuntimeError, match="`to_empty` has left `Mask`.*`mask`"):
        layer.load_state_dict({"weight": torch.ones(2, 2)}, strict=False)
    with pytest.raises(errors.InvalidTensorError, match="0.mask"):
        layer.weight = torch.ones(2, 2)
    assert state_of(layer) == before


def test_L1_moving_a_model_that_has_values_starts_nothing_anew():
    layer = holdfast.spectral_norm(nn.Linear(3, 3))
    u = layer.parametrizations.weight[0]._u.clone()
    layer.double().float()
    layer.load_state_dict(holdfast.plain_state_dict(layer))
    assert_close(layer.parametrizations.weight[0]._u, u)


def lazy_weight_norm() -> nn.Module:
    return nn.Sequential(nn.ReLU(), holdfast.weight_norm(nn.LazyLinear(3)))


@pytest.mark.parametrize(
    "use",
    [
        lambda model: holdfast.parameter_groups(model, weight_decay=0.1),
        lambda model: holdfast.writable(model).__enter__(),
    ],
)
def test_L1_what_needs_the_shapes_asks_for_a_batch_by_name(use):
    model = lazy_weight_norm()
    with pytest.raises(errors.InvalidTensorError, match=r"`1\.weight`.*Run a batch"):
        use(model)
    model(torch.randn(2, 5))
    assert holdfast.is_parametrized(model[1], "weight")
    use(model)


def test_L1_lazy_tensors_that_stay_plain_may_be_grouped():
    first, second = holdfast.parameter_groups(nn.LazyLinear(3), weight_decay=0.1)
    assert (len(first["params"]), len(second["params"])) == (2, 0)
