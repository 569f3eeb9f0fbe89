"""The sets that `discover` asks about, and which of them take long to ask."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import sets
from ..linalg.tolerances import tolerance
from ..sets.constraint import Constraint, is_square
from .measuring import singular_values

# A residual is a share of the tensor, more or less: beyond it nothing is near.
NEAR = 0.1


def candidates(W: Tensor, near: float) -> Iterator[Constraint]:
    """Yield the sets that are known: the table of `discover`."""
    yield from _OF_ENTRIES
    if W.ndim >= 1:
        yield from _OF_SLICES
        yield from _of_zeros(W)
    if W.ndim >= 2:
        yield from _OF_MATRICES
        if is_square(W.shape) and _nearly(sets.SymmetricMatrices(), W, near):
            # the residual of each of them is no smaller
            yield from _OF_SYMMETRIC_MATRICES
        yield from _by_bands(W)
        yield from _by_rank(W)
        if W.is_complex():
            yield from (sets.Unitary(), sets.SpecialUnitary())
    if W.ndim == 4:
        yield sets.OrthogonalKernels()


_OF_ENTRIES: tuple[Constraint, ...] = (
    sets.Interval(0.0),
    sets.Interval(0.0, 1.0),
    sets.Interval(-1.0, 1.0),
)
_OF_SLICES: tuple[Constraint, ...] = (
    sets.Simplex(),
    sets.Simplex(axis=0),
    sets.Sphere(),
    sets.Sphere(axis=0),
    sets.Standardized(),
    sets.ZeroSum(),
    sets.Ordered(),
    sets.LpBall(1.0),
    sets.LpBall(),
    sets.NMSparse(2, 4),
)
_OF_MATRICES: tuple[Constraint, ...] = (
    sets.SpecialOrthogonal(),
    sets.Stiefel(),
    sets.ScaledOrthogonal(),
    sets.SpectralSphere(),
    sets.SpectralBall(),
    sets.SymmetricMatrices(),
    sets.SkewMatrices(),
    sets.TracelessMatrices(),
    sets.SpecialLinear(),
    sets.TransportPolytope(),
    sets.Hurwitz(),
    sets.SchurStable(),
    sets.ToeplitzMatrices(),
    sets.CirculantMatrices(),
)
_OF_SYMMETRIC_MATRICES: tuple[Constraint, ...] = (
    sets.SymmetricPositiveDefinite(),
    sets.PositiveSemidefinite(),
    sets.CorrelationMatrices(),
)
# What takes ten times as long as singular values, and the rows from which on that is
# more than a second.
_BY_EIGENVALUES = (sets.Hurwitz, sets.SchurStable)
_BY_SINGULAR_VALUES = (
    sets.SpectralSphere,
    sets.SpectralBall,
    sets.SpecialLinear,
    sets.LowRankMatrices,
    sets.SymmetricPositiveDefinite,
    sets.PositiveSemidefinite,
    sets.CorrelationMatrices,
)
_OF_SQUARES = (*_BY_EIGENVALUES, sets.SpecialLinear)
_MOST_ROWS = 512


def _nearly(set_: Constraint, W: Tensor, near: float) -> bool:
    return bool((set_.residual(W) <= max(near, tolerance(W))).all())


def _of_zeros(W: Tensor) -> Iterator[Constraint]:
    """Yield the set of tensors with as many entries that are not zero."""
    count = int(W.count_nonzero())
    if 0 < count < W.numel():
        yield sets.KSparse(count)


def _by_bands(W: Tensor) -> Iterator[Constraint]:
    """Yield diagonal and triangular matrices, and those with as many bands."""
    yield sets.DiagonalMatrices()
    yield sets.TriangularMatrices()
    yield sets.TriangularMatrices(upper=True)
    n, k = W.shape[-2:]
    rows, columns = (W != 0).reshape(-1, n, k).any(0).nonzero(as_tuple=True)
    if len(rows):
        lower = max(0, int((rows - columns).max()))
        upper = max(0, int((columns - rows).max()))
        if 0 < lower < n - 1 and 0 < upper < k - 1:
            yield sets.BandedMatrices(lower, upper=upper)


def _by_rank(W: Tensor) -> Iterator[Constraint]:
    """Yield the matrices of the rank that the tensor has, and of that which is near."""
    if _rows(W) > 2 * _MOST_ROWS:
        yield sets.LowRankMatrices(1)  # to be named among those left out
        return
    spectrum = singular_values(W)
    if spectrum is None:
        return
    squares = spectrum.square().flip(-1).cumsum(-1).flip(-1)  # of this one and below
    all_of_it = squares[..., :1].clamp_min(torch.finfo(squares.dtype).tiny)
    left = (squares / all_of_it).sqrt()
    ranks = {int((left > share).sum(-1).max()) for share in (tolerance(W), NEAR)}
    yield from (
        sets.LowRankMatrices(r) for r in sorted(ranks) if 0 < r < spectrum.shape[-1]
    )


def is_long(set_: Constraint, W: Tensor) -> bool:
    """Tell whether a set decomposes the matrix, and that would take long."""
    if isinstance(set_, _OF_SQUARES) and not is_square(W.shape):
        return False  # which they tell at once
    return (isinstance(set_, _BY_EIGENVALUES) and _rows(W) > _MOST_ROWS) or (
        isinstance(set_, _BY_SINGULAR_VALUES) and _rows(W) > 2 * _MOST_ROWS
    )


def _rows(W: Tensor) -> float:
    """Return the rows of the square matrix that takes as long as the whole batch."""
    if W.ndim < 2:
        return 0
    return min(W.shape[-2:]) * math.prod(W.shape[:-2]) ** (1 / 3)
