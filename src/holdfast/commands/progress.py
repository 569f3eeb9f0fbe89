"""A bar for what takes a while, on a terminal and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TypeVar

_Item = TypeVar("_Item")


def busy(what: str) -> AbstractContextManager[object]:
    """Return a scope in which a terminal shows that something is going on.

    Example:
        >>> with busy("counting"):
        ...     print(1 + 1)
        2
    """
    if not _is_watched():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)


def shown(items: Sequence[_Item], what: str) -> Generator[_Item]:
    """Yield items; on a terminal a bar shows how many are done, and then goes.

    It is drawn to the stream of errors, so that what a command prints stays its own.

    Example:
        >>> list(shown([1, 2], "counting"))
        [1, 2]
    """
    if not _is_watched():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, console=Console(stderr=True), transient=True)


def _is_watched() -> bool:
    is_terminal = getattr(sys.stderr, "isatty", None)  # there may be no stream
    watched = is_terminal is not None and is_terminal()
    return watched and find_spec("rich") is not None
