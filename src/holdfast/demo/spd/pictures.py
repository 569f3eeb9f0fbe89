"""The demo's pictures: ellipses, and the way to the optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ... import plot
from ..pages import legend, page, styled
from .fitting import WAYS, Fit, Wines, random_start, smallest_eigenvalue
from .settings import Settings

STYLES = styled(
    (way.label for way in WAYS),
    ("#0072b2", "-", "o"),
    ("#56b4e9", "-", "s"),
    ("#009e73", "-", "D"),
    ("#e69f00", "--", "v"),
    ("#d55e00", "--", "^"),
)
_WINES = (("#0072b2", "o"), ("#d55e00", "^"), ("#000000", "s"))
_LOST = "definite up to here"
_ROUNDING = 1e-14  # what is left of a difference of likelihoods
_RADIUS = 2.0  # of the ellipses, in standard deviations
_DRAWN = ("start", "the samples' own", "trained")
_NAMES = tuple(f"{name}, {_RADIUS:g} σ" for name in _DRAWN)


def draw_pictures(
    fits: Sequence[Fit], wines: Wines, settings: Settings
) -> dict[str, Figure]:
    """Return all pictures by the names of their files."""
    return {
        "spd-ellipses.png": ellipses(fits, wines, random_start(settings.seed)),
        "spd-training.png": training(fits, wines),
    }


def best_of(fits: Sequence[Fit], label: str) -> Fit:
    """Return a way's fit that stayed definite and came nearest, or lasted longest."""
    there = [fit for fit in fits if fit.way.label == label]
    return min(
        there,
        key=lambda fit: (
            fit.lost is not None,
            fit.excess[-1] if fit.lost is None else -fit.lost,
        ),
    )


def ellipses(fits: Sequence[Fit], wines: Wines, start: Tensor) -> Figure:
    """Return the wines and their ellipses, held definite and not."""
    figure, axes = page(2, height=5.3, share=True)
    plane = main_plane(wines)
    for ax, label in zip(axes, (WAYS[0].label, WAYS[-1].label), strict=True):
        shown = best_of(fits, label)
        for wine, (color, marker) in enumerate(_WINES):
            X = wines.of(wine) @ plane
            name = f"wine {wine + 1}"
            ax.scatter(*X.T, s=12, c=color, marker=marker, alpha=0.5, label=name)
        for wine, (color, _) in enumerate(_WINES):
            middle = wines.means[wine] @ plane
            first, best, last = (
                (middle + ellipse(covariances[wine], plane)).T
                for covariances in (start, wines.covariances, shown.covariances)
            )
            names = (None,) * 3 if wine else _NAMES
            ax.plot(*first, ":", c=color, lw=1, label=names[0])
            ax.plot(*best, c=color, lw=8, alpha=0.2, label=names[1])
            ax.plot(*last, c=color, lw=1.5, label=names[2])
        end = f"after {len(shown.excess) - 1} steps"
        if shown.lost is not None:
            end = f"after step {shown.lost - 1}, the last one with definite matrices"
        title = f"{label}, learning rate {shown.rate:g}:\n{end}"
        ax.set(title=title, xlabel="first principal component", aspect="equal")
    axes[0].set_ylabel("second principal component")
    legend(figure, axes[0])
    return figure


def main_plane(wines: Wines) -> Tensor:
    """Return the first two principal components of all wines, ``(13, 2)``."""
    X = wines.measurements - wines.measurements.mean(0)
    return torch.linalg.svd(X, full_matrices=False).Vh[:2].T


def ellipse(covariance: Tensor, plane: Tensor) -> Tensor:
    """Return the points of the plane that are so many standard deviations away."""
    turns = torch.linspace(0, 2 * math.pi, 201).to(covariance)
    circle = torch.stack([turns.cos(), turns.sin()], 1)
    symmetric = (covariance + covariance.T) / 2
    L = torch.linalg.cholesky(plane.T @ symmetric @ plane)
    return _RADIUS * circle @ L.T


def training(fits: Sequence[Fit], wines: Wines) -> Figure:
    """Return likelihood and smallest eigenvalue over the steps."""
    figure, (excess, smallest) = page(2, height=4.6)
    for way in WAYS:
        shown = best_of(fits, way.label)
        style, label = STYLES[way.label], f"{way.label}, rate {shown.rate:g}"
        for ax, values in ((excess, shown.excess), (smallest, shown.smallest)):
            ax.semilogy(values, style.dashes, c=style.color, label=label)
            if shown.lost is not None:
                (mark,) = ax.plot(len(values) - 1, values[-1], "X", label=_LOST)
                mark.set(color=style.color, markeredgecolor="black", markersize=10)
            ax.grid(alpha=0.3)
            ax.set_xlabel("optimizer step")
    bound = smallest_eigenvalue(wines.covariances)
    plot.reference(smallest, bound, "optimum")
    # below it there is nothing but rounding
    excess.set_ylim(bottom=max(_ROUNDING, excess.get_ylim()[0]))
    excess.set_ylabel("negative log-likelihood above the optimum (nats)")
    smallest.set(ylabel="smallest eigenvalue", ylim=(1e-3, 1))
    legend(figure, excess)
    return figure
