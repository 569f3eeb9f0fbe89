"""What the demo prints: progress while it trains, then one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from .network import Kernel
from .settings import Settings
from .training import Run

_NOTES = """\
All three share data, noise, seed, optimizer and budget. Ordinary start: as torch starts
every linear layer. Orthogonal start: that kernel moved into the set, once. Orthogonal:
the same, and kept there by `holdfast.orthogonal(layer, "weight")`.
Residual: distance of the kernel from the orthogonal matrices. Gradient: mean norm of
dloss/dh at the first and at the last step, after training. Chance is 10 %."""


class Display:
    """A bar per network on a terminal, a line per network anywhere else."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.kernel, self.epochs, self.accuracy = Kernel.ORTHOGONAL, 0, 0.0
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[result]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def started(self, kernel: Kernel, updates: int) -> None:
        """Show the bar of the next network."""
        self.task = self.bars.add_task(kernel.value, total=updates, result=" " * 15)
        if not self.console.is_terminal:
            write(self.console, f"training: {kernel.value}")

    def updated(self) -> None:
        """Move the bar."""
        self.bars.advance(self.task)

    def tested(self, accuracy: float) -> None:
        """Show the accuracy beside the bar."""
        self.bars.update(self.task, result=f"{percent(accuracy)} right")


def introduction(settings: Settings) -> str:
    """Return what is about to be done."""
    return (
        f"Digits of 8 x 8 pixels, a row per step, then noise up to step "
        f"{settings.steps}; then the answer.\n"
        f"{settings.hidden} hidden units, {settings.epochs} epochs, "
        f"seed {settings.seed}, {settings.threads} thread(s)."
    )
