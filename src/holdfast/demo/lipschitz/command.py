"""The command ``holdfast demo lipschitz``."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, QUICK

_PRESETS = Presets(FULL, QUICK)


@click.command(
    short_help="Prove how far an image may be changed, and attack the proof."
)
@_PRESETS.option("epochs", 1, 1000, "Passes over the training set.")
@_PRESETS.option("hidden", 2, 1024, "Units of a hidden layer; odd ones get one more.")
@_PRESETS.option("restarts", 1, 1000, "Starts of each attack.")
@_PRESETS.option("steps", 1, 10_000, "Gradient steps of each start.")
@_PRESETS.run_options("the split, the weights and the attacks")
def lipschitz(output: Path, *, quick: bool, **given: int | None) -> None:
    """Prove how far an image may be changed, and attack the proof.

    Two networks learn handwritten digits. One has orthogonal weights and activations
    that sort, so that it never stretches a distance; the other's weights are free. For
    every test image, the margin of the answer over the Lipschitz constant is a radius
    within which no other answer exists. An attack looks for one, at every radius.

    The same seed and number of threads give the same figures, but for the seconds.
    """
    require_packages()
    settings = _PRESETS.chosen(given, quick=quick)
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .summary import introduction, outcome
    from .training import run_all

    def work(listener: Listener) -> Outcome:
        return outcome(run_all(settings, listener))

    run_demo(introduction(settings), output, settings.threads, work)
