"""Rows of the table of cases: probability vectors, zero sums, sequences in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from case import always
from holdfast import maps, sets
from holdfast.testing.case import MATRICES, REAL, SQUARE, TENSORS, Case, Shape


def less_one(*dims: int) -> Callable[[Shape], Sequence[Shape]]:
    """Return the shape of originals that lack an entry along dimensions."""

    def shapes(shape: Shape) -> Sequence[Shape]:
        positions = {d % len(shape) for d in dims}
        return (tuple(n - (i in positions) for i, n in enumerate(shape)),)

    return shapes


SIMPLEX = (
    *(
        Case(
            f"softmax {dim}",
            lambda _, dim=dim: [maps.Softmax(dim)],
            always(sets.Simplex(dim)),
            TENSORS if dim == -1 else MATRICES,
            REAL,
        )
        for dim in (-1, -2)
    ),
    *(
        Case(
            f"{name} {dim}",
            lambda _, kind=kind, dim=dim: [kind(dim)],
            always(sets.Simplex(dim)),
            TENSORS if dim == -1 else SQUARE,
            REAL,
            less_one(dim),
        )
        for name, kind in (
            ("log ratios", maps.IsometricLogRatio),
            ("stick breaking", maps.StickBreaking),
        )
        for dim in (-1, -2)
    ),
    Case(
        "zero sums",
        lambda _: [maps.Helmert()],
        always(sets.ZeroSum()),
        TENSORS,
        originals=less_one(-1),
    ),
    Case(
        "zero sums of rows and columns",
        lambda _: [maps.Helmert((-2, -1))],
        always(sets.ZeroSum((-2, -1))),
        originals=less_one(-2, -1),
    ),
    Case(
        "increasing",
        lambda _: [maps.CumulativeSum()],
        always(sets.Ordered()),
        TENSORS,
        REAL,
    ),
    Case(
        "increasing from zero",
        lambda _: [maps.CumulativeSum(-2, positive=True)],
        always(sets.Ordered(-2, positive=True)),
        MATRICES,
        REAL,
    ),
)
