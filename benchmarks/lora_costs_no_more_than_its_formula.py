"""A read of a LoRA costs no more than its formula as a module of torch's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from holdfast import maps

from .reporting import OURS, TORCHS, Report, add, main, times_report
from .timing import Contestant, Effort, compare
from .weights import ROUNDS, Holder, ours, spread

SETTING = (
    "`layer.weight.backward(G)`: one read and its gradient, float32. Coordinates are "
    "normal with variance 1/n, the rank is 8."
)

# What is left open is the error of the method.
NO_MORE = 1.1


class Formula(nn.Module):
    """A base plus a product."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, B: Tensor, A: Tensor) -> Tensor:
        return torch.addmm(self.base, B, A)

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor]:
        self.register_buffer("base", W.clone())
        return torch.zeros(W.shape[0], self.rank), torch.randn(self.rank, W.shape[1])


def torchs(layer: nn.Module, rank: int) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Formula(rank))


def measure(effort: Effort) -> Report:
    """Time a read of a square and of a thin weight."""
    report = times_report("A LoRA costs no more than its formula", TORCHS, SETTING)
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    for n, k, rank in ((4, 3, 2),) if effort.quick else ((64, 64, 8), (256, 32, 8)):
        layers = {
            TORCHS: torchs(Holder((n, k)), rank),
            OURS: ours(maps.LoRA(rank))(Holder((n, k))),
        }
        G = torch.randn(n, k)
        contestants = [
            Contestant(name, "layer.weight.backward(G)", {"layer": spread(x), "G": G})
            for name, x in layers.items()
        ]
        add(report, f"{n} x {k}", compare(contestants, effort), NO_MORE)
    return report


if __name__ == "__main__":
    main(measure)
