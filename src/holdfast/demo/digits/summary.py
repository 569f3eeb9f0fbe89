"""What the demo prints: what it is about, and one table."""

from __future__ import annotations

from collections.abc import Sequence

from ..running import Outcome, percent, threads_in_words
from .data import CHANCE
from .pictures import draw_pictures
from .settings import Settings
from .training import Run

_HEADINGS = (
    "recurrent kernel",
    "test\naccuracy",
    "residual\nbefore",
    "residual\nafter",
    "gradient\nat first",
    "gradient\nat last",
    "\nseconds",
)
_NOTES = f"""\
All share data, noise, seed, optimizer and budget; only the kernel differs:
  ordinary start    as torch starts every linear layer
  orthogonal start  the same, made orthogonal once, then trained freely
  orthogonal        the same, and kept so: holdfast.orthogonal(layer, "weight")
Test accuracy: {CHANCE:.0%} is guessing.
Residual: distance from the orthogonal matrices, before and after training.
Gradient: norm of dloss/dh at the first and the last step, after training."""


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    noisy = settings.steps > settings.image_steps
    noise = f", then noise up to step {settings.steps}" if noisy else ""
    return (
        f"Handwritten digits, 8 x 8 pixels: {settings.pixels} per step{noise},\n"
        "and only then the answer. "
        f"{settings.hidden} hidden units, {settings.epochs} epochs, "
        f"seed {settings.seed}, {threads_in_words(settings.threads)}."
    )


def outcome(runs: Sequence[Run], settings: Settings) -> Outcome:
    """Return the table and the pictures."""
    rows = [(run.kernel.value.replace(", ", ",\n"), *figures(run)) for run in runs]
    return Outcome(_HEADINGS, rows, _NOTES, draw_pictures(runs, settings))


def figures(run: Run) -> tuple[str, ...]:
    """Return the table's figures of one run."""
    return (
        percent(run.accuracy),
        f"{run.before.residual:.1e}",
        f"{run.after.residual:.1e}",
        f"{run.after.gradient_norms[0]:.1e}",
        f"{run.after.gradient_norms[-1]:.1e}",
        f"{run.seconds:.1f}",
    )
