"""Which known sets a tensor is in, and which it is near."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from .. import sets
from ..errors import InvalidTensorError, describe
from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from ..sets.constraint import Constraint
from .measuring import Promise, singular_values, worst_residual
from .tables import Line, Table, compared

# A residual is a share of the tensor, more or less: beyond it nothing is near.
_NEAR = 0.1


@dataclass(frozen=True)
class Nearby:
    """A set that a tensor is in, or near.

    Attributes:
        set: the set, as it prints.
        residual: how far the tensor is from it, the largest of a batch.
        tolerance: up to which residual it counts as inside.
        dim: the number of real degrees of freedom that the set has in this shape.
    """

    set: str
    residual: float
    tolerance: float
    dim: int

    @property
    def holds(self) -> bool:
        """Whether the tensor is in the set."""
        return self.residual <= self.tolerance


@dataclass(frozen=True)
class Discovery(Table):
    """The known sets that a tensor is in, then those that it is near.

    Printed, it is a table; so it is in Jupyter. Make one with `discover`.

    Attributes:
        sets: those that it is in, the smallest set first: it says most. Then the near
            misses, the smallest residual first. Each has its name (``set``),
            ``residual``, ``tolerance``, dimension (``dim``), and whether it ``holds``.

    Example:
        >>> import torch, holdfast
        >>> found = holdfast.discover(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> found.sets[0].set, found.sets[0].holds
        ('SpecialOrthogonal()', True)
    """

    words = frozenset({"set"})

    sets: tuple[Nearby, ...]

    @property
    def holding(self) -> tuple[Nearby, ...]:
        """The sets that the tensor is in."""
        return tuple(each for each in self.sets if each.holds)

    def __iter__(self) -> Iterator[Nearby]:
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    def records(self) -> list[dict[str, object]]:
        """Return a dictionary for each set."""
        return [{**asdict(each), "holds": each.holds} for each in self.sets]

    def _fields(self) -> list[str]:
        return [*(field.name for field in fields(Nearby)), "holds"]

    def head(self) -> tuple[str, ...]:
        """Return what stands above the columns."""
        return "set", "residual", "dimension"

    def lines(self) -> list[Line]:
        """Return a line for each set."""
        return [
            Line((each.set, compared(each.residual, each.tolerance), f"{each.dim:,}"))
            for each in self.sets
        ]

    def remarks(self) -> list[str]:
        """Say so if there is none."""
        return [] if self.sets else ["It is in no known set, and near none."]


def discover(tensor: Tensor, *, near: float = _NEAR) -> Discovery:
    """Find out which known sets a tensor is in, or near.

    The sets are those of `holdfast.sets` that need no argument, or one that the tensor
    itself tells: its rank, its bands, how many zeros it has. Left out are sets that
    hold almost every tensor, as the invertible matrices. The decompositions take ten
    seconds for a matrix of a thousand rows.

    Args:
        tensor: a tensor with values; matrices are in the last two dimensions.
        near: the largest residual of a near miss. A residual is relative, in the norm
            that is natural for the set, so that those of two sets compare roughly.

    Raises:
        InvalidTensorError: there are no values, on the meta device or without entries.

    Example:
        >>> import torch, holdfast
        >>> W = torch.eye(4)[[1, 0, 3, 2]]  # swaps two pairs
        >>> [each.set for each in holdfast.discover(W).holding][:3]
        ['KSparse(count=4)', 'SpecialOrthogonal()', 'Stiefel()']
        >>> W[0, 1] += 0.001
        >>> [each.set for each in holdfast.discover(W) if not each.holds][:2]
        ['SpecialLinear()', 'SymmetricMatrices()']
    """
    if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"Expected a tensor. Got an object of {type(tensor).__name__}.")
    if tensor.is_meta or not tensor.numel():
        raise InvalidTensorError(
            f"Expected a tensor with values. Got {describe(tensor)}."
        )
    W = tensor.detach()
    limit = tolerance(W) or tolerance(double(W))
    W = W if W.dtype.is_floating_point or W.is_complex() else double(W)
    with torch.no_grad():
        found = [near_ for set_ in _candidates(W) for near_ in _nearby(set_, W, limit)]
    found = [each for each in found if each.residual <= max(limit, near)]
    return Discovery(tuple(sorted(found, key=_order)))


def _order(each: Nearby) -> tuple[bool, int, float]:
    """Put small sets first, then small residuals; the table decides what is left."""
    return (False, each.dim, 0.0) if each.holds else (True, 0, each.residual)


def _nearby(set_: Constraint, W: Tensor, limit: float) -> Iterator[Nearby]:
    """Yield the set with its residual, unless it has no tensors of this kind."""
    try:
        worst = worst_residual(Promise(set_, sure=True), W)
        residual = math.inf if worst is None else float(worst)
        dim = set_.dim(W.shape, W.dtype)
    except (InvalidTensorError, ValueError, IndexError, RuntimeError):
        return  # a matrix is asked for, or a real one
    if math.isfinite(residual):
        yield Nearby(str(set_), residual, limit, dim)


def _candidates(W: Tensor) -> Iterator[Constraint]:
    """Yield the sets that are known: the table of `discover`."""
    yield from _OF_ENTRIES
    if W.ndim >= 1:
        yield from _OF_SLICES
        yield from _of_zeros(W)
    if W.ndim >= 2:
        yield from _OF_MATRICES
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
    sets.SymmetricPositiveDefinite(),
    sets.PositiveSemidefinite(),
    sets.CorrelationMatrices(),
    sets.SpecialLinear(),
    sets.TransportPolytope(),
    sets.Hurwitz(),
    sets.SchurStable(),
    sets.ToeplitzMatrices(),
    sets.CirculantMatrices(),
)


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
    spectrum = singular_values(W)
    if spectrum is None:
        return
    squares = spectrum.square().flip(-1).cumsum(-1).flip(-1)  # of this one and below
    all_of_it = squares[..., :1].clamp_min(torch.finfo(squares.dtype).tiny)
    left = (squares / all_of_it).sqrt()
    ranks = {int((left > share).sum(-1).max()) for share in (tolerance(W), _NEAR)}
    yield from (
        sets.LowRankMatrices(r) for r in sorted(ranks) if 0 < r < spectrum.shape[-1]
    )
