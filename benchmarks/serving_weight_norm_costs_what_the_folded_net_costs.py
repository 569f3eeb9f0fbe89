"""Without gradients, weight normalization costs nothing (C8)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .reporting import Report, main, times_report
from .subjects import serving
from .timing import Effort


def measure(effort: Effort) -> Report:
    """Time forwards of a weight-normed stack of convolutions beside the folded one."""
    layers = 4 if effort.quick else 82

    def make(parametrize: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
        convolutions = (nn.Conv1d(64, 64, 3, padding=1) for _ in range(layers))
        return nn.Sequential(*map(parametrize, convolutions))

    claim = "Serving a weight-normed net costs at most 1.05 of the folded net"
    setting = f"{layers} x `weight_norm(Conv1d(64, 64, 3))` on (1, 64, 32), no_grad."
    report = times_report(claim, "folded", setting)
    serving(report, "forward", make, "weight_norm", torch.randn(1, 64, 32), effort)
    return report


if __name__ == "__main__":
    main(measure)
