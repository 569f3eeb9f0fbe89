"""What maps cost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..reporting.steps import Trace
from ..reporting.summary import Report
from .styles import FAINT, STYLES, labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More bars cannot be read.
_MOST = 20
_LONGEST = 48  # characters of a name
_FONT = 10  # points


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
    taken = ((k, ms) for k, ms in _milliseconds(found).items() if math.isfinite(ms))
    bars = sorted(taken, key=lambda item: -item[1])
    if len(bars) > _MOST:
        rest = bars[_MOST - 1 :]
        bars = [*bars[: _MOST - 1], (f"{len(rest)} others", sum(ms for _, ms in rest))]
    names, values = [_cut(name) for name, _ in bars], [ms for _, ms in bars]
    height = ax.bbox.height / ax.figure.dpi * 72 / max(1, len(bars))
    size = min(_FONT, 0.5 * height)
    # Each name stands above its bar, where it needs no room beside the axes.
    places = [i + 0.25 for i in range(len(bars))]
    drawn = ax.barh(places, values, color=STYLES[0].color, height=0.4)
    ax.bar_label(drawn, [*map(_short, values)], padding=3, color=FAINT, fontsize=size)
    ax.set_yticks([i - 0.17 for i in range(len(bars))], names, fontsize=size)
    ax.tick_params(axis="y", length=0, pad=-4)
    for label in ax.get_yticklabels():
        label.set(ha="left", va="center")
    ax.set_ylim(max(1, len(bars)) - 0.5, -0.5)
    ax.margins(x=0.15)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    return labelled(ax, "time of one evaluation (ms)", "")


def _milliseconds(found: Report | Trace | Mapping[str, float]) -> dict[str, float]:
    if isinstance(found, Mapping):
        return dict(found)
    if not isinstance(found, (Report, Trace)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            "Expected a report, a trace, or milliseconds by name. "
            f"Got an object of {type(found).__name__}."
        )
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
    """Shorten a name in its middle: the end of a path tells more than its beginning."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST // 4]}…{name[-3 * _LONGEST // 4 + 1 :]}"


def _short(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 99.5 else f"{ms:.2g}"
