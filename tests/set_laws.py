"""What every set must do, as functions of the set: for the tests of a family."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from holdfast import sets

Shape = tuple[int, ...]

TYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.complex64,
    torch.complex128,
)


def norm(W: Tensor) -> float:
    return float(torch.linalg.vector_norm(W))


def law_membership(constraint: sets.Constraint, shape: Shape, dtype) -> None:
    """Samples and projections are inside, in the type that was asked for."""
    state = torch.get_rng_state()
    sample = constraint.sample(
        shape, dtype=dtype, generator=torch.Generator().manual_seed(5)
    )
    assert torch.equal(torch.get_rng_state(), state)
    point = constraint.project(torch.randn(shape, dtype=dtype))
    for W in (sample, point):
        assert W.shape == shape
        assert W.dtype == dtype
        residual = constraint.residual(W)
        assert not residual.is_complex()
        assert bool((residual >= 0).all())
        assert constraint.contains(W)
    assert constraint.contains(torch.empty(shape, device="meta"))


def law_residual(constraint: sets.Constraint, off_by) -> None:
    """The residual of a tensor that misses by eps is about eps."""
    for eps in (1e-1, 1e-5, 1e-9):
        residual = float(constraint.residual(off_by(eps)).max())
        assert 0.3 * eps < residual < 3 * eps
    assert constraint.contains(off_by(1e-7), tol=1e-6)
    assert not constraint.contains(off_by(1e-5), tol=1e-6)


def law_kept(constraint: sets.Constraint, shape: Shape, dtype) -> None:
    """The projection keeps what is inside."""
    W = constraint.sample(shape, dtype=dtype)
    assert_close(constraint.project(W), W, rtol=1e-12, atol=1e-12)


def law_nearest(constraint: sets.Constraint, shape: Shape, dtype) -> None:
    """No other point is nearer than the projection."""
    W = torch.randn(shape, dtype=dtype)
    P = constraint.project(W)
    rivals = [constraint.sample(shape, dtype=dtype) for _ in range(20)]
    for size in (1e-1, 1e-3):
        steps = [P + size * torch.randn(shape, dtype=dtype) for _ in range(20)]
        rivals += [constraint.project(step) for step in steps]
    assert norm(W - P) <= min(norm(W - S) for S in rivals) + 1e-9


def law_dimension(constraint: sets.Constraint, shape: Shape, dtype) -> None:
    """The dimension is the rank of the derivative of the projection."""
    W, h = constraint.sample(shape, dtype=dtype), 1e-5
    columns = []
    for i in range(W.numel()):
        for unit in (1.0, 1.0j) if dtype.is_complex else (1.0,):
            E = torch.zeros_like(W)
            E.view(-1)[i] = h * unit
            column = (constraint.project(W + E) - constraint.project(W - E)) / (2 * h)
            parts = torch.view_as_real(column) if dtype.is_complex else column
            columns.append(parts.flatten())
    rank = torch.linalg.matrix_rank(torch.stack(columns), atol=1e-4)
    assert constraint.dim(shape, dtype) == int(rank)


def law_finite(map_: torch.nn.Module, X: Tensor) -> None:
    """Value and gradient are finite at X."""
    leaf = X.clone().requires_grad_()
    value = map_(leaf)
    assert bool(torch.isfinite(value).all())
    weight = torch.ones_like(value) / max(1.0, norm(value.detach()))
    (slope,) = torch.autograd.grad(value, leaf, weight)
    assert bool(torch.isfinite(slope).all())
