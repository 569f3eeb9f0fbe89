"""What the laws of sets need to know of a set beyond the set itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from holdfast import sets


@dataclass(frozen=True)
class Subject:
    """A set, and what is claimed of it.

    Args:
        constraint: the set.
        shapes: those that the laws run over; the first is a single matrix.
        square: other matrices are refused.
        cone: the set contains zero, and all multiples of its points.
        open: next to a point there is nothing outside.
        zero: whether the zero matrix is inside; None if nothing is claimed.
        nearest: `project` is the nearest point.
        real: complex matrices are outside.
        miss: returns, for a point and an eps, a matrix that misses the set by eps.
    """

    constraint: sets.Constraint
    shapes: Sequence[tuple[int, ...]]
    square: bool = False
    cone: bool = False
    open: bool = False
    zero: bool | None = None
    nearest: bool = True
    real: bool = False
    miss: Callable[[Tensor, float], Tensor] | None = None
