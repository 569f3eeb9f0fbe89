"""All weights of a model, evaluated as one batch, beside torch one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

import holdfast

from .reporting import OURS, TORCHS, Report, add, main, times_report
from .subjects import RECIPES
from .timing import Contestant, Effort, compare
from .weights import moved

# layers, their size, and what torch's time may be divided by
MODELS = ((256, 8, 10), (128, 16, 8), (64, 32, 5))
QUICK_MODELS = ((4, 4, 10),)
ROUNDS = 15
STATEMENT = "step()"


def model_of(count: int, size: int, library: Any, kind: str) -> nn.ModuleList:
    """Return layers whose coordinates are away from their bases."""
    layers = (nn.Linear(size, size, bias=False) for _ in range(count))
    return nn.ModuleList(
        moved(library.orthogonal(layer, orthogonal_map=kind)) for layer in layers
    )


def reading_all(model: nn.ModuleList, *, foreach: bool | None) -> Callable[[], None]:
    """Return one forward and backward of all weights; ``None``: without a scope."""
    layers, parameters = list(model), list(model.parameters())
    G = torch.stack([torch.randn_like(p) for p in parameters])

    def read() -> None:
        for p in parameters:
            p.grad = None
        torch.stack([layer.weight for layer in layers]).backward(G)

    def step() -> None:
        with holdfast.cached(model, foreach=foreach):
            read()

    return read if foreach is None else step


def measure(effort: Effort) -> Report:
    """Time a stack of all weights and its gradient."""
    report = times_report(
        "Batched weights cost a tenth to a fifth of torch's",
        TORCHS,
        "`torch.stack([layer.weight for layer in layers]).backward(G)`, float32, "
        "inside `cached(model, foreach=True)`; one by one, without a scope.",
    )
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    for count, size, fraction in QUICK_MODELS if effort.quick else MODELS:
        for kind in ("matrix_exp", "cayley"):
            make = partial(model_of, count, size, kind=kind)
            theirs, ours = (make(library=RECIPES[name]) for name in (TORCHS, OURS))
            steps = {
                TORCHS: reading_all(theirs, foreach=None),
                f"{OURS}, one by one": reading_all(ours, foreach=None),
                OURS: reading_all(ours, foreach=True),
            }
            contestants = [
                Contestant(name, STATEMENT, {"step": step})
                for name, step in steps.items()
            ]
            case = f"{count} x ({size} x {size}), {kind}"
            add(report, case, compare(contestants, effort), target=1 / fraction)
    return report


if __name__ == "__main__":
    main(measure)
