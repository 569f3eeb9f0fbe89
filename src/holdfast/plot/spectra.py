"""Eigenvalues and singular values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .curves import curve
from .styles import FAINT, MARK, STYLES, LineStyle, alone, labelled, whole_steps
from .values import as_many, moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A share of the largest value that an axis shows at least.
_NARROWEST = 0.1
_EXACT = 1e-7  # a rounding of single precision, where there is no other distance


def eigenvalues(
    ax: Axes,
    history: Sequence[Sequence[complex]],
    *,
    first_label: str = "before training",
) -> Axes:
    """Draw eigenvalues over epochs, the first ones hollow, beside the unit circle.

    The last collection of the axes is the one whose colors are the epochs.

    Args:
        ax: where to draw.
        history: the eigenvalues at each moment, numbers or tensors.
        first_label: what the legend calls the first moment.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.eigenvalues(Figure().subplots(), [[1j, -1j], [0.6 + 0.8j, 1]])
        >>> ax.get_legend_handles_labels()[1]
        ['unit circle', 'before training']
    """
    history = moments(history)
    turns = [2 * math.pi * step / 200 for step in range(201)]
    x, y = [math.cos(turn) for turn in turns], [math.sin(turn) for turn in turns]
    ax.plot(x, y, color=FAINT, lw=1, label="unit circle", zorder=1)
    points = [value for values in history for value in values]
    epochs = [epoch for epoch, values in enumerate(history) for _ in values]
    real, imaginary = [z.real for z in points], [z.imag for z in points]
    first = len(history[0]) if history else 0
    ax.scatter(
        real[:first],
        imaginary[:first],
        s=24,
        facecolors="none",
        edgecolors=MARK,
        linewidths=0.8,
        label=first_label,
        zorder=3,
    )
    ax.scatter(real, imaginary, s=7, c=epochs, cmap="viridis_r", zorder=2)
    ax.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    ax.label_outer()
    return ax


def spectrum(
    ax: Axes,
    history: Sequence[Sequence[float]],
    steps: Sequence[float] | None = None,
    style: LineStyle = STYLES[0],
) -> Axes:
    """Draw the singular values of a weight over a training.

    The line is their median, the dark band has half of them, and the light one all.

    Args:
        ax: where to draw.
        history: the singular values at each moment, numbers or tensors.
        steps: the moments; by default 0, 1, ...
        style: how.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> history = [[0.2, 0.9, 1.1, 1.6], [0.9, 1.0, 1.0, 1.1]]
        >>> ax = plot.spectrum(Figure().subplots(), history, steps=[0, 100])
        >>> ax.lines[0].get_ydata().tolist(), ax.get_xlabel()
        ([1.0, 1.0], 'training step')
    """
    history = moments(history)
    places = (
        range(len(history)) if steps is None else as_many(steps, history, "moments")
    )
    cuts = [_five(values) for values in history]
    least, lower, median, upper, most = zip(*cuts, strict=True) if cuts else [()] * 5
    color = style.color
    ax.fill_between(places, least, most, color=color, alpha=0.15, lw=0, label="all")
    ax.fill_between(places, lower, upper, color=color, alpha=0.35, lw=0, label="half")
    dot = alone(median)
    ax.plot(places, median, style.dashes, c=color, lw=2, label="median", **dot)
    _widen(ax, max(most, default=0))
    return labelled(whole_steps(ax), "training step", "singular values")


def _widen(ax: Axes, size: float) -> None:
    """Show what is equal but for roundings as equal, beside readable numbers."""
    low, high = ax.get_ylim()
    if high - low < _NARROWEST * abs(size):
        ax.set_ylim(low - _NARROWEST * abs(size) / 2, high + _NARROWEST * abs(size) / 2)


def _five(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Return the least, the quartiles and the largest."""
    if len(values) == 1:
        return values[0], values[0], values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return min(values), low, median, high, max(values)


def singular_values(
    ax: Axes,
    history: Sequence[Sequence[float]],
    style: LineStyle = STYLES[0],
    label: str | None = None,
) -> Axes:
    """Draw the range of singular values over the epochs, a band with its two edges.

    Several weights fit into one figure; `spectrum` shows more of one.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> history = [[0.2, 1.6], [0.9, 1.1]]
        >>> ax = plot.singular_values(Figure().subplots(), history)
        >>> [line.get_ydata().tolist() for line in ax.lines]
        [[1.6, 1.1], [0.2, 0.9]]
    """
    history = moments(history)
    epochs = range(len(history))
    largest = [max(values) for values in history]
    smallest = [min(values) for values in history]
    ax.fill_between(epochs, smallest, largest, color=style.color, alpha=0.12, lw=0)
    curve(ax, epochs, largest, style, label)
    curve(ax, epochs, smallest, style)
    return labelled(ax, "epoch", "range of singular values")


def deviations(
    ax: Axes,
    history: Sequence[Sequence[float]],
    style: LineStyle = STYLES[0],
    label: str | None = None,
) -> Axes:
    """Draw the largest distance of a singular value from 1, on a logarithmic axis.

    A distance of zero, which such an axis lacks, is drawn below all others.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.deviations(Figure().subplots(), [[0.5, 1.25], [0.75, 1.0]])
        >>> ax.lines[0].get_ydata().tolist()
        [0.5, 0.25]
    """
    history = moments(history)
    largest = [max(abs(value - 1) for value in values) for values in history]
    lowest = min((value for value in largest if value > 0), default=_EXACT) / 10
    largest = [lowest if value == 0 else value for value in largest]
    curve(ax, range(len(history)), largest, style, label)
    ax.set_yscale("log")
    return labelled(ax, "epoch", "largest |singular value − 1|")
