"""How lines look, and how axes are labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAINT, MARK = "#767676", "#d55e00"


@dataclass(frozen=True)
class LineStyle:
    """How one of several things is drawn in all figures.

    Attributes:
        color: any color of matplotlib's.
        dashes: ``"-"``, ``"--"``, ``"-."`` or ``":"``.
        marker: the marker of single points.

    Example:
        >>> from holdfast import plot
        >>> plot.LineStyle("#0072b2", "-", "o").dashes
        '-'
    """

    color: str
    dashes: str
    marker: str


#: So that the first few things differ in color, dashes and marker.
STYLES: tuple[LineStyle, ...] = (
    LineStyle("#0072b2", "-", "o"),
    LineStyle("#d55e00", "--", "s"),
    LineStyle("#000000", "-.", "^"),
    LineStyle("#009e73", ":", "D"),
    LineStyle("#cc79a7", "-", "v"),
    LineStyle("#e69f00", "--", "P"),
    LineStyle("#56b4e9", "-.", "X"),
)


def style(number: int) -> LineStyle:
    """Return the style of one of several things, counted from 0; seven are different.

    Example:
        >>> from holdfast import plot
        >>> plot.style(0)
        LineStyle(color='#0072b2', dashes='-', marker='o')
        >>> plot.style(7) == plot.style(0)
        True
    """
    return STYLES[number % len(STYLES)]


def labelled(ax: Axes, x: str, y: str) -> Axes:
    """Label what has no label yet; among axes that share one, the outer ones."""
    outer = [ax.get_shared_x_axes, ax.get_shared_y_axes]
    ax.set_xlabel(ax.get_xlabel() or x)
    ax.set_ylabel(ax.get_ylabel() or y)
    if all(len(shared().get_siblings(ax)) > 1 for shared in outer):
        ax.label_outer()
    return ax


def alone(values: Sequence[float]) -> dict[str, Any]:
    """Return what makes a line show values between two gaps, which have no line.

    Example:
        >>> alone([1.0, float("nan"), 1.0, 2.0])["markevery"]
        [0]
    """
    gaps = [True, *(not math.isfinite(value) for value in values), True]
    places = [i for i in range(len(values)) if gaps[i : i + 3] == [True, False, True]]
    return {"marker": "o", "ms": 4, "markevery": places} if places else {}


def whole_steps(ax: Axes) -> Axes:
    """Count on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    return ax
