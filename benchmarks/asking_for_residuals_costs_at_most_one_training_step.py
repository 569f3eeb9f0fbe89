"""What callbacks ask every 50 steps costs at most one of these: 2 % of the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

import holdfast

from .reporting import OURS, Report, add, main, times_report
from .timing import Contestant, Effort, compare

ROUNDS = 15
RECIPES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "orthogonal": holdfast.orthogonal,
    "Cayley": partial(holdfast.orthogonal, orthogonal_map="cayley"),
    "weight norm": holdfast.weight_norm,
    "spectral norm": holdfast.spectral_norm,
}


def training(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return one step of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with holdfast.cached(model):
            model(x).square().mean().backward()
        optimizer.step()

    return step


def measure(effort: Effort) -> Report:
    """Time `residuals` beside a training step of the same model, on one thread."""
    layers, batch = (2, 2) if effort.quick else (12, 256)
    report = times_report(
        "Asking for all residuals costs at most one training step: 2 % of fifty",
        "step",
        f"{layers} layers `nn.Linear(n, n)` with GELU, batch {batch}, AdamW, in "
        "`cached(model)`; `holdfast.residuals(model)` beside it.",
    )
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    for size in (4,) if effort.quick else (64, 256):
        for name, recipe in RECIPES.items():
            parts = [(recipe(nn.Linear(size, size)), nn.GELU()) for _ in range(layers)]
            model = nn.Sequential(*(part for pair in parts for part in pair))
            step = training(model, torch.randn(batch, size))
            step()  # coordinates leave the base
            ask = partial(holdfast.residuals, model)
            contestants = [
                Contestant("step", "step()", {"step": step}),
                Contestant(OURS, "ask()", {"ask": ask}),
            ]
            add(report, f"{name}, n = {size}", compare(contestants, effort), target=1.0)
    return report


if __name__ == "__main__":
    main(measure)
