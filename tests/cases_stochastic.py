"""Rows of the table of cases: matrices with given row and column sums."""

from __future__ import annotations

import torch
from torch import Tensor

from case import always
from cases_simplex import less_one
from holdfast import maps, sets
from holdfast.testing.case import MATRICES, REAL, SQUARE, Case, Shape


def weights(size: int) -> Tensor:
    """Return positive numbers that sum to 1."""
    numbers = torch.arange(1, size + 1, dtype=torch.float64)
    return numbers / numbers.sum()


def sums(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return sums of the rows and of the columns."""
    return weights(shape[-2]), weights(shape[-1])


STOCHASTIC = tuple(
    case
    for name, kind, originals in (
        ("sinkhorn", maps.Sinkhorn, lambda shape: (shape,)),
        ("northwest corner", maps.NorthwestCorner, less_one(-2, -1)),
    )
    for case in (
        Case(
            f"{name}, doubly stochastic",
            lambda _, kind=kind: [kind()],
            always(sets.TransportPolytope()),
            SQUARE,
            REAL,
            originals,
        ),
        Case(
            f"{name} of a coupling",
            lambda shape, kind=kind: [kind(*sums(shape))],
            lambda shape: sets.TransportPolytope(*sums(shape)),
            MATRICES,
            REAL,
            originals,
        ),
    )
)
