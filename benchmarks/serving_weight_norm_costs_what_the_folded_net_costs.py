"""Without gradients, weight normalization costs nothing (C8)."""

from __future__ import annotations

from functools import partial

import torch

from .reporting import Report, main, times_report
from .subjects import serving, vocoder
from .timing import Effort


def measure(effort: Effort) -> Report:
    """Time forwards of a weight-normed stack of convolutions beside the folded one."""
    layers = 4 if effort.quick else 82

    claim = "Serving a weight-normed net costs at most 1.05 of the folded net"
    setting = f"{layers} x `weight_norm(Conv1d(64, 64, 3))` on (1, 64, 32), no_grad."
    report = times_report(claim, "folded", setting)
    make, x = partial(vocoder, layers=layers), torch.randn(1, 64, 32)
    serving(report, "forward", make, "weight_norm", x, effort)
    return report


if __name__ == "__main__":
    main(measure)
