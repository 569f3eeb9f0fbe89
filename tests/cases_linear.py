"""Linear structure: the rows of the table of cases, and the sets."""

from __future__ import annotations

import torch
from torch import Tensor

from case import always
from holdfast import linalg, maps, sets
from holdfast.testing.case import SQUARE, Case, Shape
from subjects import Subject

KRONECKER: tuple[Shape, ...] = ((4, 4), (2, 6), (6, 2), (3, 4, 2), (0, 4, 4), (2, 2))
BLOCKS: tuple[Shape, ...] = ((4, 4), (2, 6), (6, 2), (3, 4, 2), (0, 4, 4), (2, 2))


def diagonals(shape: Shape) -> tuple[Shape]:
    return ((*shape[:-2], shape[-2] + shape[-1] - 1),)


def factors(shape: Shape) -> tuple[Shape, Shape]:
    return (*shape[:-2], 2, 1), (*shape[:-2], shape[-2] // 2, shape[-1])


LINEAR = (
    Case(
        "diagonal",
        lambda _: [maps.Diagonal()],
        always(sets.DiagonalMatrices()),
        originals=lambda shape: ((*shape[:-2], min(shape[-2:])),),
    ),
    Case("banded", lambda _: [maps.Banded(1)], always(sets.BandedMatrices(1))),
    Case(
        "banded above",
        lambda _: [maps.Banded(0, upper=2)],
        always(sets.BandedMatrices(0, upper=2)),
    ),
    Case(
        "traceless",
        lambda _: [maps.Traceless()],
        always(sets.TracelessMatrices()),
        SQUARE,
    ),
    Case(
        "toeplitz",
        lambda _: [maps.Toeplitz()],
        always(sets.ToeplitzMatrices()),
        originals=diagonals,
    ),
    Case(
        "circulant",
        lambda _: [maps.Circulant()],
        always(sets.CirculantMatrices()),
        SQUARE,
        originals=lambda shape: (shape[:-1],),
    ),
    Case(
        "block diagonal",
        lambda _: [maps.BlockDiagonal(2)],
        always(sets.BlockDiagonalMatrices(2)),
        BLOCKS,
        originals=lambda shape: ((*shape[:-2], 2, shape[-2] // 2, shape[-1] // 2),),
    ),
    Case(
        "kronecker",
        lambda _: [maps.Kronecker((2, 1))],
        always(sets.KroneckerProducts((2, 1))),
        KRONECKER,
    ),
)


def off_product(W: Tensor, eps: float) -> Tensor:
    """Return a matrix whose nearest Kronecker product is W, at the distance eps."""
    A, B = linalg.nearest_kronecker(W, 2, 1)
    factors = []
    for X in (A, B):
        N = torch.randn_like(X)
        factors.append(N - X * (X.conj() * N).sum() / (X.conj() * X).sum())
    N = linalg.kronecker(*factors)
    return W + eps * N * torch.linalg.vector_norm(W) / torch.linalg.vector_norm(N)


_RECTANGLES = ((4, 3), (3, 4), (4, 4), (1, 1), (2, 5, 2), (0, 4, 3))
_SQUARES = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))

LINEAR_SETS = {
    "diagonal": Subject(sets.DiagonalMatrices(), _RECTANGLES, cone=True),
    "banded": Subject(sets.BandedMatrices(1, upper=0), _RECTANGLES, cone=True),
    "block diagonal": Subject(sets.BlockDiagonalMatrices(2), BLOCKS, cone=True),
    "traceless": Subject(sets.TracelessMatrices(), _SQUARES, square=True, cone=True),
    "toeplitz": Subject(sets.ToeplitzMatrices(), _RECTANGLES, cone=True),
    "circulant": Subject(sets.CirculantMatrices(), _SQUARES, square=True, cone=True),
    "kronecker": Subject(
        sets.KroneckerProducts((2, 1)), KRONECKER, cone=True, miss=off_product
    ),
}
