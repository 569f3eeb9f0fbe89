"""What the demo prints: what it is about, and one table."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..running import Outcome, threads_in_words
from .fitting import Fit, Wines, distance, smallest_eigenvalue
from .pictures import draw_pictures
from .settings import Settings

_HEADINGS = (
    "covariances",
    "\nrate",
    "nats above\nthe optimum",
    "distance\nfrom it",
    "smallest\neigenvalue",
    "\ndefinite",
)
_NOTES = """\
A normal distribution for each of three wines, by 13 measurements. All begin at
the same matrices and take steps of Adam; only what holds the matrices differs:
  spd              holdfast.spd(module, spd_map=...), three maps to choose from
  symmetric only   maps.Symmetric: W = (X + X')/2, definite or not
  unconstrained    the entries of the matrices themselves
Nats: mean negative log-likelihood beyond that of the samples' own covariances,
the best there are. Distance: relative, in the Frobenius norm.
A training ends where a matrix is not definite any more, because the likelihood
means nothing from there on; its figures are those of the last step before.
Rate: the largest learning rate; it falls to zero along a cosine."""


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    return (
        "Covariances of three wines, 13 x 13, trained to an optimum that is known.\n"
        f"{settings.steps} steps, seed {settings.seed}, "
        f"{threads_in_words(settings.threads)}."
    )


def outcome(fits: Sequence[Fit], wines: Wines, settings: Settings) -> Outcome:
    """Return the table and the pictures."""
    best = wines.covariances
    low = f"{smallest_eigenvalue(best):.4f}"
    rows = [("the samples' own", "-", "0", "0", low, "yes")]
    rows += [(fit.way.label, *figures(fit, best)) for fit in fits]
    return Outcome(_HEADINGS, rows, _NOTES, draw_pictures(fits, wines, settings))


def figures(fit: Fit, best: Tensor) -> tuple[str, ...]:
    """Return the table's figures of one fit."""
    return (
        f"{fit.rate:g}",
        f"{fit.excess[-1]:.1e}",
        f"{distance(fit.covariances, best):.1e}",
        f"{fit.smallest[-1]:.4f}",
        "yes" if fit.lost is None else f"to step {fit.lost - 1}",
    )
