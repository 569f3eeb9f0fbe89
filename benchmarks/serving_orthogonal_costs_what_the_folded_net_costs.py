"""Without gradients, orthogonal weights cost nothing (C8)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .reporting import Report, main, times_report
from .subjects import serving
from .timing import Effort


def measure(effort: Effort) -> Report:
    """Time forwards of a stack of orthogonal layers beside the folded one."""
    layers, size = (2, 32) if effort.quick else (8, 256)

    def make(parametrize: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
        linears = (nn.Linear(size, size) for _ in range(layers))
        return nn.Sequential(*map(parametrize, linears))

    claim = "Serving an orthogonal net costs at most 1.05 of the folded net"
    setting = f"{layers} x `orthogonal(Linear({size}, {size}))`, batch 32, no_grad."
    report = times_report(claim, "folded", setting)
    serving(report, "forward", make, "orthogonal", torch.randn(32, size), effort)
    return report


if __name__ == "__main__":
    main(measure)
