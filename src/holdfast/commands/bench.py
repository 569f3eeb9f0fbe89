"""The command ``holdfast bench``."""

from __future__ import annotations

import json
import os
from itertools import product

import click

from ..demo.threads import threads_of
from .comparison import SUBJECTS, Machine, compare
from .progress import shown

_SIZES, _QUICK_SIZES = (64, 256), (32,)
_ROUNDS, _QUICK_ROUNDS = 31, 5


@click.command(short_help="Time holdfast and torch on this machine.")
@click.option(
    "--only",
    type=click.Choice(SUBJECTS),
    multiple=True,
    help="A map to time; may be given several times. By default all.",
)
@click.option(
    "--size",
    type=click.IntRange(2, 8192),
    multiple=True,
    help="Rows and columns of the weight; may be given several times.  "
    f"[default: {' and '.join(map(str, _SIZES))}, or {_QUICK_SIZES[0]} if quick]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, os.cpu_count()),
    default=1,
    show_default=True,
    help="Threads to compute with.",
)
@click.option("--quick", is_flag=True, help="A rough answer in seconds.")
@click.option("as_json", "--json", is_flag=True, help="Print all figures as JSON.")
def bench(
    only: tuple[str, ...],
    size: tuple[int, ...],
    threads: int,
    *,
    quick: bool,
    as_json: bool,
) -> None:
    """Time the maps that torch has too: torch's and ours, in turns, on this machine.

    Each read of a square weight is timed with its gradient, as a training step has it;
    of the identity only the read is. The table has medians in milliseconds, their
    quartiles, and how many times faster holdfast is, which below 1 is slower.

    Exit status: 0; 2 for wrong arguments.
    """
    sizes = size or (_QUICK_SIZES if quick else _SIZES)
    pairs = [*product(only or SUBJECTS, sizes)]
    with threads_of(threads):
        rounds = _QUICK_ROUNDS if quick else _ROUNDS
        times = [compare(*pair, rounds) for pair in shown(pairs, "timing")]
    found = Machine(tuple(times), threads)
    if as_json:
        data = {"threads": threads, "times": found.records()}
        click.echo(json.dumps(data, indent=1))
    else:
        click.echo(str(found))
