"""A map per block costs what the map costs for a batch of as many matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

import holdfast
from holdfast import maps

from .reporting import OURS, Report, add, main, times_report
from .timing import Contestant, Effort, compare
from .weights import ROUNDS, Holder

GATES = 4
BATCH = "batch"
SETTING = (
    "`layer.weight.backward(G)`: one read and its gradient, float32, away from where "
    "it starts. The base is the same map on a weight of shape 4 x n x n; the blocks "
    "are those of a weight of shape 4n x n, or n x 4n."
)


def read(
    name: str, shape: tuple[int, ...], make: Callable[[], nn.Module]
) -> Contestant:
    """Return one forward and backward of a weight."""
    layer = Holder(shape)
    holdfast.register_parametrization(layer, "weight", make())
    for original in layer.parametrizations.weight.parameters():
        original.data.add_(torch.randn_like(original) / original.shape[-1] ** 0.5)
    names = {"layer": layer, "G": torch.randn(shape)}
    return Contestant(name, "layer.weight.backward(G)", names)


def measure(effort: Effort) -> Report:
    """Time the blocks beside the batch."""
    claim = "A map on each of four blocks costs at most 1.1 times the map on a batch"
    report = times_report(claim, BATCH, SETTING)
    effort = replace(effort, rounds=min(effort.rounds, 3 * ROUNDS))
    n = 4 if effort.quick else 128
    inner: dict[str, Callable[[], holdfast.Parametrization]] = {
        "exponential": maps.Orthogonal,
        "Cayley": lambda: maps.Orthogonal("cayley"),
        "thin Cayley": maps.ThinOrthogonal,
    }
    for case, make in inner.items():
        contestants = [
            read(BATCH, (GATES, n, n), make),
            read(OURS, (GATES * n, n), lambda make=make: maps.PerBlock(make(), GATES)),
            read(
                f"{OURS}, columns",
                (n, GATES * n),
                lambda make=make: maps.PerBlock(make(), GATES, dim=1),
            ),
            read("again", (GATES, n, n), make),
        ]
        add(report, f"{n} x {n}, {case}", compare(contestants, effort), target=1.1)
    return report


if __name__ == "__main__":
    main(measure)
