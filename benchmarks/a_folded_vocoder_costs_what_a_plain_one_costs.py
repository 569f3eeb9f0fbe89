"""A folded net of 82 weight-normed convolutions is as fast as one that has none."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

import holdfast

from .reporting import OURS, TORCHS, Report, add, main, times_report
from .subjects import MODES, RECIPES, folded, vocoder
from .timing import Contestant, Effort, compare


def measure(effort: Effort) -> Report:
    """Time forwards of the plain net, of ours folded, and of both not folded."""
    layers = 4 if effort.quick else 82
    net = vocoder(holdfast.weight_norm, layers).eval()
    nets: dict[str, nn.Module] = {
        "plain": folded(net),
        "plain again": folded(net),
        OURS: holdfast.fold(copy.deepcopy(net)),
        f"{TORCHS}, not folded": vocoder(RECIPES[TORCHS].weight_norm, layers).eval(),
        "holdfast, not folded": net,
    }
    report = times_report(
        "A folded net of weight-normed convolutions costs at most 1.01 of a plain one",
        "plain",
        f"{layers} x `weight_norm(Conv1d(64, 64, 3))` on (1, 64, 32), after `fold`.",
    )
    effort = replace(effort, block=5 * effort.block)
    x = torch.randn(1, 64, 32)
    for case, mode in MODES.items():
        contestants = [
            Contestant(name, "net(x)", {"net": net, "x": x}, mode)
            for name, net in nets.items()
        ]
        add(report, case, compare(contestants, effort), target=1.01)
    return report


if __name__ == "__main__":
    main(measure)
