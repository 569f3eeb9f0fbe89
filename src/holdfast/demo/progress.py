"""What a demo shows of its work while it lasts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Listener(Protocol):
    """Whoever wants to follow the work, which has several parts."""

    def started(self, name: str, updates: int) -> None:
        """Hear that a part begins, which takes so many updates."""

    def updated(self, updates: int = 1) -> None:
        """Hear that so many updates more are done."""

    def tested(self, result: str) -> None:
        """Hear in a few words, such as ``93.6 % right``, how well it goes."""


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
    """A line per part, for files and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def started(self, name: str, updates: int) -> None:
        self.console.print(f"training ({updates} updates): {name}")

    def updated(self, updates: int = 1) -> None:
        pass

    def tested(self, result: str) -> None:
        pass


class _Bars:
    """A bar per part, and its result so far."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars

    def started(self, name: str, updates: int) -> None:
        self.task = self.bars.add_task(name, total=updates, result="")

    def updated(self, updates: int = 1) -> None:
        self.bars.advance(self.task, updates)

    def tested(self, result: str) -> None:
        self.bars.update(self.task, result=result)
