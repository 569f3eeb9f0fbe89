"""One run of a demo: folder, introduction, work, table and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .output import output_folder, save_figure
from .progress import Listener, progress
from .threads import threads_of

_WIDTH = 80


@dataclass(frozen=True)
class Outcome:
    """What a demo has to show.

    Attributes:
        headings: of the table; the first is that of the column of names.
        rows: the table's figures, a name first.
        notes: what the words of the table mean.
        pictures: figures by the name of their file.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str
    pictures: Mapping[str, Figure]


def run_demo(
    introduction: str, output: Path, threads: int, work: Callable[[Listener], Outcome]
) -> None:
    """Do the work with so many threads, print its table and write its pictures."""
    with output_folder(output) as folder:
        console = Console(markup=False, highlight=False)
        console.print(introduction)
        with progress(console) as listener, threads_of(threads):
            outcome = work(listener)
        print_table(console, outcome)
        paths = [
            save_figure(fig, folder / name) for name, fig in outcome.pictures.items()
        ]
        print_pictures(console, paths)


def print_table(console: Console, outcome: Outcome) -> None:
    """Print the table and what its words mean."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True)
    first, *headings = outcome.headings
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in outcome.rows:
        table.add_row(*row)
    # In a narrower window lines wrap; a figure cut short would be a wrong one.
    console.width = max(console.width, _WIDTH)
    console.print(table)
    console.print(outcome.notes)


def print_pictures(console: Console, paths: Sequence[Path]) -> None:
    """Name the folder, on a line that can be copied whole, and the pictures in it."""
    console.print(f"\nPictures in {paths[0].parent}:", soft_wrap=True)
    for path in paths:
        console.print(f"  {path.name}")


def percent(share: float) -> str:
    """Return a share as a percentage, such as ``93.6 %``."""
    return f"{100 * share:.1f} %"


def threads_in_words(count: int) -> str:
    """Return a number of threads, such as ``2 threads``."""
    return "1 thread" if count == 1 else f"{count} threads"
