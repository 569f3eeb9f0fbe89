"""Invertible matrices: the rows of the table of cases, and the sets."""

from __future__ import annotations

import torch
from torch import Tensor

from case import OVERFLOW, ROUNDED
from holdfast import maps, sets
from holdfast.testing.case import ALL, REAL, SQUARE, Case
from subjects import Subject

_SETS = {
    "nonzero": sets.GeneralLinear(),
    "positive": sets.PositiveDeterminant(),
    "one": sets.SpecialLinear(),
}

INVERTIBLE = (
    *(
        Case(
            f"plu {kind}",
            lambda _, kind=kind: [maps.PLU(kind)],
            lambda _, kind=kind: _SETS[kind],
            SQUARE,
            REAL if kind == "positive" else ALL,
            # pivots that multiply to one may be larger than any coordinate
            exceptions=OVERFLOW if kind == "one" else {},
        )
        for kind in _SETS
    ),
    *(
        Case(
            f"invertible svd {kind}",
            lambda _, kind=kind: [maps.InvertibleSVD(kind)],
            lambda _, kind=kind: _SETS[kind],
            SQUARE,
            ALL if kind == "nonzero" else REAL,
            exceptions=ROUNDED,
        )
        for kind in _SETS
    ),
)


def off_unit(W: Tensor, eps: float) -> Tensor:
    """Return a matrix at the relative distance eps from W, straight away from SL."""
    N = torch.linalg.inv(W).mH
    return W + eps * N * torch.linalg.vector_norm(W) / torch.linalg.vector_norm(N)


_SQUARES = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))

INVERTIBLE_SETS = {
    "positive determinant": Subject(
        sets.PositiveDeterminant(),
        _SQUARES,
        square=True,
        open=True,
        zero=False,
        real=True,
    ),
    "unit determinant": Subject(
        sets.SpecialLinear(),
        _SQUARES,
        square=True,
        zero=False,
        nearest=False,
        miss=off_unit,
    ),
}
