"""The demo's pictures: the races, and what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..pages import legend, page, styled
from .problems import Problem
from .race import TOLERANCE, WAYS, Race

STYLES = styled(
    (way.label for way in WAYS),
    ("#0072b2", "-", "o"),
    ("#56b4e9", "-", "s"),
    ("#d55e00", "--", "^"),
    ("#e69f00", "--", "v"),
    ("#000000", "-.", "D"),
    ("#767676", ":", "P"),
)
_MOST_SHOWN = 16


def draw_pictures(races: Sequence[Race]) -> dict[str, Figure]:
    """Return all pictures by the names of their files."""
    return {
        "stiefel-time.png": times(races),
        "stiefel-components.png": components(races[0]),
    }


def times(races: Sequence[Race]) -> Figure:
    """Return what is left of the way to the optimum, over the time."""
    problems = list(dict.fromkeys(race.problem.name for race in races))
    figure, axes = page(len(problems), height=4.6, share=True)
    for race in races:
        ax = axes[problems.index(race.problem.name)]
        style = STYLES[race.way.label]
        ax.loglog(
            race.seconds,
            race.shares,
            style.dashes,
            c=style.color,
            marker=style.marker,
            markevery=[len(race.shares) - 1],
            label=race.way.label,
        )
    for ax, problem in zip(axes, problems, strict=True):
        ax.axhline(TOLERANCE, color="#767676", lw=1, ls=":", label="tolerance")
        ax.set(title=problem, xlabel="seconds since the first step")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("share of the way to the optimum that is left")
    legend(figure, axes[0])
    return figure


def components(race: Race) -> Figure:
    """Return the components that were trained below those that `eigh` finds."""
    best, found = race.problem.best, aligned(race.weight, race.problem)
    count = min(_MOST_SHOWN, best.shape[1])
    pixels = math.isqrt(len(best))
    figure = Figure(figsize=(9.5, 1.8), layout="constrained")
    rows = figure.subplots(2, count, squeeze=False)
    for axes, W, label in zip(rows, (best, found), ("eigh", "trained"), strict=True):
        axes[0].set_ylabel(label)
        for i, ax in enumerate(axes):
            limit = W[:, i].abs().max().item()
            picture = W[:, i].reshape(pixels, pixels).tolist()
            ax.imshow(picture, cmap="gray", vmin=-limit, vmax=limit)
            ax.set(xticks=[], yticks=[])
    for i, ax in enumerate(rows[1]):
        ax.set_xlabel(f"{i + 1}")
    figure.suptitle(
        f"Principal components of {pixels} x {pixels} pixels; largest angle between "
        f"the two subspaces: {angle(best, race.weight):.2f}°",
        fontsize="medium",
    )
    return figure


def aligned(W: Tensor, problem: Problem) -> Tensor:
    """Return the basis of the span of W that is nearest to the best matrix.

    The loss depends on the span alone, so that training stops at any basis of it.
    """
    U, _, Vh = torch.linalg.svd(W.T @ problem.best)
    return W @ U @ Vh


def angle(V: Tensor, W: Tensor) -> float:
    """Return the largest principal angle between two subspaces, in degrees."""
    sine = torch.linalg.matrix_norm(V - W @ (W.T @ V), 2).item()
    return math.degrees(math.asin(min(1.0, sine)))
