"""The paper that a demo's pictures are drawn on."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def page(
    columns: int, width: float = 9.5, height: float = 4, *, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a row of axes; no window and no global state is involved."""
    figure = Figure(figsize=(width, height), layout="constrained")
    row = figure.subplots(1, columns, squeeze=False, sharex=share, sharey=share)
    return figure, list(row[0])


def legend(figure: Figure, ax: Axes, columns: int = 3) -> None:
    """Explain the lines of all axes above them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False
    )
