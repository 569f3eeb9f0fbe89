"""Probability vectors, zero sums and order: closed forms, boundaries, other shapes."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from cases import CASES
from cases_simplex import SIMPLEX
from holdfast import errors, linalg, maps, sets

SHORTER = {
    "log ratios": maps.IsometricLogRatio(),
    "stick breaking": maps.StickBreaking(),
}
MAPS = {"softmax": maps.Softmax(), **SHORTER}
EACH = pytest.mark.parametrize("name", MAPS)
EXACT = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_the_rows_are_in_the_table():
    assert set(map(str, SIMPLEX)) < set(map(str, CASES))


# ---- Values -------------------------------------------------------------------------


def test_helmert_is_scipys_matrix():
    for n in (1, 2, 5, 40):
        H = torch.from_numpy(scipy.linalg.helmert(n)).reshape(n - 1, n)
        # scipy's rows begin with their negative entry; ours with the positive ones
        H = H * H[:, :1].sign()
        X, W = normal(3, n - 1), normal(3, n)
        assert_close(linalg.simplex.helmert(X), X @ H)
        assert_close(linalg.simplex.helmert_inverse(W), W @ H.mT)


def test_zero_sums_keep_lengths():
    X = normal(6, 4)
    W = maps.Helmert((0, 1))(X)
    assert W.shape == (7, 5)
    assert_close(W.square().sum(), X.square().sum())
    assert float(W.sum(0).abs().max()) < 1e-14
    assert float(W.sum(1).abs().max()) < 1e-14


def test_stick_breaking_is_that_of_torch_distributions():
    X = normal(10, 5)
    theirs = torch.distributions.StickBreakingTransform()
    assert_close(maps.StickBreaking()(X), theirs(X))
    assert_close(maps.StickBreaking().right_inverse(theirs(X)), X)


def test_log_ratios_are_an_isometry():
    """From originals to logarithms, less their mean, of the parts."""
    X, Y = normal(4), normal(4)
    logs = [maps.IsometricLogRatio()(Z).log() for Z in (X, Y)]
    logs = [log - log.mean() for log in logs]
    assert_close(torch.dist(*logs), torch.dist(X, Y))


@pytest.mark.parametrize("name", SHORTER)
def test_the_shorter_originals_are_unique(name):
    X = 3 * normal(7, 4)
    assert_close(SHORTER[name].right_inverse(SHORTER[name](X)), X)
    assert_close(
        SHORTER[name](torch.zeros(7, dtype=torch.float64)),
        torch.full((8,), 0.125).double(),
    )


def test_row_and_column_stochastic_matrices():
    layer = nn.Linear(4, 3)
    holdfast.register_parametrization(layer, "weight", maps.Softmax(-2))
    assert_close(layer.weight.sum(0), torch.ones(4))
    layer = nn.Linear(4, 3)
    holdfast.register_parametrization(layer, "weight", maps.Softmax(-1))
    assert_close(layer.weight.sum(1), torch.ones(3))


def test_order_comes_from_positive_steps():
    X = normal(5, 6)
    W = maps.CumulativeSum()(X)
    assert_close(W[:, 0], X[:, 0])
    assert_close(W.diff(dim=-1), nn.functional.softplus(X[:, 1:]))
    W = maps.CumulativeSum(0, positive=True)(X)
    assert_close(W[0], nn.functional.softplus(X[0]))
    assert bool((W.diff(dim=0) > 0).all())


# ---- Originals of another shape -----------------------------------------------------


@pytest.mark.parametrize("dim", [-1, 0])
@pytest.mark.parametrize("kind", [maps.IsometricLogRatio, maps.StickBreaking])
def test_a_layer_holds_an_original_with_one_entry_less(kind, dim):
    layer = nn.Linear(4, 3)
    holdfast.register_parametrization(layer, "weight", kind(dim))
    shape = (3, 3) if dim == -1 else (2, 4)
    assert tuple(layer.parametrizations.weight.original.shape) == shape
    assert tuple(layer.weight.shape) == (3, 4)
    W = sets.Simplex(dim).sample((3, 4))
    layer.weight = W
    assert_close(layer.weight.detach(), W)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    layer(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    assert_close(layer.weight.sum(dim), torch.ones(layer.weight.sum(dim).shape))
    holdfast.remove_parametrizations(layer, "weight")
    assert tuple(layer.weight.shape) == (3, 4)


def test_a_single_part_is_one_whatever_happens():
    for map_ in MAPS.values():
        layer = nn.Linear(1, 3)
        holdfast.register_parametrization(layer, "weight", map_)
        assert torch.equal(layer.weight, torch.ones(3, 1))
        layer(torch.randn(2, 1)).sum().backward()


# ---- Boundaries and degenerate inputs -----------------------------------------------


@EACH
@EXACT
def test_zeros_can_be_assigned_and_left(name, dtype):
    W = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], dtype=dtype)
    X = MAPS[name].right_inverse(W)
    assert bool(X.isfinite().all())
    X.requires_grad_()
    value = MAPS[name](X)
    # the logarithm of one rounding unit is 36, and has a rounding as much larger
    assert_close(value, W, rtol=0, atol=40 * torch.finfo(dtype).eps)
    (slope,) = torch.autograd.grad((value * torch.tensor([1.0, 2, 4])).sum(), X)
    assert bool((slope.abs().sum(-1) > 0).all())


def test_a_plain_logarithm_of_zero_is_not_finite():
    """What the law above rejects."""
    assert not torch.tensor([0.0, 1.0]).log().isfinite().all()


def test_tiny_parts_keep_their_digits():
    W = torch.tensor([1e-30, 1e-18, 1.0], dtype=torch.float64)
    for map_ in MAPS.values():
        assert_close(map_(map_.right_inverse(W)), W, rtol=1e-12, atol=0)


@EACH
@EXACT
def test_extreme_originals_have_finite_values_and_gradients(name, dtype):
    numbers = [0.0, -0.0, 1e18, -1e18, 1e-18, -1e-18, 1.0, -1.0, 100.0]
    X = torch.tensor(numbers, dtype=dtype).reshape(3, 3).requires_grad_()
    value = MAPS[name](X)
    (slope,) = torch.autograd.grad(value.square().sum(), X)
    assert bool(slope.isfinite().all())
    assert MAPS[name].codomain.contains(value.detach())


def test_equal_neighbours_can_be_assigned_and_left():
    W = torch.tensor([[0.0, 1.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    map_ = maps.CumulativeSum()
    X = map_.right_inverse(W).requires_grad_()
    value = map_(X)
    assert_close(value, W, rtol=0, atol=1e-6)
    (slope,) = torch.autograd.grad(value.sum(), X)
    assert bool((slope != 0).all())


def test_steps_of_all_sizes_come_back():
    W = torch.tensor([1e-18, 2e-18, 1.0, 1e18], dtype=torch.float64)
    map_ = maps.CumulativeSum(positive=True)
    assert_close(map_(map_.right_inverse(W)), W, rtol=1e-12, atol=0)
    for numbers in ([1e18, -1e18, -0.0], [1e-18, -1e-18, 0.0]):
        X = torch.tensor(numbers, requires_grad=True)
        value = map_(X)
        (slope,) = torch.autograd.grad(value.sum(), X)
        assert bool(value.isfinite().all() and slope.isfinite().all())


@EACH
def test_a_fresh_weight_has_no_dead_entries(name):
    layer = nn.Linear(20, 30)
    holdfast.register_parametrization(layer, "weight", MAPS[name])
    assert float(layer.weight.detach().min()) > 1e-5


# ---- What is refused ----------------------------------------------------------------


def test_complex_weights_sum_to_zero_but_are_no_probabilities():
    for map_ in (*MAPS.values(), maps.CumulativeSum()):
        host = nn.Module()
        host.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
        with pytest.raises(errors.InvalidTensorError, match="Expected a real tensor"):
            holdfast.register_parametrization(host, "weight", map_)
    holdfast.register_parametrization(host, "weight", maps.Helmert())
    assert host.weight.is_complex()
    assert float(host.weight.detach().sum(-1).abs().max()) < 1e-6


def test_dimensions_have_to_exist():
    layer = nn.Linear(3, 2)
    for map_ in (maps.Softmax(2), maps.Helmert((0, 2)), maps.CumulativeSum(-3)):
        with pytest.raises(IndexError, match="Dimension out of range"):
            holdfast.register_parametrization(layer, "weight", map_)
    assert not holdfast.is_parametrized(layer)


def test_a_value_outside_is_refused():
    layer = nn.Linear(3, 2)
    holdfast.register_parametrization(layer, "weight", maps.Softmax())
    with pytest.raises(errors.NotInSetError, match=r"not in Simplex\(margin=0.01\)"):
        layer.weight = torch.full((2, 3), 0.4)
    with pytest.raises(ValueError, match="residual nan|not in Simplex"):
        layer.weight = torch.full((2, 3), math.nan)
