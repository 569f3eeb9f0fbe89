"""What the rows of the table of cases have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from holdfast.sets import Constraint
from holdfast.testing.case import Shape

# What a law runs over that does not look at the size: square, tall and wide
PLAIN: tuple[Shape, ...] = ((4, 4), (5, 3), (3, 5))

# Why huge originals do not give finite values
ROUNDED = {
    "huge": "of an angle of 1e18 rounding leaves no digit, and of I + 1e18 A no I"
}
OVERFLOW = {"huge": "products of numbers of 1e18 exceed single precision"}


def mask(shape: Shape) -> Tensor:
    """Return a mask that prunes every third entry."""
    return (torch.arange(torch.Size(shape).numel()) % 3 != 0).reshape(shape)


def always(constraint: Constraint) -> Callable[[Shape], Constraint]:
    return lambda shape: constraint
