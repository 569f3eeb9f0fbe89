"""The paper that a demo's pictures are drawn on."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plot import LineStyle


def page(
    columns: int, width: float = 9.5, height: float = 4, *, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a row of axes; no window and no global state is involved."""
    figure = Figure(figsize=(width, height), layout="constrained")
    row = figure.subplots(1, columns, squeeze=False, sharex=share, sharey=share)
    return figure, list(row[0])


def styled(
    labels: Iterable[str], *styles: tuple[str, str, str]
) -> dict[str, LineStyle]:
    """Return color, dashes and marker of each thing that is drawn, by its label."""
    pairs = zip(labels, styles, strict=True)
    return {label: LineStyle(*style) for label, style in pairs}


def legend(figure: Figure, ax: Axes, columns: int = 3) -> None:
    """Explain the lines of all axes above them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False
    )
