"""A training step of twelve blocks with orthogonal weights, beside one without."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

import holdfast

from .reporting import OURS, TORCHS, Report, add, main, times_report
from .subjects import RECIPES
from .timing import Contestant, Effort, compare

ROUNDS = 11
SIZE, BATCH, BLOCKS, LAYERS = 64, 512, 12, 4


class Block(nn.Module):
    """Four square layers, and back to the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        layers = [m for _ in range(LAYERS) for m in (nn.Linear(size, size), nn.GELU())]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def training(
    model: nn.Module, x: Tensor, *, foreach: bool | None = None, rebase: bool = False
) -> Callable[[], None]:
    """Return one step of AdamW; ``None``: without a scope."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    if rebase:
        holdfast.Rebase(model, optimizer, every=1)

    def plain() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    def step() -> None:
        with holdfast.cached(model, foreach=foreach):
            plain()

    plain()  # coordinates leave the base
    return plain if foreach is None else step


def measure(effort: Effort) -> Report:
    """Time a training step, on one thread."""
    size, batch, blocks = (4, 2, 2) if effort.quick else (SIZE, BATCH, BLOCKS)
    report = times_report(
        "An orthogonal training step costs at most 1.4 plain ones",
        "plain",
        f"{blocks} blocks of {LAYERS} layers `nn.Linear({size}, {size})` with GELU, "
        f"batch {batch}, AdamW, inside `cached(model, foreach=True)`; in the rows with "
        "Rebase, `Rebase(model, optimizer, every=1)` moves the base points of ours.",
    )
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    x = torch.randn(batch, size)
    for kind, rebase in (
        ("matrix_exp", False),
        ("matrix_exp", True),
        ("cayley", False),
        ("cayley", True),
    ):
        plain = nn.Sequential(*(Block(size) for _ in range(blocks)))
        models = {"plain": plain, "plain again": copy.deepcopy(plain)}
        for name in (TORCHS, OURS):
            models[name] = copy.deepcopy(plain)
            for module in list(models[name].modules()):
                if isinstance(module, nn.Linear):
                    RECIPES[name].orthogonal(module, orthogonal_map=kind)
        steps = {
            name: training(
                model,
                x,
                foreach=True if name == OURS else None,
                rebase=rebase and name == OURS,
            )
            for name, model in models.items()
        }
        contestants = [
            Contestant(name, "step()", {"step": step}) for name, step in steps.items()
        ]
        label = f"{kind}, Rebase" if rebase else kind
        add(report, label, compare(contestants, effort), target=1.4)
    return report


if __name__ == "__main__":
    main(measure)
