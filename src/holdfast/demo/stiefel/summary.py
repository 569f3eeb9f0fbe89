"""What the demo prints: what it is about, and one table."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.sets import Stiefel

from ..running import Outcome, threads_in_words
from .pictures import draw_pictures
from .race import RATES, TOLERANCE, WAYS, Race
from .settings import Settings

_HEADINGS = (
    "problem and way",
    "seconds to\ntolerance",
    "\nsteps",
    "ms per\nstep",
    "left at\nthe end",
    "residual\nof W",
    "\nrate",
)
_RATES = ", ".join(f"{rate:g}" for rate in sorted(RATES))
_NOTES = f"""\
PCA: the subspace that explains most of the variance of patches of photographs.
Procrustes: the rotation from one cloud of points to another. All start from the
same matrix, in double precision, and take steps of Adam, each with the one of
the learning rates {_RATES} that suits it best.
  eigh, svd           the closed form: the best way, where there is one
  holdfast            holdfast.orthogonal(layer)
  holdfast + Rebase   the same, and holdfast.Rebase(layer, optimizer, every=1)
  torch, its default  torch.nn.utils.parametrizations.orthogonal(layer)
  torch, cayley       the same, with orthogonal_map="cayley"
  GeoTorch            geotorch.orthogonal(layer); and update_base at every step
Tolerance: {TOLERANCE:g} of the way from the start's loss to the best is left.
Residual: distance from the matrices with orthonormal columns, at the end."""


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    n = settings.pixels**2
    return (
        "Matrices with orthonormal columns, trained to optima that are known:\n"
        f"PCA ({n} x {settings.components}), Procrustes ({settings.size} x "
        f"{settings.size}). At most {settings.steps} steps, {settings.seconds} s "
        f"each, seed {settings.seed},\n{threads_in_words(settings.threads)}."
    )


def outcome(races: Sequence[Race]) -> Outcome:
    """Return the table and the pictures."""
    rows = list[Sequence[str]]()
    for problem in dict.fromkeys(race.problem.name for race in races):
        there = [race for race in races if race.problem.name == problem]
        rows += table(there)
    return Outcome(_HEADINGS, rows, _NOTES, draw_pictures(races))


def table(races: Sequence[Race]) -> list[Sequence[str]]:
    """Return the rows of one problem; a package that is missing has one."""
    problem = races[0].problem
    closed = (f"{problem.name}: {problem.solver}", f"{problem.seconds:.4f}")
    rows: list[Sequence[str]] = [(*closed, *"-----")]
    rows += [(f"  {race.way.label}", *figures(race)) for race in races]
    missing = dict.fromkeys(way.package for way in WAYS if not way.installed)
    return rows + [(f"  {package}: not installed", *"------") for package in missing]


def figures(race: Race) -> tuple[str, ...]:
    """Return the table's figures of one race."""
    seconds, steps = race.seconds[-1], len(race.shares)
    return (
        f"{seconds:.2f}" if race.arrived else f"> {seconds:.1f}",
        f"{steps}",
        f"{1000 * seconds / steps:.2f}",
        f"{race.shares[-1]:.1e}",
        f"{Stiefel().residual(race.weight).item():.0e}",
        f"{race.rate:g}",
    )
