"""Low rank, and changes of a base: the rows of the table of cases, and the sets."""

from __future__ import annotations

import torch
from torch import Tensor

from case import ROUNDED, always
from holdfast import maps, sets
from holdfast.testing.case import COMPLEX, REAL, Case, Shape
from holdfast.testing.given import AroundGiven, given
from subjects import Subject


def two(shape: Shape) -> int:
    """Return a rank below that of most shapes."""
    return min(2, *shape[-2:])


def _sides(shape: Shape) -> tuple[Shape, Shape]:
    (*batch, n, k), r = shape, two(shape)
    return (*batch, n, r), (*batch, k, r)


def _product(rank: int):
    def shapes(shape: Shape) -> tuple[Shape, Shape]:
        *batch, n, k = shape
        return (*batch, n, rank), (*batch, rank, k)

    return shapes


def _lengths(shape: Shape) -> tuple[Shape, ...]:
    return shape[:-1], *_product(1)(shape)


def _blocks(side: str, complex: bool):
    def shapes(shape: Shape) -> tuple[Shape]:
        *batch, n, k = shape
        turned, b = (n if side == "left" else k), block_size(shape, side)
        size = b * (b + 1) // 2 if complex else b * (b - 1) // 2
        return ((*batch, turned // b, size),)

    return shapes


def block_size(shape: Shape, side: str) -> int:
    turned = shape[-2 if side == "left" else -1]
    return 2 if turned % 2 == 0 else turned


LOW_RANK = (
    Case(
        "low rank",
        lambda shape: [maps.LowRank(two(shape))],
        lambda shape: sets.LowRankMatrices(two(shape)),
        originals=_sides,
        real=(),
    ),
    Case(
        "fixed rank",
        lambda shape: [maps.FixedRank(two(shape))],
        lambda shape: sets.FixedRankMatrices(two(shape)),
        originals=_sides,
        exceptions=ROUNDED,
        real=(),
    ),
    Case(
        "lora",
        lambda shape: [AroundGiven(maps.LoRA(2, alpha=3.0))],
        lambda shape: sets.Shifted(sets.LowRankMatrices(2), given(shape)),
        originals=_product(2),
        real=(),
    ),
    Case(
        "dora",
        lambda _: [maps.DoRA(1)],
        always(sets.Real()),
        originals=_lengths,
        exceptions={
            "right_inverse": "partial: the image has no membership formula",
            "batch": "the base is the value that it is bound to",
        },
        real=(0,),
    ),
    *(
        Case(
            f"oft {side}" + " complex" * complex,
            lambda shape, side=side: [
                AroundGiven(maps.OFT(block_size(shape, side), side=side))
            ],
            lambda shape, side=side: sets.Isometric(
                given(shape), block_size=block_size(shape, side), side=side
            ),
            dtypes=COMPLEX if complex else REAL,
            originals=_blocks(side, complex),
            exceptions=ROUNDED,
        )
        for side in ("left", "right")
        for complex in (False, True)
    ),
    Case(
        "delta low rank",
        lambda shape: [AroundGiven(maps.Delta(maps.LowRank(two(shape))))],
        lambda shape: sets.Shifted(sets.LowRankMatrices(two(shape)), given(shape)),
        originals=_sides,
        real=(),
    ),
    Case(
        "delta thin cayley",
        lambda _: [AroundGiven(maps.Delta(maps.ThinOrthogonal()))],
        lambda shape: sets.Shifted(sets.Stiefel(), given(shape)),
        exceptions=ROUNDED,
    ),
    Case(
        "delta low rank with its base",
        lambda shape: [maps.Delta(maps.LowRank(two(shape)), train_base=True)],
        always(sets.Real()),
        originals=lambda shape: (shape, *_sides(shape)),
        real=(),
    ),
)


def beyond(W: Tensor, eps: float, rank: int = 1) -> Tensor:
    """Return a matrix whose singular value after the first ones is eps."""
    U, values, Vh = torch.linalg.svd(W, full_matrices=False)
    u, v = U[..., rank : rank + 1], Vh[..., rank : rank + 1, :]
    rest = (u * values[..., rank, None, None]) @ v
    return W - rest + eps * values[..., :1, None] * u @ v


def off_base(W: Tensor, eps: float) -> Tensor:
    """Return a matrix at the relative distance eps from W, whose change is too much."""
    change = W - given(tuple(W.shape))
    miss = beyond(change, 1.0) - beyond(change, 0.0)
    size = torch.linalg.vector_norm(W) / torch.linalg.vector_norm(miss)
    return W + eps * size * miss


_SHAPES = ((5, 4), (4, 5), (4, 4), (2, 5, 3), (0, 4, 3))
_GIVEN = ((5, 4), (2, 5, 4), (0, 5, 4))

LOW_RANK_SETS = {
    "low rank": Subject(
        sets.LowRankMatrices(1), _SHAPES, cone=True, zero=True, miss=beyond
    ),
    "fixed rank": Subject(sets.FixedRankMatrices(1), _SHAPES, zero=False, miss=beyond),
    "base plus low rank": Subject(
        sets.Shifted(sets.LowRankMatrices(1), given((5, 4))),
        _GIVEN,
        zero=False,
        miss=off_base,
    ),
    "isometric": Subject(
        sets.Isometric(given((5, 4)), block_size=2),
        _GIVEN,
        zero=False,
        miss=lambda W, eps: W * (1 + eps),
    ),
}
