"""Ways to keep a matrix orthonormal, and how fast each comes near the optimum."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrizations
from torch.optim import Optimizer

import holdfast

from ..host import Host
from ..progress import Listener
from .problems import Problem, principal_components, procrustes
from .settings import Settings

TOLERANCE = 1e-6  # share that is left of the way from the start's loss to the best
RATES = (0.03, 0.1, 0.01)  # of Adam: each way is shown with the one that suits it


@dataclass(frozen=True)
class Way:
    """A library's way.

    Attributes:
        label: as the table has it.
        register: makes the weight orthonormal.
        move: lets its base follow the optimizer, if it is to.
        package: what has to be installed.
    """

    label: str
    register: Callable[[Host], object]
    move: Callable[[Host, Optimizer], object] | None = None
    package: str = "torch"

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.package) is not None


@dataclass(frozen=True)
class Race:
    """One way on one problem: share left and seconds gone after each step."""

    problem: Problem
    way: Way
    rate: float
    shares: Sequence[float]
    seconds: Sequence[float]
    weight: Tensor

    @property
    def arrived(self) -> bool:
        """Whether the tolerance was reached."""
        return self.shares[-1] <= TOLERANCE

    @property
    def rank(self) -> tuple[bool, float]:
        """Smaller is better: the time if it arrived, else how much is left."""
        last = self.seconds[-1] if self.arrived else self.shares[-1]
        return not self.arrived, last


def _geotorch(host: Host) -> None:
    start = host.weight.detach().clone()
    geotorch: Any = import_module("geotorch")
    geotorch.orthogonal(host, "weight")
    host.weight = start  # by itself it begins somewhere else


def _geotorch_moves(host: Host, optimizer: Optimizer) -> None:
    geotorch: Any = import_module("geotorch")

    def update(*_: object) -> None:
        geotorch.update_base(host, "weight")

    optimizer.register_step_post_hook(update)


WAYS = (
    Way("holdfast + Rebase", holdfast.orthogonal, holdfast.Rebase),
    Way("holdfast", holdfast.orthogonal),
    Way("torch, its default", parametrizations.orthogonal),
    Way(
        "torch, cayley",
        lambda host: parametrizations.orthogonal(host, orthogonal_map="cayley"),
    ),
    Way("GeoTorch + update_base", _geotorch, _geotorch_moves, "geotorch"),
    Way("GeoTorch", _geotorch, package="geotorch"),
)


def race_all(settings: Settings, listener: Listener) -> tuple[Race, ...]:
    """Let each way that is installed solve both problems."""
    problems = (
        principal_components(settings.pixels, settings.components, settings.seed),
        procrustes(settings.size, settings.seed),
    )
    return tuple(
        best_of_rates(problem, way, settings, listener)
        for problem in problems
        for way in WAYS
        if way.installed
    )


def best_of_rates(
    problem: Problem, way: Way, settings: Settings, listener: Listener
) -> Race:
    """Return the run with the best of the learning rates.

    A rate that takes longer than a better one did is given up there.
    """
    listener.started(f"{problem.name}: {way.label}", settings.steps * len(RATES))
    best: Race | None = None
    for rate in RATES:
        limit = best.seconds[-1] if best and best.arrived else settings.seconds
        run = race(problem, way, rate, settings.steps, limit)
        best = run if best is None or run.rank < best.rank else best
        listener.updated(settings.steps)
    assert best is not None
    listener.tested(f"{best.seconds[-1]:.2f} s" if best.arrived else "not reached")
    return best


def race(problem: Problem, way: Way, rate: float, steps: int, limit: float) -> Race:
    """Take steps of Adam until the tolerance or one of the limits is reached."""
    host = Host(problem.start)
    way.register(host)
    optimizer = torch.optim.Adam(host.parameters(), rate)
    if way.move is not None:
        way.move(host, optimizer)
    problem.loss(host.weight).backward()  # what is loaded only once is not timed
    shares, seconds = list[float](), list[float]()
    begin = time.perf_counter()
    while len(shares) < steps:
        optimizer.zero_grad()
        loss = problem.loss(host.weight)
        loss.backward()
        shares.append(problem.share_left(loss.item()))
        seconds.append(time.perf_counter() - begin)
        if shares[-1] <= TOLERANCE or seconds[-1] > limit:
            break
        optimizer.step()
    return Race(problem, way, rate, shares, seconds, host.weight.detach())
