"""Registering a map on many layers costs no more than in torch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from .reporting import Report, add, main, times_report
from .subjects import LIBRARIES, RECIPES, Symmetric
from .timing import Contestant, Effort, compare

LAYERS = 1000
# Registering them is factoring the matrix, in double precision here: no target.
FACTORED = ("spectral_norm", "orthogonal")


def contestant(name: str, register: Callable[[nn.Module], Any], layers: int) -> Any:
    """Return the contestant that registers on ``layers`` fresh layers in each block."""
    stock: list[nn.Module] = []
    done: list[nn.Module] = []  # keeps them, as a model would

    def prepare() -> None:
        stock.clear()
        done.clear()
        if layers == LAYERS:
            gc.collect()  # the classes that torch makes are cycles
        spare = 2 + layers // 50  # used up as warm-up
        stock.extend(nn.Linear(8, 8) for _ in range(layers + spare))

    names = {"register": register, "stock": stock, "done": done}
    statement = "done.append(register(stock.pop()))"
    return Contestant(name, statement, names, prepare=prepare, number=layers)


def symmetric(library: Any) -> Callable[[nn.Module], Any]:
    """Return what registers the tutorial's map with a library."""
    return lambda m: library.register_parametrization(m, "weight", Symmetric())


def measure(effort: Effort) -> Report:
    """Time registrations on fresh layers beside torch's."""
    layers = 20 if effort.quick else LAYERS
    effort = replace(effort, rounds=min(effort.rounds, 9))
    claim = "Registering costs no more than in torch"
    setting = f"One registration of {layers}, each on an `nn.Linear(8, 8)` of its own."
    report = times_report(claim, "torch", setting)
    cases = {"Symmetric": {n: symmetric(lib) for n, lib in LIBRARIES.items()}}
    for recipe in ("weight_norm", "spectral_norm", "orthogonal"):
        cases[recipe] = {n: getattr(lib, recipe) for n, lib in RECIPES.items()}
    for case, makers in cases.items():
        contestants = [contestant(n, make, layers) for n, make in makers.items()]
        target = None if case in FACTORED else 1.0
        add(report, case, compare(contestants, effort), target)
    return report


if __name__ == "__main__":
    main(measure)
