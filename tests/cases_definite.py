"""Definite matrices: the rows of the table of cases, and the sets."""

from __future__ import annotations

import torch
from torch import Tensor

from case import always
from holdfast import maps, sets
from holdfast.testing.case import SQUARE, Case, Shape
from subjects import Subject

# a rank of two asks for a size of two
LARGER: tuple[Shape, ...] = ((4, 4), (2, 2), (2, 3, 3), (0, 3, 3))


def two_columns(shape: Shape) -> tuple[Shape]:
    return ((*shape[:-1], 2),)


_SPD = sets.SymmetricPositiveDefinite()

_THREE_ROWS: tuple[Shape, ...] = ((4, 4), (2, 3, 3), (0, 3, 3))

_INFINITE = {"huge": "exp(1e18) is infinite; softplus is there instead"}

DEFINITE = (
    *(
        Case(
            f"cholesky {kind}",
            lambda _, kind=kind: [maps.Cholesky(kind)],
            always(_SPD),
            SQUARE,
            exceptions=_INFINITE if kind == "exp" else {},
        )
        for kind in ("softplus", "exp")
    ),
    Case(
        "cholesky of rank 2",
        lambda _: [maps.Cholesky(rank=2)],
        always(sets.PositiveSemidefinite(2)),
        LARGER,
        originals=two_columns,
    ),
    Case(
        "gram",
        lambda _: [maps.Gram()],
        always(sets.PositiveSemidefinite()),
        SQUARE,
    ),
    Case(
        "gram of rank 2",
        lambda _: [maps.Gram(2)],
        always(sets.PositiveSemidefinite(2)),
        LARGER,
        originals=two_columns,
    ),
    Case(
        "low rank plus diagonal",
        lambda _: [maps.LowRankPlusDiagonal(1)],
        always(sets.LowRankPlusDiagonalMatrices(1)),
        _THREE_ROWS,
        originals=lambda shape: ((*shape[:-1], 1), shape[:-1]),
        real=(1,),
    ),
    Case(
        "spectral softplus",
        lambda _: [maps.Symmetric(), maps.SpectralSoftplus()],
        always(_SPD),
        SQUARE,
    ),
    Case(
        "spectral logistic",
        lambda _: [maps.Symmetric(), maps.SpectralLogistic(-0.5, high=2.0)],
        always(sets.SpectrumIn(-0.5, high=2.0)),
        SQUARE,
    ),
    Case(
        "partial correlations",
        lambda _: [maps.PartialCorrelations()],
        always(sets.CorrelationMatrices()),
        SQUARE,
    ),
    Case(
        "normalized cholesky",
        lambda _: [maps.NormalizedCholesky()],
        always(sets.CorrelationMatrices()),
        SQUARE,
    ),
)


def off_spectrum(W: Tensor, eps: float) -> Tensor:
    """Return the matrix with the largest eigenvalue raised to 2 (1 + eps)."""
    values, V = torch.linalg.eigh(W)
    v = V[:, -1:]
    return W + (2 * (1 + eps) - values[-1]) * v @ v.mH


def off_cone(W: Tensor, eps: float) -> Tensor:
    """Return the matrix with the smallest eigenvalue -eps times the largest."""
    values, V = torch.linalg.eigh(W)
    v = V[:, :1]
    return W - (values[0] + eps * values[-1]) * v @ v.mH


def off_rank(W: Tensor, eps: float) -> Tensor:
    """Return the matrix with an eigenvalue of eps times the largest added."""
    values, V = torch.linalg.eigh(W)
    v = V[:, :1]
    return W + eps * values[-1] * v @ v.mH


def off_symmetry(W: Tensor, eps: float) -> Tensor:
    """Return the matrix plus a skew one, which every symmetric one is orthogonal to."""
    N = sets.SkewMatrices().project(torch.randn_like(W))
    return W + eps * N * torch.linalg.vector_norm(W) / torch.linalg.vector_norm(N)


def off_diagonal(W: Tensor, eps: float) -> Tensor:
    """Return the matrix times 1 + eps."""
    return W * (1 + eps)


_SQUARES = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))

DEFINITE_SETS = {
    "spectrum": Subject(
        sets.SpectrumIn(-0.5, high=2.0), _SQUARES, square=True, miss=off_spectrum
    ),
    "semidefinite": Subject(
        sets.PositiveSemidefinite(),
        _SQUARES,
        square=True,
        cone=True,
        miss=off_cone,
    ),
    "semidefinite of rank 2": Subject(
        sets.PositiveSemidefinite(2), LARGER, square=True, cone=True, miss=off_rank
    ),
    "low rank plus diagonal": Subject(
        sets.LowRankPlusDiagonalMatrices(1),
        _THREE_ROWS,
        square=True,
        nearest=False,
        miss=off_symmetry,
    ),
    "correlation": Subject(
        sets.CorrelationMatrices(),
        _SQUARES,
        square=True,
        zero=False,
        nearest=False,
        miss=off_diagonal,
    ),
}
