"""What the demo prints and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plot import LineStyle
from ..pages import legend, page
from ..running import Outcome, percent, threads_in_words
from .network import Kind
from .settings import Settings
from .task import LETTERS, SYMBOLS, baseline
from .training import Run

STYLES = {
    Kind.ORTHOGONAL: LineStyle("#0072b2", "-", "o"),
    Kind.TANH: LineStyle("#d55e00", "--", "s"),
    Kind.LSTM: LineStyle("#000000", "-.", "^"),
}
_HEADINGS = ("network", "T", "cross\nentropy", "\nbaseline", "\nrecall", "\nseconds")
_NOTES = f"""\
Cross entropy: nats per step, of {SYMBOLS} letters recalled and T + {SYMBOLS} blanks.
Baseline: that of guessing one of {LETTERS} letters when it is time, {SYMBOLS} ln \
{LETTERS} / (T + {2 * SYMBOLS}).
Recall: share of the letters that are right; {1 / LETTERS:.1%} is guessing.
Both are of new sequences. The networks have equally many recurrent weights."""


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    lengths = ", ".join(map(str, settings.lengths))
    return (
        f"Copying memory: {SYMBOLS} symbols, T = {lengths} steps, then the symbols "
        "again.\n"
        f"{settings.hidden} hidden units, {settings.updates} updates of "
        f"{settings.batch} sequences, seed {settings.seed}, "
        f"{threads_in_words(settings.threads)}."
    )


def outcome(runs: Sequence[Run]) -> Outcome:
    """Return the table and the pictures."""
    rows = [(run.kind.value, *figures(run)) for run in runs]
    pictures = {"copying-loss.png": losses(runs), "copying-recall.png": recalls(runs)}
    return Outcome(_HEADINGS, rows, _NOTES, pictures)


def figures(run: Run) -> tuple[str, ...]:
    """Return the table's figures of one run."""
    return (
        str(run.length),
        f"{run.loss:.5f}",
        f"{baseline(run.length):.5f}",
        percent(run.recall),
        f"{run.seconds:.1f}",
    )


def losses(runs: Sequence[Run]) -> Figure:
    """Return the cross entropy of every new batch, and where guessing stands."""

    def draw(ax: Axes, length: int) -> None:
        _guessing(ax, baseline(length), below=True)
        ax.set_yscale("log")

    figure, axes = _curves(runs, lambda run: run.losses, draw)
    axes[0].set_ylabel("cross entropy (nats per step)")
    return figure


def recalls(runs: Sequence[Run]) -> Figure:
    """Return the share of letters that are right in every new batch."""

    def draw(ax: Axes, _: int) -> None:
        _guessing(ax, 100 / LETTERS, below=False)

    figure, axes = _curves(
        runs, lambda run: [100 * share for share in run.recalls], draw
    )
    axes[0].set(ylabel="letters recalled (%)", ylim=(-2, 102))
    return figure


def _curves(
    runs: Sequence[Run],
    values: Callable[[Run], Sequence[float]],
    draw: Callable[[Axes, int], None],
) -> tuple[Figure, list[Axes]]:
    """Return a page with axes per length, and a line per network in each."""
    lengths = list(dict.fromkeys(run.length for run in runs))
    width = 3.4 * max(2, len(lengths))
    figure, axes = page(len(lengths), width, height=3.6, share=True)
    for ax, length in zip(axes, lengths, strict=True):
        for run in runs:
            if run.length == length:
                style = STYLES[run.kind]
                updates = range(1, len(run.losses) + 1)
                ax.plot(
                    updates,
                    values(run),
                    style.dashes,
                    c=style.color,
                    label=run.kind.value,
                )
        draw(ax, length)
        ax.grid(alpha=0.3)
        ax.set(title=f"T = {length}", xlabel="updates")
    legend(figure, axes[0])
    return figure, axes


def _guessing(ax: Axes, value: float, *, below: bool) -> None:
    """Mark what guessing gives, with its name where no line passes."""
    ax.axhline(value, color="#767676", lw=1.2, ls=":")
    ax.annotate(
        "guessing the letters",
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -5 if below else 5),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        color="#767676",
    )
