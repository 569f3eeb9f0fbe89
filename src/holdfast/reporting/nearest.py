"""Which known sets a tensor is in, and which it is near."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from ..core.sources import undisturbed
from ..errors import InvalidTensorError, describe
from ..linalg.certificates import finite
from ..linalg.decompositions import shared
from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from ..sets.constraint import Constraint
from .known_sets import NEAR, candidates, is_long
from .measuring import Promise, worst_residual
from .tables import Line, Table, compared


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
        skipped: sets that were not asked about, as a matrix so large would take long.
        finite: whether all entries are; a tensor with others is in no set.

    Example:
        >>> import torch, holdfast
        >>> found = holdfast.discover(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> found.sets[0].set, found.sets[0].holds
        ('SpecialOrthogonal()', True)
    """

    words = frozenset({"set"})

    sets: tuple[Nearby, ...]
    skipped: tuple[str, ...] = ()
    finite: bool = True

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
        """Say so if there is none, and what was not asked."""
        found = [] if self.sets else ["It is in no known set, and near none."]
        if not self.finite:
            found = ["It has entries that are not finite, and so is in no known set."]
        if self.skipped:
            names = ", ".join(self.skipped)
            found += [f"Not asked, as so large a matrix would take long: {names}."]
        return found


def discover(tensor: Tensor, *, near: float = NEAR) -> Discovery:
    """Find out which known sets a tensor is in, or near.

    The sets are those of `holdfast.sets` that need no argument, or one that the tensor
    itself tells: its rank, its bands, how many zeros it has. Left out are sets that
    hold almost every tensor, as the invertible matrices. Each decomposition is computed
    once, in a second or two for a matrix of a thousand rows. Of square matrices of more
    than 512 rows the eigenvalues are not, nor are singular values of more than 1024, or
    of batches that take as long: the result says which sets were ``skipped``.

    Args:
        tensor: a dense tensor with values; matrices are in the last two dimensions.
            Integers and booleans are taken as numbers.
        near: the largest residual of a near miss. A residual is relative, in the norm
            that is natural for the set, so that those of two sets compare roughly.

    Raises:
        InvalidTensorError: there are no values, on the meta device or without entries;
            or they are sparse, nested, quantized, or of less than 16 bits.
        ValueError: ``near`` is not a number that is at least zero.

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
    if not near >= 0:  # nor NaN
        raise ValueError(f"Expected `near` to be at least 0. Got {near}.")
    _require_dense(tensor)
    W = tensor.detach()
    limit = tolerance(W) or tolerance(double(W))
    W = W if W.dtype.is_floating_point or W.is_complex() else double(W)
    if not bool(finite(W)):
        return Discovery((), finite=False)
    with torch.no_grad(), undisturbed(), shared():
        known = [*candidates(W, near)]
        skipped = [str(each) for each in known if is_long(each, W)]
        asked = [each for each in known if not is_long(each, W)]
        found = [near_ for set_ in asked for near_ in _nearby(set_, W, limit)]
    found = [each for each in found if each.residual <= max(limit, near)]
    return Discovery(tuple(sorted(found, key=_order)), tuple(skipped))


def _require_dense(tensor: Tensor) -> None:
    """Raise unless there are values that sets can compute with."""
    way_out = ""
    if tensor.is_nested:
        way_out = "Ask about each of its tensors."
    elif tensor.is_quantized:
        way_out = "Ask about `tensor.dequantize()`."
    elif tensor.layout != torch.strided:
        way_out = "Ask about `tensor.to_dense()`."
    elif tensor.dtype.is_floating_point and tensor.dtype.itemsize < 2:
        way_out = "Ask about `tensor.float()`."
    elif tensor.dtype == torch.complex32:
        way_out = "Ask about `tensor.to(torch.complex64)`."
    if way_out:
        kind = "a nested tensor" if tensor.is_nested else describe(tensor)
        raise InvalidTensorError(
            "Expected a dense tensor, of at least 16 bits for each real number. "
            f"Got {kind}. {way_out}"
        )
    if tensor.is_meta or not tensor.numel():
        raise InvalidTensorError(
            f"Expected a tensor with values. Got {describe(tensor)}."
        )


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
