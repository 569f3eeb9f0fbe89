"""What maps cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .styles import FAINT, STYLES, labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..reporting.steps import Trace
    from ..reporting.summary import Report

# More bars cannot be read.
_MOST = 20
_LONGEST = 38  # characters of a name


def costs(ax: Axes, found: Report | Trace | Mapping[str, float]) -> Axes:
    """Draw the milliseconds of one evaluation, the dearest first.

    Args:
        ax: where to draw.
        found: a report, of which each tensor has a bar; a trace, of which each map has
            one; or milliseconds by name. The cheapest beyond twenty are one bar.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.costs(Figure().subplots(), {"exp": 1.5, "Cayley": 0.3})
        >>> [text.get_text() for text in ax.get_yticklabels()], ax.get_xlabel()
        (['exp', 'Cayley'], 'time of one evaluation (ms)')
    """
    bars = sorted(_milliseconds(found).items(), key=lambda item: -item[1])
    if len(bars) > _MOST:
        rest = bars[_MOST - 1 :]
        bars = [*bars[: _MOST - 1], (f"{len(rest)} others", sum(ms for _, ms in rest))]
    names, values = [_cut(name) for name, _ in bars], [ms for _, ms in bars]
    places = range(len(bars))
    drawn = ax.barh(places, values, color=STYLES[0].color, height=0.7)
    ax.bar_label(drawn, [f"{ms:.2g}" for ms in values], padding=3, color=FAINT)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    return labelled(ax, "time of one evaluation (ms)", "")


def _milliseconds(found: Report | Trace | Mapping[str, float]) -> dict[str, float]:
    if isinstance(found, Mapping):
        return dict(found)
    taken = dict[str, float]()
    for record in found.records():
        name = str(record.get("step") or f"{record['tensor']}: {record['maps']}")
        if isinstance(ms := record["milliseconds"], float):
            taken[_without_arguments(name)] = ms
    return taken


def _without_arguments(name: str) -> str:
    """Return names of maps alone: arguments would be longer than bars are."""
    shorter = re.sub(r"\([^()]*\)", "", name)
    return name if shorter == name else _without_arguments(shorter)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
