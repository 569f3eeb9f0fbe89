"""The command ``holdfast demo copying``."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import Presets
from ..requirements import require_packages
from .settings import FULL, QUICK

_PRESETS = Presets(FULL, QUICK)


@click.command(short_help="Recall ten symbols after a thousand steps.")
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(1, 10_000),
    multiple=True,
    help="Steps to remember the symbols for; may be given several times.  "
    f"[default: {', '.join(map(str, FULL.lengths))}, or "
    f"{', '.join(map(str, QUICK.lengths))} if quick]",
)
@_PRESETS.option("updates", 1, 100_000, "Optimizer steps of each training.")
@_PRESETS.option("hidden", 2, 1024, "Hidden units; of the LSTM, half as many.")
@_PRESETS.run_options("the sequences and the weights")
def copying(
    output: Path, *, quick: bool, lengths: tuple[int, ...], **given: int | None
) -> None:
    """Recall ten symbols after a long wait.

    A recurrent network sees ten symbols, then nothing for T steps, then a marker, and
    is to repeat the symbols. One with an orthogonal kernel, one with a tanh and an LSTM
    get the same number of recurrent weights, the same sequences and the same number of
    optimizer steps. A table and pictures show what each of them remembers.

    The same seed and number of threads give the same figures, but for the seconds.
    """
    require_packages()
    settings = _PRESETS.chosen({**given, "lengths": lengths or None}, quick=quick)
    from ..progress import Listener
    from ..running import Outcome, run_demo
    from .summary import introduction, outcome
    from .training import train_all

    def work(listener: Listener) -> Outcome:
        return outcome(train_all(settings, listener))

    run_demo(introduction(settings), output, settings.threads, work)
