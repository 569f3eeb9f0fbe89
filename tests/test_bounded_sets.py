"""The laws of intervals, grids, simplices, ordered sequences and given sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.testing import assert_close

from holdfast import errors, linalg, sets

LOW = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)
ROWS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
COLUMNS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) / 6

SETS = {
    "nonnegative": sets.Interval(0.0),
    "below": sets.Interval(upper=-0.5),
    "interval": sets.Interval(-1.0, 0.5),
    "bounds for each column": sets.Interval(LOW, 1.0),
    "grid": sets.Grid(0.25, -7, 7),
    "row-stochastic": sets.Simplex(),
    "column-stochastic": sets.Simplex(-2),
    "zero sums": sets.ZeroSum(),
    "zero sums both ways": sets.ZeroSum((-2, -1)),
    "increasing": sets.Ordered(),
    "increasing from zero": sets.Ordered(-2, positive=True),
    "coupling": sets.TransportPolytope(ROWS, COLUMNS),
    "sums of rows": sets.TransportPolytope(3.0, 4.0),
}
INSIDE = {
    "interval with margin": sets.Interval(LOW, 1.0, margin=0.01),
    "positive with margin": sets.Interval(0.0, margin=0.01),
    "simplex with margin": sets.Simplex(margin=0.01),
    "increasing with margin": sets.Ordered(margin=0.01),
    "coupling with margin": sets.TransportPolytope(ROWS, COLUMNS, margin=0.01),
}
COMPLEX = ("zero sums", "zero sums both ways")
NEAREST = tuple(
    name
    for name, constraint in SETS.items()
    if not isinstance(constraint, sets.Ordered | sets.TransportPolytope)
)
REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPES = ((4, 3), (2, 4, 3), (0, 4, 3))

ALL = pytest.mark.parametrize("name", SETS)
EVERY = pytest.mark.parametrize("name", {**SETS, **INSIDE})


def get(name: str) -> sets.Constraint:
    return {**SETS, **INSIDE}[name]


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def norm(W: Tensor) -> float:
    return float(torch.linalg.vector_norm(W))


# ---- Membership ---------------------------------------------------------------------


@EVERY
def test_samples_and_projections_are_inside(name):
    for shape in SHAPES:
        for dtype in REAL:
            sample = get(name).sample(shape, dtype=dtype)
            point = get(name).project(3 * normal(*shape, dtype=dtype))
            for tensor in (sample, point):
                assert tensor.shape == shape
                assert tensor.dtype == dtype
                assert get(name).contains(tensor), dtype


@ALL
def test_there_is_one_residual_for_each_matrix(name):
    for shape in SHAPES:
        for dtype in (torch.float32, torch.complex64):
            residual = SETS[name].residual(normal(*shape, dtype=dtype))
            assert residual.shape == shape[:-2]
            assert not residual.is_complex()
            assert bool((residual >= 0).all())


def outside(name: str, eps: float) -> Tensor:
    """Return a matrix that misses the set by ``eps``, relative to its size."""
    constraint = SETS[name]
    W = constraint.project(3 * normal(4, 3))
    if isinstance(constraint, sets.Interval):
        bound = constraint.lower if name == "nonnegative" else constraint.upper
        W[1, 1] = bound
        W[1, 1] += eps * norm(W) * (-1 if name == "nonnegative" else 1)
    elif isinstance(constraint, sets.Ordered):
        W = constraint.sample((4, 3), dtype=torch.float64)
        W[1], W[:, 1] = W[0], W[:, 0]
        W[1, 1] = min(W[0, 1], W[1, 0]) - 2 * eps * norm(W)
    elif isinstance(constraint, sets.TransportPolytope):
        sums = (constraint.rows, constraint.columns)
        W[1, 1] += eps * max(float(torch.as_tensor(x).max()) for x in sums)
    else:
        W[1, 1] += eps * (1 if isinstance(constraint, sets.Simplex) else norm(W))
    return W


@ALL
def test_the_residual_measures_how_far_outside_a_matrix_is(name):
    for eps in (1e-2, 1e-5, 1e-9):
        residual = float(SETS[name].residual(outside(name, eps)))
        assert 0.3 * eps < residual < 3 * eps


@ALL
def test_membership_is_decided_at_the_tolerance(name):
    assert SETS[name].contains(outside(name, 1e-7), tol=1e-6)
    assert not SETS[name].contains(outside(name, 1e-5), tol=1e-6)
    limit = linalg.tolerance(torch.zeros(4, 3, dtype=torch.float64))
    assert SETS[name].contains(outside(name, limit / 4))
    assert not SETS[name].contains(outside(name, 8 * limit))


@ALL
def test_one_matrix_outside_puts_the_batch_outside(name):
    inside = SETS[name].sample((3, 4, 3), dtype=torch.float64)
    assert SETS[name].contains(inside)
    inside[1] = outside(name, 1e-3)
    assert not SETS[name].contains(inside)
    assert (SETS[name].residual(inside) > 1e-6).tolist() == [False, True, False]


@ALL
def test_nan_and_complex_numbers_are_outside(name):
    assert not SETS[name].contains(torch.full((4, 3), torch.nan))
    Z = torch.ones(4, 3, dtype=torch.complex64)
    if name not in COMPLEX:
        assert bool((SETS[name].residual(Z) == math.inf).all())
        for call in (SETS[name].project, SETS[name].from_normal):
            with pytest.raises(errors.InvalidTensorError, match="Expected a real tens"):
                call(Z)
    else:
        assert SETS[name].contains(SETS[name].project(Z))


@EVERY
def test_a_meta_tensor_is_in_every_set(name):
    assert get(name).contains(torch.empty(4, 3, device="meta"))


@pytest.mark.parametrize("name", ["nonnegative", "zero sums", "increasing"])
def test_residuals_of_cones_do_not_depend_on_the_scale(name):
    W = normal(4, 3)
    for factor in (1e-30, 1e30):
        assert_close(SETS[name].residual(W * factor), SETS[name].residual(W))


def test_boundaries_belong_to_the_sets():
    assert sets.Interval(0.0, 1.0).contains(torch.tensor([0.0, 1.0]))
    assert sets.Simplex().contains(torch.tensor([1.0, 0.0]))
    assert sets.Ordered().contains(torch.ones(3))
    assert sets.TransportPolytope().contains(torch.eye(3)[[2, 0, 1]])


# ---- Projection ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NEAREST)
def test_the_projection_is_the_nearest_point(name):
    W = normal(4, 3)
    P = SETS[name].project(W)
    rivals = [SETS[name].sample((4, 3), dtype=torch.float64) for _ in range(20)]
    for size in (1e-1, 1e-3):
        rivals += [SETS[name].project(P + size * normal(4, 3)) for _ in range(20)]
    assert norm(W - P) <= min(norm(W - S) for S in rivals) + 1e-9


@EVERY
def test_the_projection_keeps_what_is_inside(name):
    for shape in SHAPES:
        W = get(name).sample(shape, dtype=torch.float64)
        assert_close(get(name).project(W), W, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", INSIDE)
def test_a_margin_keeps_what_was_outside_off_the_boundary(name):
    W = torch.randn(5, 4, 3)
    P = get(name).project(W)
    assert get(name).contains(P)
    if "increasing" in name:
        assert bool((P.diff(dim=-1) > 1e-4).all())
    elif "interval" in name:
        inside = (P - LOW > 1e-3) | (W >= LOW)
        assert bool(inside.all())
    else:
        assert bool((P > 1e-6).all())
    assert_close(get(name).project(P), P)


def test_the_simplex_projection_is_that_of_quadratic_programming():
    W = normal(5)
    found = scipy.optimize.minimize(
        lambda x: ((x - W.numpy()) ** 2).sum(),
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        tol=1e-14,
    )
    assert_close(
        sets.Simplex().project(W), torch.from_numpy(found.x), rtol=0, atol=1e-6
    )


def test_the_monotone_projection_is_nearest_in_the_largest_deviation():
    """Oracle: the linear program of the smallest largest deviation."""
    W = normal(6)
    n = len(W)
    # variables: the sequence and the deviation; minimize the deviation
    up = np.hstack([np.eye(n), -np.ones((n, 1))])
    order = np.hstack([np.eye(n - 1, n) - np.eye(n - 1, n, 1), np.zeros((n - 1, 1))])
    found = scipy.optimize.linprog(
        np.eye(n + 1)[-1],
        np.vstack([up, -up - 2 * np.outer(np.ones(n), np.eye(n + 1)[-1]), order]),
        np.concatenate([W.numpy(), -W.numpy(), np.zeros(n - 1)]),
        bounds=[(None, None)] * n + [(0, None)],
    )
    deviation = float((sets.Ordered().project(W) - W).abs().max())
    assert deviation == pytest.approx(found.fun, abs=1e-9)


def test_the_projection_to_given_sums_is_at_most_five_times_too_far():
    """Oracle: the linear program of the nearest one in the sum of moduli."""
    for scale in (0.01, 0.3):
        W = torch.outer(ROWS, COLUMNS) + scale * normal(4, 3)
        moved = float((SETS["coupling"].project(W) - W).abs().sum())
        ones_r, ones_c = np.kron(np.eye(4), np.ones(3)), np.kron(np.ones(4), np.eye(3))
        zero = np.zeros((7, 12))
        eye = np.eye(12)
        found = scipy.optimize.linprog(
            np.concatenate([np.zeros(12), np.ones(12)]),
            np.vstack([np.hstack([eye, -eye]), np.hstack([-eye, -eye])]),
            np.concatenate([W.flatten().numpy(), -W.flatten().numpy()]),
            np.hstack([np.vstack([ones_r, ones_c]), zero]),
            np.concatenate([ROWS.numpy(), COLUMNS.numpy()]),
        )
        assert found.fun - 1e-9 <= moved <= 5 * found.fun


# ---- Dimension ----------------------------------------------------------------------


def rank_of_projection(name: str, W: Tensor) -> int:
    """Return the rank of the derivative of the projection inside the set."""
    columns, h = [], 1e-6
    units = [1.0, 1.0j] if W.is_complex() else [1.0]
    for i in range(W.numel()):
        for unit in units:
            E = torch.zeros_like(W)
            E.view(-1)[i] = h * unit
            column = (SETS[name].project(W + E) - SETS[name].project(W - E)) / (2 * h)
            parts = torch.view_as_real(column) if W.is_complex() else column
            columns.append(parts.flatten())
    return int(torch.linalg.matrix_rank(torch.stack(columns), atol=1e-4))


@ALL
def test_the_dimension_is_that_of_the_tangent_space(name):
    dtypes = (torch.float64, torch.complex128) if name in COMPLEX else (torch.float64,)
    for dtype in dtypes:
        W = SETS[name].sample((4, 3), dtype=dtype)
        dim = SETS[name].dim((4, 3), dtype)
        assert dim == rank_of_projection(name, W)
        assert SETS[name].dim((2, 4, 3), dtype) == 2 * dim
        assert SETS[name].dim((0, 4, 3), dtype) == 0


def test_fixed_entries_and_sums_of_zero_are_no_freedom():
    assert sets.Interval(LOW, torch.tensor([-1.0, 1.0, 1.0])).dim((4, 3)) == 8
    rows = torch.tensor([0.0, 1.0, 1.0])
    assert sets.TransportPolytope(rows, 2 / 3).dim((3, 3)) == 2


# ---- Samples and errors -------------------------------------------------------------


@EVERY
def test_samples_follow_the_generator(name):
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return get(name).sample((4, 3), generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_samples_of_the_simplex_are_uniform():
    """The mean of a uniform point is 1/n, the variance (n - 1)/(n²(n + 1))."""
    W = sets.Simplex().sample((20_000, 4), dtype=torch.float64)
    assert_close(W.mean(0), torch.full((4,), 0.25).double(), rtol=0, atol=0.01)
    assert_close(W.var(0), torch.full((4,), 3 / 80).double(), rtol=0.05, atol=0)


def test_samples_of_an_interval_are_uniform():
    W = sets.Interval(2.0, 4.0).sample((20_000,), dtype=torch.float64)
    assert float(W.mean()) == pytest.approx(3, abs=0.02)
    assert float(W.var()) == pytest.approx(4 / 12, rel=0.05)


def test_shapes_that_a_set_does_not_have():
    for constraint in (sets.Simplex(2), sets.ZeroSum((0, 2)), sets.Ordered(-3)):
        assert not constraint.contains(torch.ones(2, 2))
        with pytest.raises(IndexError, match="Dimension out of range"):
            constraint.project(torch.ones(2, 2))
        with pytest.raises(IndexError, match="Dimension out of range"):
            constraint.dim((2, 2))
    for constraint in (sets.Simplex(), sets.ZeroSum(), sets.Ordered()):
        with pytest.raises(errors.InvalidTensorError, match="at least one entry along"):
            constraint.project(torch.ones(2, 0))
    polytope = sets.TransportPolytope(ROWS, COLUMNS)
    for shape in ((3, 4), (4,), (4, 0)):
        assert not polytope.contains(torch.ones(shape))
        with pytest.raises(errors.InvalidTensorError, match="Expected"):
            polytope.project(torch.ones(shape))


def test_column_sums_that_are_not_given_are_equal_and_fit():
    rows = torch.tensor([[1.0, 2.0], [3.0, 0.0]], dtype=torch.float64)
    W = sets.TransportPolytope(rows).project(normal(2, 2, 4))
    assert_close(W.sum(-1), rows)
    assert_close(W.sum(-2), torch.full((2, 4), 0.75, dtype=torch.float64))
    assert_close(
        sets.TransportPolytope(2.0).project(normal(2, 3)).sum(0),
        torch.full((3,), 4 / 3, dtype=torch.float64),
    )


def test_sums_that_no_matrix_has():
    with pytest.raises(errors.InvalidTensorError, match="same positive total. Got 2"):
        sets.TransportPolytope(1.0, 1.0).project(torch.ones(2, 3))
    with pytest.raises(errors.InvalidTensorError, match="Expected nonnegative row"):
        sets.TransportPolytope(torch.tensor([2.0, -1.0]), 0.5).project(torch.ones(2, 2))
