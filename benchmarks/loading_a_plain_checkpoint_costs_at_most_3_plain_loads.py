"""A plain checkpoint goes into a weight-normed model through the right inverse (S1)."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

import holdfast

from .reporting import OURS, Report, add, main, times_report
from .timing import Contestant, Effort, compare


def stack(
    size: int, layers: int, parametrize: Callable[[nn.Module], nn.Module]
) -> nn.Sequential:
    """Return linear layers, each after `parametrize`."""
    return nn.Sequential(*(parametrize(nn.Linear(size, size)) for _ in range(layers)))


def measure(effort: Effort) -> Report:
    """Time loading a plain state into a plain and a weight-normed model."""
    claim = "Loading a plain checkpoint costs at most 3 plain `load_state_dict`"
    layers = 3 if effort.quick else 100
    setting = f"`nn.Linear(n, n)`, layers: {layers}; torch cannot load these at all."
    report = times_report(claim, "plain", setting)
    for size in (8,) if effort.quick else (64, 256, 1024):
        plain = stack(size, layers, lambda layer: layer)
        normed = stack(size, layers, holdfast.weight_norm)
        # other memory: copying a tensor onto itself is free
        state = copy.deepcopy(plain.state_dict())
        models = {"plain": plain, "plain again": plain, OURS: normed}
        contestants = [
            Contestant(name, "m.load_state_dict(state)", {"m": model, "state": state})
            for name, model in models.items()
        ]
        names = {"m": normed, "state": copy.deepcopy(normed.state_dict())}
        contestants.append(
            Contestant("its own checkpoint", "m.load_state_dict(state)", names)
        )
        add(report, f"n = {size}", compare(contestants, effort), target=3.0)
    return report


if __name__ == "__main__":
    main(measure)
