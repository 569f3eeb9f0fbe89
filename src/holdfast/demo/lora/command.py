"""The command ``holdfast demo lora``."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, QUICK

_PRESETS = Presets(FULL, QUICK)


@click.command(short_help="Adapt a trained network by low-rank changes.")
@_PRESETS.option("epochs", 1, 1000, "Passes over the training set.")
@_PRESETS.option("runs", 1, 20, "Networks that each figure is the mean of.")
@_PRESETS.run_options("the split, the weights and the order")
def lora(output: Path, *, quick: bool, **given: float | None) -> None:
    """Adapt a network that knows digits to mirrored ones.

    By training everything, the last layer, or low-rank changes beside the frozen
    weights (holdfast.lora). A table and pictures show accuracy, parameters, sizes of
    files, and what is left of what the network knew before.
    """
    require_packages()
    settings = _PRESETS.chosen(given, quick=quick)
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .adapting import adapt_all
    from .summary import introduction, outcome

    def work(listener: Listener) -> Outcome:
        return outcome(adapt_all(settings, listener), settings)

    run_demo(introduction(settings), output, settings.threads, work)
