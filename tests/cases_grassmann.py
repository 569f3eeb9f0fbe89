"""Subspaces: the rows of the table of cases."""

from __future__ import annotations

from case import ROUNDED, always
from holdfast import maps, sets
from holdfast.testing.case import Case

GRASSMANN = tuple(
    Case(
        f"horizontal {kind}",
        lambda _, kind=kind: [maps.Horizontal(kind)],
        always(sets.Grassmann()),
        exceptions=ROUNDED,
    )
    for kind in ("cayley", "matrix_exp")
)
