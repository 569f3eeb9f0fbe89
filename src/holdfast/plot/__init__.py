"""Figures, drawn onto axes that the caller owns; nothing is shown or saved here.

The colors are Okabe and Ito's and viridis, which color-blind readers can tell apart;
lines also differ in dashes and markers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAINT, _MARK = "#767676", "#d55e00"


@dataclass(frozen=True)
class LineStyle:
    """How one of several things is drawn in all figures."""

    color: str
    dashes: str
    marker: str


def curve(
    ax: Axes,
    epochs: Sequence[int],
    values: Sequence[float],
    style: LineStyle,
    label: str | None,
) -> Axes:
    """Draw a value per epoch."""
    from matplotlib.ticker import MaxNLocator

    ax.plot(
        epochs,
        values,
        style.dashes,
        c=style.color,
        marker=style.marker,
        ms=4,
        label=label,
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    return ax


def reference(ax: Axes, value: float, label: str) -> Axes:
    """Mark a value that others are compared with."""
    ax.axhline(value, color=_FAINT, lw=1, ls=":")
    ax.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        color=_FAINT,
    )
    return ax


def span(ax: Axes, first: float, last: float, label: str) -> Axes:
    """Shade a range of the horizontal axis."""
    ax.axvspan(first, last, color=_FAINT, alpha=0.2, lw=0)
    ax.annotate(
        label,
        (last, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=_FAINT,
    )
    return ax


def sequence(ax: Axes, steps: Sequence[Sequence[float]], signal: int) -> Axes:
    """Draw a sequence with a step per column, and where its signal ends."""
    columns = list(zip(*steps, strict=True))
    extent = (0.5, len(steps) + 0.5, len(columns) + 0.5, 0.5)
    ax.imshow(columns, cmap="gray_r", extent=extent, aspect="auto")
    ax.axvline(signal + 0.5, color=_MARK, lw=2)
    return ax


def eigenvalues(ax: Axes, history: Sequence[Sequence[complex]]) -> Axes:
    """Draw eigenvalues over epochs, the first ones hollow, beside the unit circle.

    The last collection of the axes is the one whose colors are the epochs.
    """
    turns = [2 * math.pi * step / 200 for step in range(201)]
    x, y = [math.cos(turn) for turn in turns], [math.sin(turn) for turn in turns]
    ax.plot(x, y, color=_FAINT, lw=1, label="unit circle", zorder=1)
    points = [value for values in history for value in values]
    epochs = [epoch for epoch, values in enumerate(history) for _ in values]
    real, imaginary = [z.real for z in points], [z.imag for z in points]
    first = len(history[0])
    ax.scatter(
        real[:first],
        imaginary[:first],
        s=24,
        facecolors="none",
        edgecolors=_MARK,
        linewidths=0.8,
        label="before training",
        zorder=3,
    )
    ax.scatter(real, imaginary, s=7, c=epochs, cmap="viridis_r", zorder=2)
    ax.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    ax.label_outer()
    return ax


def singular_values(
    ax: Axes, history: Sequence[Sequence[float]], style: LineStyle, label: str
) -> Axes:
    """Draw the range of singular values over the epochs, a band with its two edges."""
    epochs = range(len(history))
    largest = [max(values) for values in history]
    smallest = [min(values) for values in history]
    ax.fill_between(epochs, smallest, largest, color=style.color, alpha=0.12, lw=0)
    curve(ax, epochs, largest, style, label)
    return curve(ax, epochs, smallest, style, None)


def deviations(
    ax: Axes, history: Sequence[Sequence[float]], style: LineStyle, label: str
) -> Axes:
    """Draw the largest distance of a singular value from 1, on a logarithmic axis."""
    largest = [max(abs(value - 1) for value in values) for values in history]
    curve(ax, range(len(history)), largest, style, label)
    ax.set_yscale("log")
    return ax


def gradient_norms(
    ax: Axes, norms: Sequence[float], style: LineStyle, label: str
) -> Axes:
    """Draw a norm per step, steps counted from 1, on a logarithmic axis."""
    steps = range(1, len(norms) + 1)
    shown = [norm if norm > 0 else float("nan") for norm in norms]
    ax.plot(steps, shown, style.dashes, c=style.color, lw=2, label=label)
    ax.set_yscale("log")
    ax.grid(alpha=0.3)
    return ax
