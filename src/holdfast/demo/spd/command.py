"""The command ``holdfast demo spd``."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, QUICK

_PRESETS = Presets(FULL, QUICK)


@click.command(short_help="Train covariances that stay positive definite.")
@_PRESETS.option("steps", 2, 10**5, "Optimizer steps for each way and rate.")
@_PRESETS.run_options("the start")
def spd(output: Path, *, quick: bool, **given: float | None) -> None:
    """Train covariances of three wines, which have to be positive definite.

    Three maps of holdfast.spd keep them so, a symmetric and an unconstrained matrix do
    not. The best covariances are known: those of the samples. A table and pictures show
    how near each comes, and when definiteness is lost.
    """
    require_packages()
    settings = _PRESETS.chosen(given, quick=quick)
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .fitting import fit_all, load_wines
    from .summary import introduction, outcome

    wines = load_wines()

    def work(listener: Listener) -> Outcome:
        return outcome(fit_all(wines, settings, listener), wines, settings)

    run_demo(introduction(settings), output, settings.threads, work)
