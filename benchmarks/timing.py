"""Timing in turns, so that what disturbs the machine disturbs all contestants alike.

Every round times one short block of each contestant, in an order that rotates, with
`torch.utils.benchmark` on one thread. The clock is the processor time of the process:
on an idle machine that is the wall time, and on a busy one it leaves out the time for
which others had the core.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch.utils.benchmark import Timer


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: blocks timed of each contestant.
        block: seconds that one block should take.
        quick: use the smallest subjects that still run everything.
        most: seconds after which a comparison makes do with the rounds it has, if
            these are at least three.
    """

    rounds: int = 101
    block: float = 0.008
    quick: bool = False
    most: float = math.inf


# Fewer rounds have no spread.
_LEAST = 3

QUICK = Effort(rounds=3, block=0.0005, quick=True)


@dataclass
class Contestant:
    """A statement to time.

    Args:
        name: what the table calls it.
        statement: Python code.
        names: the variables of the statement.
        around: makes the context that each block runs in.
        prepare: called before each block, untimed.
        number: executions in a block; by default as many as fill its seconds.
        clock: tells the time in seconds.
        threads: those that torch may use.
    """

    name: str
    statement: str
    names: dict[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    prepare: Callable[[], object] | None = None
    number: int | None = None
    clock: Callable[[], float] = time.process_time
    threads: int = 1

    def __post_init__(self) -> None:
        self.timer = Timer(
            self.statement,
            globals=self.names,
            timer=self.clock,
            num_threads=self.threads,
        )

    def block(self, number: int) -> float:
        """Return the seconds that one execution takes; the first few do not count."""
        if self.prepare is not None:
            self.prepare()
        with self.around():
            return self.timer.timeit(number).times[0]

    def calibrated(self, effort: Effort) -> int:
        """Return how many executions fill a block."""
        if self.number is not None:
            return self.number
        number = 1
        while (seconds := self.block(number) * number) < effort.block / 4:
            number *= 4
        return max(1, round(number * effort.block / seconds))


class Spread(NamedTuple):
    """The quartiles and the minimum of a sample."""

    low: float
    median: float
    high: float
    least: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        if len(sample) == 1:
            return cls(*sample * 4)
        return cls(*statistics.quantiles(sample, n=4, method="inclusive"), min(sample))


@dataclass
class Comparison:
    """The seconds of every contestant in every round; the first is the base."""

    seconds: dict[str, list[float]]

    @property
    def base(self) -> str:
        return next(iter(self.seconds))

    def spread(self, name: str) -> Spread:
        return Spread.of(self.seconds[name])

    def ratios(self, name: str, base: str) -> Spread:
        """Return the spread of the ratios within each round."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return Spread.of([mine / other for mine, other in pairs])

    def ratio_of_minima(self, name: str, base: str) -> float:
        return min(self.seconds[name]) / min(self.seconds[base])


def compare(contestants: Sequence[Contestant], effort: Effort) -> Comparison:
    """Time the contestants in turns; the first is what the others are compared to."""
    numbers = {c.name: c.calibrated(effort) for c in contestants}
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    order = list(contestants)
    gc.collect()
    started = time.perf_counter()
    for done in range(effort.rounds):
        if done >= _LEAST and time.perf_counter() - started > effort.most:
            break
        for contestant in order:
            block = contestant.block(numbers[contestant.name])
            seconds[contestant.name].append(block)
        order.append(order.pop(0))
    return Comparison(seconds)
