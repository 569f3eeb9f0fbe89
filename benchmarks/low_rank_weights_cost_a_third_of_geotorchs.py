"""Low-rank weights cost a third of GeoTorch's, and LoRA no more than its formula."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from holdfast import maps

from .invertible_and_definite_weights_cost_a_third_of_geotorchs import (
    A_THIRD,
    NO_MORE,
    geotorchs,
    ours,
    torchs,
)
from .reporting import OURS, TORCHS, Report, add, main, times_report
from .timing import Contestant, Effort, compare
from .weights import GEOTORCH, ROUNDS, Holder, Maker

SETTING = (
    "`layer.weight.backward(G)`: one read and its gradient, float32. Coordinates are "
    "normal with variance 1/n. For given ranks, torch is singular vectors by two of "
    "its exponentials, which is GeoTorch's way; for LoRA it is the formula as a module."
)


class Factors(nn.Module):
    """Singular vectors by exponentials of square skew matrices, and values."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, X: Tensor, s: Tensor, Y: Tensor) -> Tensor:
        U, V = (torch.matrix_exp(Z.tril(-1) - Z.tril(-1).mT) for Z in (X, Y))
        return (U[:, : self.rank] * s) @ V[:, : self.rank].mT

    def right_inverse(self, W: Tensor) -> tuple[Tensor, ...]:
        n, k = W.shape
        return torch.zeros(n, n), torch.ones(self.rank), torch.zeros(k, k)


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


def spaces(rank: int) -> dict[str, tuple[float, dict[str, Maker]]]:
    """Return what gets to each space, and the target beside torch's way."""
    factors = {TORCHS: torchs(Factors(rank))}
    low, fixed = geotorchs("low_rank", rank), geotorchs("fixed_rank", rank)
    lora = {TORCHS: torchs(Formula(rank)), OURS: ours(maps.LoRA(rank))}
    return {
        "rank <=": (A_THIRD, {**factors, **low, OURS: ours(maps.LowRank(rank))}),
        "rank =": (A_THIRD, {**factors, **fixed, OURS: ours(maps.FixedRank(rank))}),
        "LoRA": (NO_MORE, lora),
    }


def read(name: str, make: Maker, G: Tensor) -> Contestant:
    """Return one forward and backward of a weight, away from where it starts."""
    layer = make(Holder(tuple(G.shape)))
    for original in layer.parametrizations.weight.parameters():
        original.data.add_(torch.randn_like(original) / G.shape[0] ** 0.5)
    return Contestant(name, "layer.weight.backward(G)", {"layer": layer, "G": G})


def measure(effort: Effort) -> Report:
    """Time a read of each space, beside torch and GeoTorch."""
    claim = "Low-rank weights cost a third of GeoTorch's, LoRA no more than its formula"
    report = times_report(claim, TORCHS, SETTING)
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    sizes = ((4, 3, 2),) if effort.quick else ((64, 64, 8), (256, 32, 8))
    for n, k, rank in sizes:
        for space, (target, made) in spaces(rank).items():
            case, G = f"{n} x {k}, {space} {rank}", torch.randn(n, k)
            contestants = [read(name, make, G) for name, make in made.items()]
            comparison = compare(contestants, effort)
            add(report, case, comparison, target)
            if GEOTORCH in comparison.seconds:
                ratio = comparison.ratios(OURS, GEOTORCH).median
                verdict = report.judge(f"{case}: / {GEOTORCH}", ratio, A_THIRD)
                report.notes.append(f"{case}: {ratio:.3f} of GeoTorch's, {verdict}.")
    return report


if __name__ == "__main__":
    main(measure)
