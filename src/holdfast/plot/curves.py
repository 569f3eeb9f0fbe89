"""Values over the steps of a training or of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .styles import FAINT, STYLES, LineStyle, alone, labelled, whole_steps
from .values import as_many, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..reporting.watching import Residual

# A residual of zero has no place on a logarithmic axis: so far below the tolerance.
_LOWEST = 1e-4
_APART = 6  # tensors with lines of their own


def curve(
    ax: Axes,
    epochs: Sequence[float],
    values: Sequence[float],
    style: LineStyle = STYLES[0],
    label: str | None = None,
) -> Axes:
    """Draw a value per epoch, or per step.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.curve(Figure().subplots(), [0, 1, 2], [0.9, 0.4, 0.3])
        >>> ax.lines[0].get_ydata().tolist()
        [0.9, 0.4, 0.3]
    """
    values = numbers(values)
    ax.plot(
        as_many(epochs, values, "values"),
        values,
        style.dashes,
        c=style.color,
        marker=style.marker,
        ms=4,
        label=label,
    )
    return whole_steps(ax)


def reference(ax: Axes, value: float, label: str, *, below: bool = False) -> Axes:
    """Mark a value that others are compared with.

    Args:
        ax: where to draw.
        value: the value, on the vertical axis.
        label: what it is, written at the right end.
        below: write it below the line, where something else is above.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> plot.reference(Figure().subplots(), 0.1, "guessing").texts[0].get_text()
        'guessing'
    """
    ax.axhline(value, color=FAINT, lw=1, ls=":")
    ax.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -3 if below else 3),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        color=FAINT,
    )
    return ax


def span(ax: Axes, first: float, last: float, label: str) -> Axes:
    """Shade a range of the horizontal axis.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> plot.span(Figure().subplots(), 1, 8, "image").texts[0].get_text()
        'image'
    """
    ax.axvspan(first, last, color=FAINT, alpha=0.2, lw=0)
    ax.annotate(
        label,
        (last, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=FAINT,
    )
    return ax


def gradient_norms(
    ax: Axes,
    norms: Sequence[float],
    style: LineStyle = STYLES[0],
    label: str | None = None,
) -> Axes:
    """Draw the norm of the gradient at each step of a sequence, on a logarithmic axis.

    Steps count from 1; a norm of zero is left out. Where the line falls to the left,
    the gradient vanishes on its way back through time; where it rises, it explodes.

    Args:
        ax: where to draw.
        norms: one for each step, as of the gradient by the hidden state.
        style: how.
        label: for the legend.

    Example:
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> ax = plot.gradient_norms(Figure().subplots(), [1e-6, 1e-3, 1.0])
        >>> ax.get_yscale(), ax.get_xlabel()
        ('log', 'step t of the sequence')
    """
    norms = numbers(norms)
    steps = range(1, len(norms) + 1)
    shown = [norm if norm > 0 else math.nan for norm in norms]
    ax.plot(
        steps, shown, style.dashes, c=style.color, lw=2, label=label, **alone(shown)
    )
    ax.set_yscale("log")
    return labelled(whole_steps(ax), "step t of the sequence", "norm of the gradient")


def residuals(
    ax: Axes, steps: Sequence[float], history: Sequence[Mapping[str, Residual]]
) -> Axes:
    """Draw the residuals of a training, and the tolerances that they are held against.

    The worst tensors have lines of their own, all others are faint. What is above its
    tolerance lies outside its set, and is marked by a cross; what is not finite has
    its cross at the upper edge. A residual of zero is drawn far below all tolerances.

    Args:
        ax: where to draw.
        steps: when `holdfast.residuals` was asked.
        history: what it said, each time.

    Raises:
        ValueError: there are more of one than of the other.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import plot
        >>> from matplotlib.figure import Figure
        >>> model = torch.nn.Sequential(holdfast.orthogonal(torch.nn.Linear(4, 4)))
        >>> history = [holdfast.residuals(model) for step in (0, 50)]
        >>> ax = plot.residuals(Figure().subplots(), [0, 50], history)
        >>> ax.get_xlabel(), ax.get_ylabel(), ax.lines[0].get_label()
        ('training step', 'residual (relative)', '0.weight')
    """
    steps = as_many(steps, history, "residuals")
    paths = dict.fromkeys(path for found in history for path in found)
    known = [each for found in history for each in found.values()]
    tolerances = sorted({e.tolerance for e in known if e.tolerance is not None})
    lowest = _LOWEST * (tolerances[0] if tolerances else 1e-6)
    ax.set_yscale("log")
    ordered = sorted(paths, key=lambda path: -_worst(history, path))
    for number, path in enumerate(ordered):
        found = [each.get(path) for each in history]
        _residual(ax, steps, found, path, number, lowest)
    for limit in tolerances[:-1]:
        ax.axhline(limit, color=FAINT, lw=1, ls=":")
    if tolerances:
        several = f"s {tolerances[0]:.1e} .." if len(tolerances) > 1 else ""
        reference(ax, tolerances[-1], f"tolerance{several} {tolerances[-1]:.1e}")
    if not any(math.isfinite(each.value) for each in known):
        edges = [(0, lowest), (0, lowest / _LOWEST**2)]
        ax.update_datalim(edges, updatex=False)  # no value gives a range
    return labelled(whole_steps(ax), "training step", "residual (relative)")


def _worst(history: Sequence[Mapping[str, Residual]], path: str) -> float:
    """Return the largest residual over its tolerance."""
    ratios = [
        each.value / (each.tolerance or 1)
        for each in (found[path] for found in history if path in found)
    ]
    return max(
        (math.inf if math.isnan(ratio) else ratio for ratio in ratios), default=0
    )


def _residual(
    ax: Axes,
    steps: Sequence[float],
    found: Sequence[Residual | None],
    path: str,
    number: int,
    lowest: float,
) -> None:
    """Draw the residuals of one tensor, the worst ones with lines of their own."""
    shown = [math.nan if each is None else max(each.value, lowest) for each in found]
    style = STYLES[number] if number < _APART else LineStyle(FAINT, "-", "x")
    judged = any(each is not None and each.tolerance is not None for each in found)
    label = path if judged else f"{path} (estimate)"
    if number < _APART:
        dot = alone(shown)
        ax.plot(steps, shown, style.dashes, c=style.color, lw=1.6, label=label, **dot)
    else:
        label = "others" if number == _APART else None
        faint: dict[str, Any] = {"lw": 0.8, "alpha": 0.6, "zorder": 1, **alone(shown)}
        ax.plot(steps, shown, color=FAINT, label=label, **faint)
    outside, lost = list[tuple[float, float]](), list[tuple[float, float]]()
    for step, value, each in zip(steps, shown, found, strict=True):
        if each is not None and not math.isfinite(each.value):
            lost.append((step, 1.0))  # of the height of the axes
        elif each is not None and not each.holds:
            outside.append((step, value))
    places = (outside, ax.transData, True), (lost, ax.get_xaxis_transform(), False)
    for points, transform, clip in places:
        if points:
            x, y = zip(*points, strict=True)
            look: dict[str, Any] = {"color": style.color, "ms": 7, "mew": 2}
            ax.plot(x, y, "x", transform=transform, clip_on=clip, **look)
