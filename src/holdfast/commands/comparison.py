"""This machine: how long torch's parametrizations take on it, and how long ours.

Both do the same in turns, so that what disturbs the machine disturbs both alike. On one
thread the clock is the processor time of the process, which leaves out the time for
which others had the core.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from .. import recipes
from ..core.registration import register_parametrization
from ..reporting.tables import Line, Table, short

_BLOCK = 0.01  # seconds that one round of one contestant takes at least
_NAMES: dict[str, str] = {
    "exp": "orthogonal, matrix exponential",
    "cayley": "orthogonal, Cayley transform",
    "householder": "orthogonal, Householder reflections",
    "weight_norm": "weight norm",
    "spectral_norm": "spectral norm",
    "identity": "reading through the identity",
}
SUBJECTS = tuple(_NAMES)


@dataclass(frozen=True)
class Times:
    """Milliseconds of one thing at one size: medians, and quartiles around them.

    Attributes:
        subject: the map.
        size: rows and columns of the weight.
        torch: the median of torch's.
        torch_low: its lower quartile.
        torch_high: its upper quartile.
        holdfast: the median of ours.
        holdfast_low: its lower quartile.
        holdfast_high: its upper quartile.
        times_faster: the median of the ratios of each round.
        times_low: their lower quartile.
        times_high: their upper quartile.
    """

    subject: str
    size: int
    torch: float
    torch_low: float
    torch_high: float
    holdfast: float
    holdfast_low: float
    holdfast_high: float
    times_faster: float
    times_low: float
    times_high: float


@dataclass(frozen=True)
class Machine(Table):
    """What was timed on this machine, as a table.

    Attributes:
        times: a line for each map and size.
        threads: those that torch used.
    """

    words = frozenset({"map"})

    times: tuple[Times, ...]
    threads: int

    def records(self) -> list[dict[str, object]]:
        """Return a dictionary for each map and size."""
        return [asdict(each) for each in self.times]

    def _fields(self) -> list[str]:
        return [field.name for field in fields(Times)]

    def head(self) -> tuple[str, ...]:
        """Return what stands above the columns."""
        return ("map", "size", "torch", "quartiles", "holdfast", "quartiles", "faster")

    def lines(self) -> list[Line]:
        """Return a line for each map and size."""
        return [Line(_cells(each)) for each in self.times]

    def remarks(self) -> list[str]:
        """Say what was done."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return [
            "Milliseconds of one read and its gradient (of the identity: one read), in "
            "training mode;",
            f"in turns, medians. torch {torch.__version__}, float32, {threads}.",
        ]


def _cells(each: Times) -> tuple[str, ...]:
    return (
        _NAMES[each.subject],
        f"{each.size} x {each.size}",
        short(each.torch),
        f"{short(each.torch_low)} .. {short(each.torch_high)}",
        short(each.holdfast),
        f"{short(each.holdfast_low)} .. {short(each.holdfast_high)}",
        f"{each.times_faster:.2f} ({each.times_low:.2f} .. {each.times_high:.2f})",
    )


def compare(subject: str, size: int, rounds: int) -> Times:
    """Time one map at one size, torch's and ours in turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        contestants = _contestants(subject, size)
    counts = [_calls_of_a_block(run, clock) for run in contestants]
    taken: list[list[float]] = [[], []]
    gc.collect()
    for number in range(rounds):
        for i in (0, 1) if number % 2 else (1, 0):
            taken[i].append(_milliseconds(contestants[i], counts[i], clock))
    ratios = [theirs / ours for theirs, ours in zip(*taken, strict=True)]
    quartiles = [_quartiles(sample) for sample in (*taken, ratios)]
    figures = [x for low, median, high in quartiles for x in (median, low, high)]
    return Times(subject, size, *figures)


def _quartiles(sample: list[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
    return low, median, high


def _calls_of_a_block(run: Callable[[], object], clock: Callable[[], float]) -> int:
    """Return how many calls fill a block; these warm up, too."""
    count = 1
    while _milliseconds(run, count, clock) * count < 1e3 * _BLOCK:
        count *= 2
    return count


def _milliseconds(
    run: Callable[[], object], count: int, clock: Callable[[], float]
) -> float:
    started = clock()
    for _ in range(count):
        run()
    return 1e3 * (clock() - started) / count


def _contestants(subject: str, size: int) -> list[Callable[[], object]]:
    """Return what torch does and what holdfast does, of the same layer."""
    layer = nn.Linear(size, size, bias=False)
    theirs, ours = copy.deepcopy(layer), copy.deepcopy(layer)
    if subject == "identity":
        parametrize.register_parametrization(theirs, "weight", nn.Identity())
        register_parametrization(ours, "weight", nn.Identity())
        return [_reads(theirs), _reads(ours)]
    for library, module in ((parametrizations, theirs), (recipes, ours)):
        _parametrize(library, subject, module)
    G = torch.randn(size, size)
    return [_reads_and_differentiates(module, G) for module in (theirs, ours)]


def _parametrize(library: Any, subject: str, module: nn.Module) -> None:  # noqa: ANN401
    if subject in ("weight_norm", "spectral_norm"):
        getattr(library, subject)(module)
    else:
        name = "matrix_exp" if subject == "exp" else subject
        library.orthogonal(module, orthogonal_map=name)
        with torch.no_grad():  # away from the base, where some maps do nothing
            module.parametrizations.weight.original.add_(  # pyright: ignore
                0.1 * torch.randn_like(module.parametrizations.weight.original)  # pyright: ignore
            )


def _reads(module: nn.Module) -> Callable[[], object]:
    return lambda: module.weight


def _reads_and_differentiates(
    module: nn.Module, G: torch.Tensor
) -> Callable[[], object]:
    parameters = [*module.parameters()]

    def run() -> object:
        W: Any = module.weight
        return torch.autograd.grad(W, parameters, G)

    return run
