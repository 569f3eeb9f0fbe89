"""How tables and maps print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


def in_one_line(maps: Iterable[nn.Module]) -> str:
    """Return maps as they print, in one line.

    Example:
        >>> from holdfast import maps
        >>> in_one_line([maps.Skew(), maps.Cayley()])
        'Skew(), Cayley()'
    """
    lines = (" ".join(str(map_).split()) for map_ in maps)
    return ", ".join(line.replace("( ", "(").replace(" )", ")") for line in lines)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines whose columns are aligned.

    Example:
        >>> print(aligned([("tensor", "ms"), ("a", "1.5")]))
        tensor  ms
        a       1.5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
