"""The command ``holdfast demo prune``."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, QUICK

_PRESETS = Presets(FULL, QUICK)


@click.command(short_help="Recognize digits with few weights, N of every M.")
@_PRESETS.option("epochs", 2, 1000, "Passes over the training set.")
@_PRESETS.option("runs", 1, 20, "Networks that each figure is the mean of.")
@_PRESETS.run_options("the split, the weights and the order")
def prune(output: Path, *, quick: bool, **given: float | None) -> None:
    """Recognize digits with few weights, of which N of every M are kept.

    A small network is pruned to several such patterns: at once, at once and trained
    further, from the start of the training, and along a schedule. A table and pictures
    show how accurate it is with how many zeros.
    """
    require_packages()
    settings = _PRESETS.chosen(given, quick=quick)
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .pruning import prune_all
    from .summary import introduction, outcome

    def work(listener: Listener) -> Outcome:
        return outcome(prune_all(settings, listener))

    run_demo(introduction(settings), output, settings.threads, work)
