"""The demo's pictures: accuracy against zeros, how these rose, and the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ... import plot
from ..pages import legend, page, styled
from .pruning import ANYWHERE, PATTERNS, SCHEDULED, WAYS, Pattern, Pruned

STYLES = styled(
    (way.label for way in WAYS),
    ("#d55e00", ":", "v"),
    ("#e69f00", "--", "^"),
    ("#56b4e9", "-", "s"),
    ("#0072b2", "-", "o"),
    ("#000000", "-.", "D"),
)
_DRAWN = Pattern(2, 8)  # the pattern of the weights that are drawn
_ROWS = 24


def draw_pictures(results: Sequence[Pruned]) -> dict[str, Figure]:
    """Return all pictures by the names of their files."""
    return {
        "prune-accuracy.png": accuracy(results),
        "prune-weights.png": weights(results),
    }


def accuracy(results: Sequence[Pruned]) -> Figure:
    """Return accuracy against the share of zeros, and how that share rose."""
    figure, (reached, rise) = page(2, height=4.8)
    for way in WAYS:
        _draw_accuracy(reached, [r for r in results if r.way == way.label])
    plot.reference(reached, 100 * results[0].accuracy, "dense", below=True)
    names = [f"{pattern}\n{100 * pattern.sparsity:g} %" for pattern in PATTERNS]
    reached.set_xticks(range(len(PATTERNS)), names)
    reached.set(xlabel="pattern, share of zeros", ylabel="test accuracy (%)")
    for result in results:
        if result.way == SCHEDULED:
            percents = [100 * share for share in result.sparsities]
            rise.plot(percents, c=STYLES[SCHEDULED].color)
            end = (len(percents), percents[-1] + 0.5)
            rise.annotate(str(result.pattern), end, ha="right", va="bottom")
    rise.set(xlabel="optimizer step", ylabel=f"zeros (%): {SCHEDULED}", ylim=(0, 101))
    for ax in (reached, rise):
        ax.grid(alpha=0.3)
    legend(figure, reached)
    return figure


def _draw_accuracy(ax: Axes, there: Sequence[Pruned]) -> None:
    """Draw one way's mean over the runs, and their range."""
    means, places = [100 * result.accuracy for result in there], range(len(there))
    style, name = STYLES[there[0].way], there[0].way
    ax.plot(places, means, style.dashes, c=style.color, marker=style.marker, label=name)
    for place, result in zip(places, there, strict=True):
        ends = [100 * min(result.accuracies), 100 * max(result.accuracies)]
        ax.plot([place, place], ends, "-_", c=style.color, lw=1)


def weights(results: Sequence[Pruned]) -> Figure:
    """Return the first layer's weights: dense, with zeros in groups, and anywhere."""
    shown = [
        results[0],
        *(r for r in results if r.pattern == _DRAWN and r.way in (SCHEDULED, ANYWHERE)),
    ]
    figure, axes = page(len(shown), width=11, height=3.1, share=True)
    for ax, result in zip(axes, shown, strict=True):
        W = result.weight[:_ROWS]
        rows = W.where(W != 0, torch.nan).tolist()
        ax.imshow(rows, cmap="PuOr", vmin=-0.5, vmax=0.5, aspect="auto")
        ax.set_facecolor("white")
        for column in range(_DRAWN.m, len(rows[0]), _DRAWN.m):
            ax.axvline(column - 0.5, color="#767676", lw=0.6)
        zeros = f"{100 * (W == 0).double().mean().item():.0f} % zeros"
        ax.set(title=f"{result.way}: {zeros}", xlabel="input (pixel)")
    axes[0].set_ylabel("hidden unit")
    figure.colorbar(
        axes[0].images[0], ax=axes, label="weight (white: zero)", extend="both"
    )
    return figure
