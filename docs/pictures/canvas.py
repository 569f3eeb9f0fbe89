"""What the pictures share: the page, the colors, heat maps and the complex plane.

The colors are Okabe and Ito's, and a map from blue over white to red, which color-blind
readers can tell apart; markers and dashes differ too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

BLUE, ORANGE, GREEN, BLACK, FAINT = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#000000",
    "#767676",
)


@dataclass(frozen=True)
class Mark:
    """How one of several things is drawn in a picture."""

    color: str
    marker: str
    dashes: str = "-"


FIRST, SECOND = Mark(BLUE, "o"), Mark(ORANGE, "^", "--")
THIRD, BEFORE = Mark(GREEN, "s", "-."), Mark(FAINT, "x", ":")


def page(
    claim: str, columns: int, rows: int = 1, *, width: float = 7.5, height: float = 3.9
) -> tuple[Figure, list[Axes]]:
    """Return a figure under its claim, and its axes row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(claim, fontsize=12, fontweight="bold")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def legend(figure: Figure, *axes: Axes, columns: int = 3) -> None:
    """Explain what the axes show below them, each thing once."""
    found = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    place = "outside lower center"
    figure.legend(found.values(), found, loc=place, ncols=columns, frameon=False)


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    """Return random originals."""
    return scale * torch.randn(shape, dtype=torch.float64)


def points(ax: Axes, X: Tensor, mark: Mark, label: str, size: float = 16) -> None:
    """Draw points of the plane: complex numbers, or pairs."""
    pairs = torch.view_as_real(X) if X.is_complex() else X
    x, y = pairs.reshape(-1, 2).T.tolist()
    style = {"edgecolors": mark.color, "facecolors": "none"}
    if mark.marker == "x":  # has no inside
        style = {"c": mark.color}
    ax.scatter(x, y, s=size, marker=mark.marker, lw=0.9, label=label, **style)


def line(ax: Axes, x: Tensor, y: Tensor, mark: Mark, label: str) -> None:
    """Draw a curve."""
    ax.plot(x.tolist(), y.tolist(), mark.dashes, c=mark.color, lw=2, label=label)


def values(ax: Axes, s: Tensor, mark: Mark, label: str, *, size: float = 5) -> None:
    """Draw singular values in their order, counted from 1."""
    order = range(1, len(s) + 1)
    style = {"marker": mark.marker, "ms": size, "mfc": "none", "lw": 1}
    ax.plot(order, s.tolist(), mark.dashes, c=mark.color, label=label, **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="number of the singular value", ylabel="singular value")


def circle(ax: Axes, radius: float = 1.0, label: str | None = None) -> None:
    """Draw a circle around the origin."""
    x, y = ((radius * f(turns())).tolist() for f in (torch.cos, torch.sin))
    ax.plot(x, y, c=FAINT, lw=1.2, label=label, zorder=1)


def plane(ax: Axes, reach: float) -> None:
    """Make the axes those of the complex plane."""
    limits = (-reach, reach)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.set(xlabel="real part", ylabel="imaginary part")
    ax.axhline(0, color=FAINT, lw=0.5, zorder=0)
    ax.axvline(0, color=FAINT, lw=0.5, zorder=0)


def heat_map(ax: Axes, X: Tensor, title: str, limit: float) -> None:
    """Draw a matrix in colors from -limit over white to limit."""
    ax.imshow(X.tolist(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])


def scale(figure: Figure, ax: Axes, axes: list[Axes], label: str) -> None:
    """Draw the scale of a heat map beside all axes."""
    figure.colorbar(ax.images[0], ax=axes, label=label, shrink=0.8)


def turns(count: int = 400) -> Tensor:
    """Return angles around the circle."""
    return torch.linspace(0, 2 * math.pi, count, dtype=torch.float64)
