"""What the demo prints: what it is about, and one table."""

from __future__ import annotations

from collections.abc import Sequence

from ..running import Outcome, percent, threads_in_words
from .pictures import draw_pictures
from .pruning import ANYWHERE, PATTERNS, WAYS, Pattern, Pruned
from .settings import Settings

_HEADINGS = (
    "zeros",
    "\nshare",
    "pattern\nholds",
    "\none-shot",
    "one-shot,\nfine-tuned",
    "N:M from\nthe start",
    "N:M with\nschedule",
    "schedule,\nanywhere",
)
_NOTES = """\
Test accuracy, mean of the runs. All share data, starts, order and epochs.
  dense                no zeros
  one-shot              the dense network, pruned by maps.NMSparsity at the end
  one-shot, fine-tuned  pruned after half of the epochs; what is kept trains on
  N:M from the start    maps.NMSparsity, which chooses anew at every step
  N:M with schedule     maps.GradualTopK in groups (maps.PerBlock) and Sparsify:
                        of every M weights fewer and fewer are kept, down to N
  schedule, anywhere    maps.GradualTopK alone: as many zeros, in no pattern
Pattern holds: of every M weights along a row at most N are nonzero, in every
layer of all networks but the last column's. On a CPU the zeros save no time."""


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    return (
        "Handwritten digits, recognized with few weights: N of every M are kept.\n"
        f"{settings.epochs} epochs, {settings.runs} of each, seed {settings.seed}, "
        f"{threads_in_words(settings.threads)}."
    )


def outcome(results: Sequence[Pruned]) -> Outcome:
    """Return the table and the pictures."""
    first, *others = results
    rows: list[Sequence[str]] = [
        ("dense", "0.0 %", "-", percent(first.accuracy), *"----")
    ]
    for pattern in PATTERNS:
        rows.append(row(pattern, [r for r in others if r.pattern == pattern]))
    return Outcome(_HEADINGS, rows, _NOTES, draw_pictures(results))


def row(pattern: Pattern, there: Sequence[Pruned]) -> tuple[str, ...]:
    """Return the table's row of a pattern, the ways in their order."""
    found = {result.way: result for result in there}
    in_groups = [result for result in there if result.way != ANYWHERE]
    return (
        str(pattern),
        percent(in_groups[0].zeros),
        "yes" if all(result.holds for result in in_groups) else "no",
        *(percent(found[way.label].accuracy) for way in WAYS),
    )
