"""The command ``holdfast demo digits``."""

from __future__ import annotations

import math
from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, PIXELWISE, QUICK, QUICK_PIXELWISE

_PRESETS = Presets(FULL, QUICK)
_PIXELWISE = Presets(PIXELWISE, QUICK_PIXELWISE)


def _not_nan(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """Refuse the one float that every range lets through."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is not a number", context, parameter)
    return value


@click.command(short_help="Remember a handwritten digit through a stretch of noise.")
@_PRESETS.option("epochs", 1, 1000, "Passes over the training set.")
@_PRESETS.option("hidden", 2, 1024, "Hidden units of the network.")
@_PRESETS.option(
    "steps", 8, 2000, "Length of a sequence: 8 rows of pixels, then noise."
)
@click.option(
    "--recurrent-rate",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_not_nan,
    help="Learning rate of the recurrent kernel; the others have "
    f"{FULL.rate}.  [default: {FULL.recurrent_rate}]",
)
@click.option(
    "--pixels",
    is_flag=True,
    help=f"Read an image pixel by pixel: 64 steps and no noise, {PIXELWISE.epochs} "
    f"epochs, recurrent rate {PIXELWISE.recurrent_rate}, unless you say otherwise.",
)
@_PRESETS.run_options("the split, the noise and the weights")
def digits(output: Path, *, quick: bool, pixels: bool, **given: float | None) -> None:
    """Remember a handwritten digit through a long stretch of noise.

    A recurrent network reads an image row by row, then noise, and answers after the
    last step. It is trained three times, with its recurrent kernel kept orthogonal,
    unconstrained, and unconstrained from the same orthogonal start. A table and
    pictures show what became of each: accuracy, kernel, gradients.

    With --recurrent-rate 0.002 the orthogonal start alone is no longer enough: the
    kernel that is not kept orthogonal forgets it, and the digit.

    The same seed and number of threads give the same figures, but for the seconds.
    """
    require_packages()
    presets = _PIXELWISE if pixels else _PRESETS
    settings = presets.chosen(given, quick=quick)
    if settings.steps < settings.image_steps:
        raise click.BadParameter(
            f"an image takes {settings.image_steps} steps.", param_hint="'--steps'"
        )
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .summary import introduction, outcome
    from .training import train_all

    def work(listener: Listener) -> Outcome:
        return outcome(train_all(settings, listener), settings)

    run_demo(introduction(settings), output, settings.threads, work)
