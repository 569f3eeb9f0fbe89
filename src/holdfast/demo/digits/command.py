"""The command ``holdfast demo digits``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from ..output import output_folder
from ..requirements import require_packages
from .settings import FULL, QUICK, Settings

Callback = TypeVar("Callback", bound=Callable[..., None])


def _setting(
    name: str, smallest: int, largest: int | None, text: str
) -> Callable[[Callback], Callback]:
    """Return an option for one of the settings, with its range and both defaults."""
    default, quick = getattr(FULL, name), getattr(QUICK, name)
    defaults = f"{default}, or {quick} if quick" if default != quick else f"{default}"
    return click.option(
        f"--{name}",
        type=click.IntRange(smallest, largest),
        help=f"{text}  [default: {defaults}]",
    )


def _not_nan(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """Refuse the one float that every range lets through."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is not a number", context, parameter)
    return value


@click.command(short_help="Remember a handwritten digit through a stretch of noise.")
@_setting("epochs", 1, 1000, "Passes over the training set.")
@_setting("hidden", 2, 1024, "Hidden units of the network.")
@_setting("steps", 8, 2000, "Length of a sequence: 8 rows of pixels, then noise.")
@_setting("seed", 0, 2**32 - 1, "Decides the split, the noise and the weights.")
@_setting("threads", 1, os.cpu_count(), "Threads to compute with.")
@click.option(
    "--recurrent-rate",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_not_nan,
    help="Learning rate of the recurrent kernel; the others have "
    f"{FULL.rate}.  [default: {FULL.recurrent_rate}]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("holdfast-demo"),
    show_default=True,
    help="Folder for the pictures; older ones of the same name are replaced.",
)
@click.option("--quick", is_flag=True, help="A small run of seconds: see the defaults.")
def digits(output: Path, *, quick: bool, **given: float | None) -> None:
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
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = replace(QUICK if quick else FULL, **chosen)
    with output_folder(output) as folder:
        _demonstrate(settings, folder)


def _demonstrate(settings: Settings, folder: Path) -> None:
    """Train, print the table and write the pictures."""
    from rich.console import Console

    from .pictures import draw_pictures
    from .summary import print_introduction, print_pictures, print_summary, progress
    from .training import train_all

    console = Console(markup=False, highlight=False)
    print_introduction(console, settings)
    with progress(console) as listener:
        runs = train_all(settings, listener)
    print_summary(console, runs)
    print_pictures(console, draw_pictures(runs, settings, folder))
