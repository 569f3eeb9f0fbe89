"""The rows of the table for sparse weights."""

from __future__ import annotations

import math

from holdfast import maps, sets
from holdfast.testing.case import MATRICES, TENSORS, Case, Shape

_AS_ONE = {"batch": "the entries of the whole tensor are counted together"}
_THROUGH = {
    "gradient": "that of the identity, on purpose: test_sparse.py says what it is"
}


def half(shape: Shape) -> int:
    """Return half of the entries of a tensor, one at least."""
    return max(1, math.prod(shape) // 2)


def groups(shape: Shape) -> tuple[int, int]:
    """Return N and M: about half of every row."""
    return (shape[-1] + 1) // 2, max(1, shape[-1])


def gradual(shape: Shape, **changes: object) -> maps.GradualTopK:
    """Return a schedule in the middle of its rise."""
    map_ = maps.GradualTopK(0.75, steps=10, **changes)
    map_.advance_(3)
    return map_


class _Rising(sets.KSparse):
    """As few nonzero entries as the schedule leaves in a tensor of the shape."""

    def __init__(self, shape: Shape, axis: int | None) -> None:
        n = math.prod(shape) if axis is None else shape[axis]
        share = 0.75 * (1 - 0.7**3)
        super().__init__(n - round(share * n), axis=axis)


SPARSE = (
    *(
        Case(
            f"largest entries {gradient}",
            lambda shape, g=gradient: [maps.TopK(half(shape), gradient=g)],
            lambda shape: sets.KSparse(half(shape)),
            TENSORS,
            exceptions=_AS_ONE | (_THROUGH if gradient != "masked" else {}),
        )
        for gradient in ("masked", "straight_through")
    ),
    Case(
        "largest entries of rows",
        lambda _: [maps.TopK(2, axis=-1, gradient="masked")],
        lambda _: sets.KSparse(2, axis=-1),
        TENSORS,
    ),
    *(
        Case(
            f"groups of rows {gradient}",
            lambda shape, g=gradient: [maps.NMSparsity(*groups(shape), gradient=g)],
            lambda shape: sets.NMSparse(*groups(shape)),
            TENSORS,
            exceptions=_THROUGH if gradient != "masked" else {},
        )
        for gradient in ("masked", "straight_through")
    ),
    Case(
        "2:4",
        lambda _: [maps.NMSparsity(gradient="masked")],
        lambda _: sets.NMSparse(),
        ((4, 4), (2, 2, 4)),
    ),
    Case(
        "2:4 of columns",
        lambda _: [maps.NMSparsity(axis=-2)],
        lambda _: sets.NMSparse(axis=-2),
        ((4, 4), (4, 1)),
        exceptions=_THROUGH,
    ),
    Case(
        "gradual",
        lambda shape: [gradual(shape, gradient="masked")],
        lambda shape: _Rising(shape, None),
        TENSORS,
        exceptions=_AS_ONE,
    ),
    Case(
        "gradual in rows",
        lambda shape: [gradual(shape, axis=-1)],
        lambda shape: _Rising(shape, -1),
        MATRICES,
        exceptions=_THROUGH,
    ),
)
