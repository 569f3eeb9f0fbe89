"""What the demo prints and draws."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..pages import legend, page
from ..running import Outcome, percent, threads_in_words
from .network import Kind
from .settings import Settings
from .training import Run

COLORS = {Kind.ORTHOGONAL: "#0072b2", Kind.FREE: "#d55e00"}
MARKERS = {Kind.ORTHOGONAL: "o", Kind.FREE: "s"}
_HEADINGS = (
    "network",
    "Lipschitz\nconstant",
    "radius",
    "\nproven",
    "under\nattack",
    "refuted\nproofs",
    "\nseconds",
)
_NOTES = """\
Lipschitz constant: at most the product of the layers' spectral norms.
Radius: length of a change of the pixels, which range from 0 to 1.
Proven: share of test images that keep a right answer, by their margin.
Under attack: share for which no wrong answer was found within the radius.
Refuted proofs: wrong answers found where there can be none, of so many attacks."""
_SHOWN = 4  # radii of each network in the table


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    return (
        f"Handwritten digits, 64 pixels: two hidden layers of {settings.hidden}, "
        f"{settings.epochs} epochs,\nthen attacks of {settings.restarts} x "
        f"{settings.steps} steps within {len(settings.radii)} radii. "
        f"Seed {settings.seed}, {threads_in_words(settings.threads)}."
    )


def outcome(runs: Sequence[Run]) -> Outcome:
    """Return the table and the picture."""
    rows = [row for run in runs for row in figures(run)]
    return Outcome(_HEADINGS, rows, _NOTES, {"lipschitz-accuracy.png": accuracy(runs)})


def figures(run: Run) -> list[tuple[str, ...]]:
    """Return the table's rows of one network, the first of which has the constants."""
    found = run.findings
    every = -(-len(found.radii) // _SHOWN)
    rows = [
        (f"{radius:g}", percent(certified), percent(attacked))
        for radius, certified, attacked in zip(
            found.radii, found.certified, found.attacked, strict=True
        )
    ][::every]
    first = (run.kind.value, f"{run.bound:.3f}", *rows[0])
    last = (f"{found.violations} of {found.proofs}", f"{run.seconds:.1f}")
    return [(*first, *last), *(("", "", *row, "", "") for row in rows[1:])]


def accuracy(runs: Sequence[Run]) -> Figure:
    """Return proven and attacked accuracy over the radius."""
    figure, (ax,) = page(1, width=7.5, height=4.4)
    for run in runs:
        found, color, marker = run.findings, COLORS[run.kind], MARKERS[run.kind]
        proven = [100 * share for share in found.certified]
        attacked = [100 * share for share in found.attacked]
        ax.plot(
            found.radii,
            attacked,
            "--",
            c=color,
            marker=marker,
            mfc="none",
            ms=9,  # around those of what is proven, if that is the same
            label=f"{run.kind.value}, under attack",
        )
        ax.plot(
            found.radii,
            proven,
            "-",
            c=color,
            marker=marker,
            label=f"{run.kind.value}, proven",
        )
        ax.fill_between(found.radii, proven, attacked, color=color, alpha=0.12, lw=0)
    ax.set(
        xlabel="length of the change of an image (pixels range from 0 to 1)",
        ylabel="test images answered rightly (%)",
        ylim=(-2, 102),
        xlim=(0, None),
    )
    ax.grid(alpha=0.3)
    legend(figure, ax, columns=2)
    return figure
