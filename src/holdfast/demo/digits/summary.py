"""What the demo prints: progress while it trains, then one table."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .data import CHANCE
from .network import Kernel
from .settings import Settings
from .training import Listener, Run

_WIDTH = 80
_NOTES = f"""\
All share data, noise, seed, optimizer and budget; only the kernel differs:
  ordinary start    as torch starts every linear layer
  orthogonal start  the same, made orthogonal once, then trained freely
  orthogonal        the same, and kept so: holdfast.orthogonal(layer, "weight")
Test accuracy: {CHANCE:.0%} is guessing.
Residual: distance from the orthogonal matrices, before and after training.
Gradient: norm of dloss/dh at the first and the last step, after training."""


@contextmanager
def progress(console: Console) -> Generator[Listener]:
    """Give a listener that shows bars on a terminal and prints lines elsewhere."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    bars = Progress(
        TextColumn("{task.description:31}"),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:3.0f} % {task.fields[result]:13}"),
        TimeElapsedColumn(),
        console=console,
    )
    with bars:
        yield _Bars(bars)


class _Lines:
    """A line per network, for files and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def started(self, kernel: Kernel, updates: int) -> None:
        self.console.print(f"training ({updates} updates): {kernel.value}")

    def updated(self) -> None:
        pass

    def tested(self, epoch: int, accuracy: float) -> None:
        pass


class _Bars:
    """A bar per network, and its test accuracy so far."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars

    def started(self, kernel: Kernel, updates: int) -> None:
        self.task = self.bars.add_task(kernel.value, total=updates, result="")

    def updated(self) -> None:
        self.bars.advance(self.task)

    def tested(self, epoch: int, accuracy: float) -> None:
        self.bars.update(self.task, result=f"{percent(accuracy)} right")


def print_introduction(console: Console, settings: Settings) -> None:
    """Print what is about to be done."""
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    console.print(
        "Handwritten digits, 8 x 8 pixels: a row per step, then noise up to step "
        f"{settings.steps},\nand only then the answer. "
        f"{settings.hidden} hidden units, {settings.epochs} epochs, "
        f"seed {settings.seed}, {threads}."
    )


def print_summary(console: Console, runs: Sequence[Run]) -> None:
    """Print the table and what its words mean."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("recurrent kernel", no_wrap=True)
    for heading in (
        "test\naccuracy",
        "residual\nbefore",
        "residual\nafter",
        "gradient\nat first",
        "gradient\nat last",
        "\nseconds",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(run.kernel.value.replace(", ", ",\n"), *figures(run))
    # In a narrower window lines wrap; a figure cut short would be a wrong one.
    console.width = max(console.width, _WIDTH)
    console.print(table)
    console.print(_NOTES)


def print_pictures(console: Console, paths: Sequence[Path]) -> None:
    """Name the folder, on a line that can be copied whole, and the pictures in it."""
    console.print(f"\nPictures in {paths[0].parent}:", soft_wrap=True)
    for path in paths:
        console.print(f"  {path.name}")


def figures(run: Run) -> tuple[str, ...]:
    """Return the table's figures of one run."""
    return (
        percent(run.accuracy),
        f"{run.before.residual:.1e}",
        f"{run.after.residual:.1e}",
        f"{run.after.gradient_norms[0]:.1e}",
        f"{run.after.gradient_norms[-1]:.1e}",
        f"{run.seconds:.1f}",
    )


def percent(share: float) -> str:
    """Return a share as a percentage, such as ``93.6 %``."""
    return f"{100 * share:.1f} %"
