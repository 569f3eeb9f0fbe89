"""Maps onto intervals and grids: closed forms, boundaries, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from cases import CASES
from cases_entrywise import ENTRYWISE
from holdfast import errors, maps, sets
from holdfast.linalg import entrywise

SIGNS = torch.tensor([1, -1, 0])
HALF_LINES = {
    "softplus": maps.Softplus(),
    "softplus below": maps.Softplus(2.0, sign=-1, beta=3.0),
    "exponential": maps.Exponential(),
    "exponential below": maps.Exponential(2.0, sign=-1),
    "square": maps.Square(),
    "square above": maps.Square(0.5),
}
BOUNDED = {
    "sigmoid": maps.Sigmoid(-0.5, 2.0),
    "tanh": maps.Tanh(-0.5, 2.0),
    "sine": maps.Sine(-0.5, 2.0),
    "a bound each": maps.Sigmoid(torch.tensor([-1.0, 0.0, 1.0]), 1.0),
}
MAPS = {**HALF_LINES, **BOUNDED}
EACH = pytest.mark.parametrize("name", MAPS)
EXACT = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def on_bounds(map_: holdfast.Parametrization, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor with entries on each finite bound, and one between."""
    codomain = map_.codomain
    low, high = (
        torch.as_tensor(x, dtype=dtype).expand(3).clone()
        for x in (codomain.lower, codomain.upper)
    )
    low = torch.where(low.isinf(), high - 1, low)
    high = torch.where(high.isinf(), low + 1, high)
    return torch.stack([low, (low + high) / 2, high])


# ---- Values -------------------------------------------------------------------------


def test_the_rows_are_in_the_table():
    assert set(map(str, ENTRYWISE)) < set(map(str, CASES))


def test_values_are_those_of_numpy_and_scipy():
    X = torch.linspace(-60, 60, 241, dtype=torch.float64)
    x = X.numpy()
    middle, radius = 0.75, 1.25
    expected = {
        maps.Softplus(): np.logaddexp(x, 0),
        maps.Softplus(1.0, sign=-1, beta=2.0): 1 - np.logaddexp(2 * x, 0) / 2,
        maps.Exponential(): np.exp(x),
        maps.Square(3.0): 3 + x**2,
        maps.Sigmoid(-0.5, 2.0): -0.5 + 2.5 * scipy.special.expit(x),
        maps.Tanh(-0.5, 2.0): middle + radius * np.tanh(x / radius),
        maps.Sine(-0.5, 2.0): middle + radius * np.sin(x / radius),
    }
    for map_, value in expected.items():
        assert_close(map_(X), torch.from_numpy(value), rtol=1e-14, atol=1e-14)


def test_softplus_is_right_where_torchs_own_is_not():
    """torch's is the identity from 20 on, which is wrong by 2e-9."""
    x = torch.tensor([25.0], dtype=torch.float64)
    exact = 25 + math.log1p(math.exp(-25))
    assert float(entrywise.softplus(x)) == exact
    assert float(nn.functional.softplus(x)) != exact


@pytest.mark.parametrize("y", [1e-300, 1e-18, 1e-6, 1.0, 60.0, 1e18])
def test_distances_of_all_sizes_come_back(y):
    W = torch.tensor([y, y], dtype=torch.float64)
    for map_ in (maps.Softplus(), maps.Exponential(), maps.Square()):
        assert_close(map_(map_.right_inverse(W)), W, rtol=1e-12, atol=0)


def test_a_share_near_zero_keeps_its_digits():
    W = torch.tensor([1e-30, 0.5], dtype=torch.float64)
    assert_close(maps.Sigmoid()(maps.Sigmoid().right_inverse(W)), W, rtol=1e-12, atol=0)


def test_signs_are_those_given():
    map_ = maps.Softplus(sign=SIGNS)
    W = map_(torch.randn(50, 3))
    assert torch.equal(W.sign(), SIGNS.expand(50, 3).float())


def test_tanh_and_sine_start_as_the_identity():
    x = torch.tensor([1e-5], dtype=torch.float64)
    for map_ in (maps.Tanh(-3.0, 3.0), maps.Sine(-3.0, 3.0)):
        assert_close(map_(x), x, rtol=1e-9, atol=0)


# ---- Boundaries and degenerate inputs -----------------------------------------------


def test_sine_and_square_reach_their_bounds():
    x = torch.tensor([-math.pi / 2, math.pi / 2], dtype=torch.float64)
    assert maps.Sine()(x).tolist() == [-1.0, 1.0]
    assert maps.Square(0.5)(torch.zeros(1)).tolist() == [0.5]


@EACH
@EXACT
def test_a_value_on_the_bound_can_be_assigned_and_left(name, dtype):
    W, map_ = on_bounds(MAPS[name], dtype), MAPS[name]
    assert map_.codomain.contains(W)
    X = map_.right_inverse(W).requires_grad_()
    value = map_(X)
    # one unit on the scale of the bounds and of the mean distance from them
    assert_close(value, W, rtol=0, atol=8 * torch.finfo(dtype).eps)
    free = torch.as_tensor(map_.codomain.lower != map_.codomain.upper).expand(3, 3)
    (slope,) = torch.autograd.grad(value.sum(), X)
    assert bool((slope[free] != 0).all())


@EACH
@EXACT
def test_extreme_originals_have_finite_values_and_gradients(name, dtype):
    numbers = [0.0, -0.0, 1e18, -1e18, 1e-18, -1e-18, 1.0, -1.0, 100.0]
    X = torch.tensor(numbers, dtype=dtype).reshape(3, 3).requires_grad_()
    value = MAPS[name](X)
    (slope,) = torch.autograd.grad(value.sum(), X)
    assert bool(value.isfinite().all())
    assert bool(slope.isfinite().all())
    assert MAPS[name].codomain.contains(value.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_overflow_in_no_exponential(dtype):
    X = torch.tensor([1e4, 88.0, 11.0], dtype=dtype, requires_grad=True)
    value = maps.Exponential()(X)
    value.sum().backward()
    assert bool(value.isfinite().all() and X.grad.isfinite().all())


def test_a_plain_exponential_would_overflow():
    """What the law above rejects."""
    assert not torch.tensor(1e18).exp().isfinite()


@pytest.mark.parametrize("name", HALF_LINES)
def test_a_fresh_weight_has_no_dead_entries(name):
    """What registering moves inside is not left on the boundary, without gradient."""
    layer = nn.Linear(20, 30)
    with torch.no_grad():
        layer.weight += 2.0 if "below" in name else 0.0
    holdfast.register_parametrization(layer, "weight", MAPS[name])
    before = layer.weight.detach().clone()
    layer.weight.sum().backward()
    with torch.no_grad():
        for original in layer.parametrizations.weight.parameters():
            original -= 0.1 * original.grad
    assert bool((layer.weight != before).all())


def test_entries_with_equal_bounds_are_fixed():
    for kind in (maps.Sigmoid, maps.Tanh, maps.Sine):
        map_ = kind(torch.tensor([1.0, -1.0]), 1.0)
        X = torch.randn(4, 2, requires_grad=True)
        value = map_(X)
        value.sum().backward()
        assert value[:, 0].tolist() == [1.0] * 4
        assert X.grad.isfinite().all()
        assert map_.codomain.dim((4, 2)) == 4
        assert map_.right_inverse(value.detach()).isfinite().all()


def test_nan_is_not_turned_into_a_number():
    W = torch.tensor([[math.nan, 1.0, 0.7]])
    for map_ in MAPS.values():
        assert bool(map_.right_inverse(W)[0, 0].isnan())


# ---- What is refused ----------------------------------------------------------------


@pytest.mark.parametrize("bound", [math.inf, math.nan, torch.tensor([0.0, -math.inf])])
@pytest.mark.parametrize("kind", [maps.Softplus, maps.Exponential, maps.Square])
def test_a_bound_is_finite(kind, bound):
    layer = nn.Linear(2, 2)
    with pytest.raises(errors.InvalidTensorError, match="Expected a finite `bound`"):
        holdfast.register_parametrization(layer, "weight", kind(bound))
    assert not holdfast.is_parametrized(layer)


@EACH
def test_complex_weights_are_refused(name):
    host = nn.Module()
    host.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
    with pytest.raises(errors.InvalidTensorError, match="Expected a real tensor"):
        holdfast.register_parametrization(host, "weight", MAPS[name])
    assert not holdfast.is_parametrized(host)


def test_bounds_have_to_fit():
    layer = nn.Linear(3, 2)
    for map_, name in (
        (maps.Softplus(torch.zeros(2)), "bound"),
        (maps.Exponential(sign=torch.ones(3, 3)), "sign"),
        (maps.Sigmoid(torch.zeros(5), 1.0), "lower"),
        (maps.Tanh(0.0, torch.ones(1, 1, 1)), "upper"),
    ):
        with pytest.raises(errors.InvalidTensorError, match=f"Expected `{name}` of"):
            holdfast.register_parametrization(layer, "weight", map_)
    high = torch.full((3,), 2.0)
    for map_ in (
        maps.Sigmoid(1.0, 0.0),
        maps.Tanh(high, 1.0),
        maps.Sine(0.0, math.inf),
    ):
        with pytest.raises(errors.InvalidTensorError, match="finite bounds with `low"):
            holdfast.register_parametrization(layer, "weight", map_)
    with pytest.raises(ValueError, match="Expected beta to be positive. Got 0"):
        holdfast.register_parametrization(layer, "weight", maps.Softplus(beta=0))


def test_a_value_outside_is_refused_by_name():
    layer = nn.Linear(3, 2)
    holdfast.register_parametrization(layer, "weight", maps.Tanh(-2.0, 2.0))
    with pytest.raises(errors.NotInSetError, match="`Linear.weight` is not in Int"):
        layer.weight = torch.full((2, 3), 2.1)
    layer.weight = torch.full((2, 3), 1.9)
    assert_close(layer.weight.detach(), torch.full((2, 3), 1.9))


def test_bounds_move_with_the_module():
    layer = nn.Linear(3, 2)
    map_ = maps.Softplus(torch.ones(3, dtype=torch.float64), sign=SIGNS)
    holdfast.register_parametrization(layer, "weight", map_)
    assert {"bound", "sign"} <= set(dict(map_.named_buffers()))
    assert layer.to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert layer.to("meta").weight.is_meta


# ---- Fake quantization --------------------------------------------------------------


def quantized(W: torch.Tensor, **arguments) -> holdfast.Parametrization:
    map_ = maps.FakeQuantize(**arguments)
    map_.bind(W)
    return map_


def test_fake_quantization_is_torchs():
    W = torch.randn(50, 40)
    map_ = quantized(W, bits=8)
    step = float(W.abs().max()) / 127
    expected = torch.fake_quantize_per_tensor_affine(W, step, 0, -127, 127)
    assert_close(map_(W), expected)
    rows = quantized(W, bits=4, dim=0)
    steps = W.abs().amax(1) / 7
    zeros = torch.zeros(50, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(W, steps, zeros, 0, -7, 7)
    assert_close(rows(W), expected)
    assert rows.grid_step.shape == (50, 1)


def test_levels_are_as_many_as_the_bits_say():
    W = torch.rand(100, 100) + 1
    assert len(quantized(W, bits=3)(4 * torch.randn(999)).unique()) == 7
    affine = quantized(W, bits=3, symmetric=False)
    assert len(affine(4 * torch.randn(999)).unique()) == 8
    assert 0.0 in affine(W.new_zeros(1))
    assert float((affine(W) - W).abs().max()) <= float(affine.grid_step) / 2 + 1e-6


def test_the_gradient_passes_straight_through_inside_and_not_beyond():
    map_ = quantized(torch.zeros(3), bits=3, step=0.5)
    X = torch.tensor([0.6, 1.7, 1.8, -9.0], requires_grad=True)
    (slope,) = torch.autograd.grad((map_(X) * torch.arange(1.0, 5.0)).sum(), X)
    assert slope.tolist() == [1.0, 2.0, 0.0, 0.0]


def test_a_value_on_the_grid_keeps_it_and_another_chooses_anew():
    layer = nn.Linear(6, 5)
    holdfast.register_parametrization(layer, "weight", maps.FakeQuantize(4))
    map_ = layer.parametrizations.weight[0]
    value, step = layer.weight.detach().clone(), map_.grid_step.clone()
    layer.weight = value / 2 * 2
    assert torch.equal(layer.weight, value)
    assert torch.equal(map_.grid_step, step)
    W = 10 * torch.randn(5, 6)
    layer.weight = W
    assert_close(map_.grid_step, W.abs().max() / 7)
    assert torch.equal(layer.parametrizations.weight.original, W)
    assert float((layer.weight.detach() - W).abs().max()) < 0.51 * map_.grid_step


def test_a_weight_of_zeros_or_without_entries_can_be_quantized():
    for shape in ((3, 3), (0, 3), (3,), ()):
        for dim in (None, 0):
            if dim is not None and shape == ():
                continue
            map_ = quantized(torch.zeros(shape), dim=dim)
            assert torch.equal(map_(torch.zeros(shape)), torch.zeros(shape))


def test_a_map_that_is_bound_to_nothing_takes_the_range_of_what_it_sees():
    W = torch.randn(6, 5)
    assert_close(maps.FakeQuantize(4)(W), quantized(W, bits=4)(W))
    with pytest.raises(errors.InvalidTensorError, match="a map that is bound to a wei"):
        _ = maps.FakeQuantize().codomain


def test_one_bit_has_no_symmetric_levels():
    with pytest.raises(ValueError, match="Expected bits to be at least 2. Got 1"):
        holdfast.register_parametrization(
            nn.Linear(2, 2), "weight", maps.FakeQuantize(1)
        )


def test_the_sets_of_the_maps_are_intervals():
    assert repr(maps.Softplus().codomain) == "Interval(lower=0.0, margin=0.01)"
    assert isinstance(maps.Sine().codomain, sets.Interval)


@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_than_a_level_is_kept_in_are_refused(symmetric):
    most = maps.FakeQuantize(31, symmetric=symmetric)
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().clone()
    holdfast.register_parametrization(layer, "weight", most)
    torch.testing.assert_close(layer.weight, before)
    for bits in (32, 1000):
        map_ = maps.FakeQuantize(bits, symmetric=symmetric)
        with pytest.raises(ValueError, match="bits to be at most 31"):
            holdfast.register_parametrization(nn.Linear(4, 4), "weight", map_)


@pytest.mark.parametrize("cls", [maps.Softplus, maps.Exponential, maps.Square])
@pytest.mark.parametrize("sign", [2, torch.tensor([1.0, -0.5, 0.0])])
def test_signs_are_signs(cls, sign):
    with pytest.raises(errors.InvalidTensorError, match="`sign`"):
        cls(sign=sign).bind(torch.ones(3))
    with pytest.raises(errors.InvalidTensorError, match="real"):
        cls(torch.ones(3) * 1j).bind(torch.ones(3))


@pytest.mark.parametrize("step", [0.0, -1.0, torch.tensor([0.5, 0.0])])
def test_a_step_that_makes_no_grid_is_refused(step):
    with pytest.raises(ValueError, match="`step` to be positive"):
        maps.FakeQuantize(step=step).bind(torch.ones(2))
