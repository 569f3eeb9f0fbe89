"""The options that all demos have, and how their settings become options."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)
else:
    S = TypeVar("S")

Callback = Callable[..., None]


@dataclass(frozen=True)
class Presets(Generic[S]):
    """The settings of a full run and those of a quick one."""

    full: S
    quick: S

    def option(
        self, name: str, smallest: int, largest: int | None, text: str
    ) -> Callable[[Callback], Callback]:
        """Return an option for a whole number, with its range and both defaults."""
        return click.option(
            f"--{name}",
            type=click.IntRange(smallest, largest),
            help=f"{text}  [default: {self.defaults(name)}]",
        )

    def defaults(self, name: str) -> str:
        """Return the default of a setting in words, as the help has it."""
        default, quick = getattr(self.full, name), getattr(self.quick, name)
        return f"{default}, or {quick} if quick" if default != quick else f"{default}"

    def run_options(self, seed: str) -> Callable[[Callback], Callback]:
        """Return what every demo can be told; `seed` says what the seed decides."""
        options = (
            self.option("seed", 0, 2**32 - 1, f"Decides {seed}."),
            self.option("threads", 1, os.cpu_count(), "Threads to compute with."),
            click.option(
                "--output",
                type=click.Path(path_type=Path),
                default=Path("holdfast-demo"),
                show_default=True,
                help="Folder for the pictures; older ones of the same name are "
                "replaced.",
            ),
            click.option(
                "--quick",
                is_flag=True,
                help="A small run of seconds: see the defaults.",
            ),
        )

        def decorate(callback: Callback) -> Callback:
            for option in reversed(options):
                callback = option(callback)
            return callback

        return decorate

    def chosen(self, given: dict[str, Any], *, quick: bool) -> S:
        """Return the preset with what was given on the command line."""
        chosen = {name: value for name, value in given.items() if value is not None}
        return replace(self.quick if quick else self.full, **chosen)
