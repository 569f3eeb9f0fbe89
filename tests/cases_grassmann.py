"""Subspaces: the rows of the table of cases."""

from __future__ import annotations

from case import Case, always
from holdfast import maps, sets

GRASSMANN = tuple(
    Case(
        f"horizontal {kind}",
        lambda _, kind=kind: [maps.Horizontal(kind)],
        always(sets.Grassmann()),
    )
    for kind in ("cayley", "matrix_exp")
)
