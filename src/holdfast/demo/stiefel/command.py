"""The command ``holdfast demo stiefel``."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, QUICK

_PRESETS = Presets(FULL, QUICK)


@click.command(short_help="Train orthonormal matrices to optima that are known.")
@_PRESETS.option("pixels", 2, 24, "Side of the patches that PCA explains.")
@_PRESETS.option("components", 1, 64, "Principal components.")
@_PRESETS.option("size", 2, 512, "Size of the rotation that Procrustes finds.")
@_PRESETS.option("steps", 1, 10**6, "Steps for each way and learning rate.")
@_PRESETS.option("seconds", 1, 60, "Seconds for each way and learning rate.")
@_PRESETS.run_options("the points, the rotation and the starts")
def stiefel(output: Path, *, quick: bool, **given: float | None) -> None:
    """Train matrices with orthonormal columns to optima that are known.

    Principal components of photographs, and the rotation between two clouds of points:
    both have a closed solution, so that one sees how near training comes, and how
    fast, with holdfast, with torch and, if it is installed, with GeoTorch.
    """
    require_packages()
    settings = _PRESETS.chosen(given, quick=quick)
    if settings.components >= settings.pixels**2:
        raise click.BadParameter(
            f"{settings.pixels} x {settings.pixels} pixels leave a choice of at most "
            f"{settings.pixels**2 - 1} components.",
            param_hint="--components",
        )
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .race import race_all
    from .summary import introduction, outcome

    def work(listener: Listener) -> Outcome:
        return outcome(race_all(settings, listener))

    run_demo(introduction(settings), output, settings.threads, work)
