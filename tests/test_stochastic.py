"""Given row and column sums: convergence, gradients, exactness, boundaries."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from cases import CASES
from cases_stochastic import STOCHASTIC, weights
from holdfast import errors, maps, sets
from holdfast.linalg import northwest, scaling

MAPS = {"sinkhorn": maps.Sinkhorn(), "northwest corner": maps.NorthwestCorner()}
EACH = pytest.mark.parametrize("name", MAPS)
SCALES = pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 30.0, 100.0, 1000.0])


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def ones(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.float64)


def missing(W: Tensor, rows: Tensor, columns: Tensor) -> float:
    """Return the largest error of a sum."""
    off = ((W.sum(-1) - rows).abs().max(), (W.sum(-2) - columns).abs().max())
    return float(torch.stack(off).max())


def swept(X: Tensor, count: int) -> Tensor:
    """Return what so many sweeps of Sinkhorn's make: columns last."""
    for _ in range(count):
        X = X - X.logsumexp(-1, keepdim=True)
        X = X - X.logsumexp(-2, keepdim=True)
    return X.exp()


def test_the_rows_are_in_the_table():
    assert set(map(str, STOCHASTIC)) < set(map(str, CASES))


# ---- Sinkhorn: values ---------------------------------------------------------------


@SCALES
@pytest.mark.parametrize("shape", [(4, 4), (16, 16), (64, 64), (5, 9), (9, 5), (1, 3)])
def test_the_sums_are_right_whatever_the_logits_are(shape, scale):
    n, k = shape
    rows, columns = ones(n), torch.full((k,), n / k, dtype=torch.float64)
    W = scaling.sinkhorn(scale * normal(*shape), rows, columns)
    assert missing(W, rows, columns) < 1e-14
    assert bool((W >= 0).all())


def test_twenty_sweeps_are_not_enough_at_scale_10():
    """The reason for Newton's method."""
    X = 10 * normal(16, 16)
    assert missing(swept(X, 20), ones(16), ones(16)) > 1e-2
    assert missing(swept(X, 1000), ones(16), ones(16)) > 1e-6
    assert missing(maps.Sinkhorn()(X), ones(16), ones(16)) < 1e-14


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_value_is_the_limit_of_sweeps(scale):
    X = scale * normal(3, 8, 8)
    assert_close(maps.Sinkhorn()(X), swept(X, 20_000), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0, 100.0])
def test_the_value_is_a_scaling_of_the_exponential(scale):
    """Which is what tells the limit from other matrices of the same sums."""
    X = scale * normal(12, 12)
    W = maps.Sinkhorn()(X)
    large = W > 1e-8
    for i, j in itertools.combinations(range(12), 2):
        both = large[i] & large[j]
        ratios = (W[i].log() - X[i] - W[j].log() + X[j])[both]
        if len(ratios):
            assert float(ratios.max() - ratios.min()) < 1e-4


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
def test_the_steps_of_a_recorded_graph_are_enough(scale, monkeypatch):
    X = scale * normal(2, 16, 16)
    expected = maps.Sinkhorn()(X)
    monkeypatch.setattr(scaling, "recorded", lambda X: True)
    assert_close(maps.Sinkhorn()(X), expected, rtol=0, atol=1e-9)


def test_a_mixed_batch_is_a_loop():
    X = torch.stack([scale * normal(6, 6) for scale in (0.0, 1.0, 10.0, 100.0)])
    W = maps.Sinkhorn()(X)
    assert_close(W, torch.stack([maps.Sinkhorn()(x) for x in X]), rtol=0, atol=1e-11)


def test_single_precision_is_right_to_its_rounding():
    W = maps.Sinkhorn()(10 * torch.randn(32, 32))
    assert missing(W, torch.ones(32), torch.ones(32)) < 1e-6


# ---- Sinkhorn: gradients ------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 3, 5)])
def test_the_gradient_is_that_of_the_limit(shape, scale):
    rows, columns = weights(shape[-2]), weights(shape[-1])
    map_ = maps.Sinkhorn(rows, columns)
    X = (scale * normal(*shape)).requires_grad_()
    assert torch.autograd.gradcheck(map_, X, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(map_, X)


def test_the_gradient_is_that_of_many_sweeps():
    X = normal(6, 6).requires_grad_()
    G = normal(6, 6)
    (mine,) = torch.autograd.grad((maps.Sinkhorn()(X) * G).sum(), X)
    (theirs,) = torch.autograd.grad((swept(X, 2000) * G).sum(), X)
    (few,) = torch.autograd.grad((swept(X, 2) * G).sum(), X)
    assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    assert float((few - theirs).abs().max()) > 1e-4


def test_the_gradient_keeps_one_matrix():
    kept = []
    X = normal(32, 32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    ):
        maps.Sinkhorn()(X)
    assert sum(kept) <= 32 * 32


@SCALES
def test_gradients_are_finite_and_change_no_sum(scale):
    X = (scale * normal(10, 10)).requires_grad_()
    (slope,) = torch.autograd.grad((maps.Sinkhorn()(X) * normal(10, 10)).sum(), X)
    assert bool(slope.isfinite().all())
    assert float(slope.sum(0).abs().max()) < 1e-12
    assert float(slope.sum(1).abs().max()) < 1e-12


# ---- The north-west corner ----------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (7, 7), (3, 9), (9, 3), (1, 4), (4, 1)])
@pytest.mark.parametrize("scale", [1.0, 10.0, 1000.0])
def test_the_sums_of_a_filled_matrix_are_exact(shape, scale):
    n, k = shape
    for rows, columns in ((weights(n), weights(k)), (ones(n), n / k * ones(k))):
        W = northwest.northwest(scale * normal(5, n - 1, k - 1), rows, columns)
        assert missing(W, rows, columns) < 1e-15 * (n + k)
        assert bool((W >= 0).all())


def entry_by_entry(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the same row by row, as the formula says it."""
    n, k = len(rows), len(columns)
    W, left = torch.zeros(n, k, dtype=X.dtype), columns.clone()
    for i in range(n - 1):
        row = rows[i].clone()
        for j in range(k - 1):
            low = (row - left[j + 1 :].sum()).clamp_min(0)
            high = torch.minimum(row, left[j])
            W[i, j] = low + X[i, j].sigmoid() * (high - low)
            row, left[j] = row - W[i, j], left[j] - W[i, j]
        W[i, k - 1] = row
        left[k - 1] = left[k - 1] - row
    W[n - 1] = left
    return W


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (5, 3), (6, 6)])
def test_the_entries_are_those_of_the_formula(shape):
    rows, columns = weights(shape[0]), weights(shape[1])
    X = 2 * normal(shape[0] - 1, shape[1] - 1)
    mine = northwest.northwest(X, rows, columns)
    assert_close(mine, entry_by_entry(X, rows, columns), rtol=1e-12, atol=1e-15)


def test_the_upper_bounds_are_the_rule_of_the_north_west_corner():
    rows = torch.tensor([5.0, 3.0, 2.0])
    columns = torch.tensor([4.0, 4.0, 2.0])
    W = northwest.northwest(torch.full((2, 2), torch.inf), rows, columns)
    assert W.tolist() == [[4.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]]


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_coordinates_come_back(shape):
    rows, columns = weights(shape[0]), weights(shape[1])
    map_ = maps.NorthwestCorner(rows, columns)
    X = 2 * normal(3, shape[0] - 1, shape[1] - 1)
    assert_close(map_.right_inverse(map_(X)), X, rtol=1e-10, atol=1e-10)


def test_every_coordinate_moves_the_matrix():
    """As many as the set has dimensions, and none is redundant."""
    rows, columns = weights(4), weights(5)
    X = normal(3, 4)
    J = torch.autograd.functional.jacobian(
        lambda X: northwest.northwest(X, rows, columns), X
    )
    J = J.reshape(20, 12)
    assert int(torch.linalg.matrix_rank(J)) == 12
    assert sets.TransportPolytope(rows, columns).dim((4, 5)) == 12


def test_sums_of_zero_are_taken():
    rows = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    columns = torch.tensor([1.5, 0.0, 1.5], dtype=torch.float64)
    map_ = maps.NorthwestCorner(rows, columns)
    X = normal(2, 2).requires_grad_()
    W = map_(X)
    assert missing(W.detach(), rows, columns) < 1e-15
    W.square().sum().backward()
    assert bool(X.grad.isfinite().all())
    assert_close(map_(map_.right_inverse(W.detach())), W)


# ---- Both ---------------------------------------------------------------------------


@EACH
def test_permutations_and_other_zeros_can_be_assigned_and_left(name):
    map_ = MAPS[name]
    for P in itertools.permutations(range(4)):
        for dtype in (torch.float32, torch.float64):
            mixed = torch.eye(4, dtype=dtype)[list(P)]
            mixed = torch.stack([mixed, (mixed + torch.eye(4, dtype=dtype)) / 2])
            X = map_.right_inverse(mixed).requires_grad_()
            value = map_(X)
            assert_close(value, mixed, rtol=0, atol=20 * torch.finfo(dtype).eps)
            loss = (
                value * torch.arange(16.0, dtype=dtype).reshape(4, 4).square()
            ).sum()
            (slope,) = torch.autograd.grad(loss, X)
            assert bool(slope.isfinite().all())
            assert bool((slope.abs().amax((-2, -1)) > 0).all())


@EACH
def test_extreme_originals_have_finite_values_and_gradients(name):
    numbers = [0.0, -0.0, 1e18, -1e18, 1e-18, -1e-18, 1.0, -1.0, 100.0]
    for dtype in (torch.float32, torch.float64):
        X = torch.tensor(numbers, dtype=dtype).reshape(3, 3).requires_grad_()
        value = MAPS[name](X)
        (slope,) = torch.autograd.grad(value.square().sum(), X)
        assert bool(slope.isfinite().all())
        assert MAPS[name].codomain.contains(value.detach())


@EACH
def test_tiny_and_huge_sums(name):
    for size in (1e-18, 1e18):
        map_ = type(MAPS[name])(size, size)
        W = map_.codomain.sample((2, 5, 5), dtype=torch.float64)
        X = map_.right_inverse(W).requires_grad_()
        value = map_(X)
        assert_close(value / size, W / size, rtol=0, atol=1e-12)
        (slope,) = torch.autograd.grad(value.sum(), X)
        assert bool(slope.isfinite().all())


@EACH
def test_a_layer_of_any_sums(name):
    layer = nn.Linear(6, 4)
    kind = type(MAPS[name])
    holdfast.register_parametrization(layer, "weight", kind(1 / 4, 1 / 6))
    value, rows, columns = (
        layer.weight.detach(),
        torch.tensor(1 / 4),
        torch.tensor(1 / 6),
    )
    assert missing(value, rows, columns) < 1e-6
    assert float(value.min()) > 1e-5
    W = sets.TransportPolytope(1 / 4, 1 / 6).sample((4, 6))
    layer.weight = W
    assert_close(layer.weight.detach(), W, rtol=0, atol=1e-6)
    with pytest.raises(errors.NotInSetError, match="is not in TransportPolytope"):
        layer.weight = W + 0.1


@EACH
def test_sums_that_do_not_fit_are_refused(name):
    layer, kind = nn.Linear(3, 2), type(MAPS[name])
    with pytest.raises(errors.InvalidTensorError, match="the same positive total"):
        holdfast.register_parametrization(layer, "weight", kind(1.0, 1.0))
    with pytest.raises(errors.InvalidTensorError, match="one sum for each row"):
        holdfast.register_parametrization(layer, "weight", kind(torch.ones(3)))
    with pytest.raises(errors.InvalidTensorError, match="Expected a matrix"):
        holdfast.register_parametrization(layer, "bias", kind())
    host = nn.Module()
    host.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
    with pytest.raises(errors.InvalidTensorError, match="Expected a real tensor"):
        holdfast.register_parametrization(host, "weight", kind())
    assert not holdfast.is_parametrized(layer)


def test_sinkhorn_refuses_sums_of_zero():
    sums = torch.tensor([0.0, 1.0])
    with pytest.raises(errors.InvalidTensorError, match="Expected positive row and"):
        holdfast.register_parametrization(
            nn.Linear(2, 2), "weight", maps.Sinkhorn(sums, 0.5)
        )


def test_a_single_entry_is_forced():
    for map_ in MAPS.values():
        layer = nn.Linear(1, 1)
        holdfast.register_parametrization(layer, "weight", map_)
        assert layer.weight.item() == 1.0
        layer(torch.ones(1)).backward()


def test_sinkhorn_of_nan_is_nan():
    X = torch.zeros(3, 3)
    X[1, 2] = torch.nan
    assert maps.Sinkhorn()(X).isnan().any()
