"""What the demo prints: what it is about, and one table."""

from __future__ import annotations

from collections.abc import Sequence

from ..running import Outcome, percent, threads_in_words
from .adapting import Adapted, mean
from .pictures import draw_pictures
from .settings import Settings

_HEADINGS = (
    "\nadapted by",
    "parameters\ntrained",
    "mirrored\ndigits",
    "plain\ndigits",
    "kB, what\nis new",
    "kB, the\nmodel",
    "merging\nchanges",
)
_NOTES = """\
A network that was trained on digits as they are learns mirrored ones. All ways
begin at the same network and share data, order, epochs and learning rate.
  full fine-tuning  everything trains
  last layer        the others are frozen
  lora, rank r      holdfast.lora(layer, rank=r) beside each frozen weight
Test accuracy, mean of the runs. Plain digits: afterwards, and with the adapters
off; what other ways have overwritten is gone, unless the old file is kept.
kB: of files of holdfast.save, with what was trained alone, and with everything.
Merging: largest change of a logit by holdfast.fold; the model is plain then."""


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    return (
        "A network for handwritten digits is adapted to mirrored ones.\n"
        f"{settings.epochs} epochs, {settings.runs} of each, seed {settings.seed}, "
        f"{threads_in_words(settings.threads)}."
    )


def outcome(results: Sequence[Adapted], settings: Settings) -> Outcome:
    """Return the table and the pictures."""
    rows = [
        (result.way.label if result.way else "(not adapted)", *figures(result))
        for result in results
    ]
    return Outcome(_HEADINGS, rows, _NOTES, draw_pictures(results, settings))


def figures(result: Adapted) -> tuple[str, ...]:
    """Return the table's figures of one way."""
    return (
        f"{result.parameters}",
        percent(mean(result.mirrored)),
        percent(mean(result.plain)),
        f"{result.bytes_trained / 1000:.1f}",
        f"{result.bytes_whole / 1000:.1f}",
        "-" if result.merging is None else f"{result.merging:.0e}",
    )
