"""The demo's pictures: accuracy against parameters, and what adapting changed."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ... import plot
from ..digits.data import load_split
from ..pages import legend, page
from .adapting import Adapted, mean, mirrored
from .settings import Settings

_LORA, _FULL, _LAST = "#0072b2", "#d55e00", "#000000"
_MARKS = {"full fine-tuning": (_FULL, "s"), "last layer": (_LAST, "^")}
_LOOKS = ("#d55e00", "#000000", "#009e73", "#56b4e9", "#0072b2")
_MOST_SHOWN = 32
_EXAMPLES = 10


def draw_pictures(results: Sequence[Adapted], settings: Settings) -> dict[str, Figure]:
    """Return all pictures by the names of their files."""
    return {
        "lora-digits.png": digits(settings),
        "lora-accuracy.png": accuracy(results),
        "lora-change.png": change(results),
    }


def digits(settings: Settings) -> Figure:
    """Return a digit of each class as it is, and mirrored."""
    training, _ = load_split(settings.seed)
    figure = Figure(figsize=(9.5, 2.2), layout="constrained")
    rows = figure.subplots(2, _EXAMPLES, squeeze=False)
    for number in range(_EXAMPLES):
        first = int((training.labels == number).nonzero()[0])
        image = training.images[:, first]
        for row, shown in zip(rows, (image, mirrored(image)), strict=True):
            row[number].imshow(shown.tolist(), cmap="gray_r")
            row[number].set(xticks=[], yticks=[])
    rows[0][0].set_ylabel("as it is")
    rows[1][0].set_ylabel("mirrored")
    return figure


def accuracy(results: Sequence[Adapted]) -> Figure:
    """Return accuracy on both kinds of digits, against the parameters trained."""
    figure, axes = page(2, height=4.6, share=True)
    base, *others = results
    for ax, kind in zip(axes, ("mirrored", "plain"), strict=True):
        _draw(ax, [r for r in others if r.way and r.way.rank], kind, (_LORA, "o"))
        for result in others:
            if result.way and not result.way.rank:
                _draw(ax, [result], kind, _MARKS[result.way.label])
        plot.reference(ax, 100 * mean(getattr(base, kind)), "not adapted")
        ax.set(xlabel="parameters trained", xscale="log")
        ax.set(xlim=(300, 60_000), ylim=(0, 109), yticks=range(0, 101, 20))
        ax.grid(alpha=0.3)
    axes[0].set(title="mirrored digits", ylabel="test accuracy (%)")
    axes[1].set(title="digits as they are, afterwards (lora: adapters off)")
    legend(figure, axes[0])
    return figure


def _draw(
    ax: Axes, results: Sequence[Adapted], kind: str, style: tuple[str, str]
) -> None:
    """Draw the means of the runs and their ranges, and name the ranks."""
    (color, marker), (first, *_) = style, results
    assert first.way is not None
    places = [result.parameters for result in results]
    means = [100 * mean(getattr(result, kind)) for result in results]
    name = "lora" if first.way.rank else first.way.label
    ax.plot(places, means, "-", c=color, marker=marker, label=name)
    for result, place in zip(results, places, strict=True):
        runs = [100 * share for share in getattr(result, kind)]
        ax.plot([place, place], [min(runs), max(runs)], "-_", c=color, lw=1)
        if result.way and result.way.rank and kind == "mirrored":
            name = f"rank {result.way.rank}"
            ax.annotate(
                name,
                (place, max(runs)),
                xytext=(-6, 4),
                textcoords="offset points",
                ha="right",
                color=color,
            )


def change(results: Sequence[Adapted]) -> Figure:
    """Return the singular values of what was added to the middle layer's weight."""
    figure, (ax,) = page(1, width=7, height=4.4)
    looks = iter(zip(_LOOKS, "sv^Do", strict=True))
    for result in results:
        if result.way is None or result.way.label == "last layer":
            continue
        count = min(result.way.rank or _MOST_SHOWN, _MOST_SHOWN)
        numbers, values = range(1, count + 1), result.change[:count]
        color, marker = next(looks)
        style = plot.LineStyle(color, "-", marker)
        plot.curve(ax, numbers, values, style, result.way.label)
    ax.set(
        xlabel="number, the largest first",
        ylabel="singular value of the middle layer's change",
        ylim=(0, None),
    )
    legend(figure, ax)
    return figure
