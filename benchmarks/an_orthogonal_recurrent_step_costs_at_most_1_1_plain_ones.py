"""A training step of a recurrent net pays next to nothing for an orthogonal kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

import holdfast

from .reporting import OURS, TORCHS, Report, add, main, times_report
from .subjects import RECIPES
from .timing import Contestant, Effort, compare
from .weights import ROUNDS

KERNEL = "weight_hh_l0"
# a step takes a tenth of a second
LONG = 0.1


def training(make: Callable[[nn.Module], object], every: int, size: int) -> object:
    """Return a function that makes one training step of an RNN."""
    torch.manual_seed(0)
    steps = 200 if size > 8 else 5
    net = nn.RNN(10, size, nonlinearity="tanh")
    nn.init.orthogonal_(getattr(net, KERNEL))
    make(net)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-4)
    if every:
        holdfast.Rebase(net, optimizer, every=every)
    x, y = torch.randn(steps, 32, 10), torch.randn(steps, 32, size)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x)[0], y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def measure(effort: Effort) -> Report:
    """Time one step with and without the constraint."""
    claim = (
        "A recurrent training step with an orthogonal kernel costs at most 1.1 plain"
    )
    report = times_report(
        claim,
        "plain",
        "`nn.RNN(10, 128)` on 200 steps of a batch of 32: forward, backward, RMSprop. "
        "The kernel is the exponential of a skew matrix; with K = 1 its base follows.",
    )
    size = 8 if effort.quick else 128

    def plain(net: nn.Module) -> nn.Module:
        return net

    def orthogonal(library: object) -> Callable[[nn.Module], object]:
        return lambda net: library.orthogonal(net, KERNEL, "matrix_exp")

    made = {
        "plain": (plain, 0),
        OURS: (orthogonal(holdfast), 0),
        f"{OURS}, K = 1": (orthogonal(holdfast), 1),
        TORCHS: (orthogonal(RECIPES[TORCHS]), 0),
        "again": (plain, 0),
    }
    contestants = [
        Contestant(name, "step()", {"step": training(make, every, size)})
        for name, (make, every) in made.items()
    ]
    effort = replace(effort, rounds=min(effort.rounds, 3 * ROUNDS))
    if not effort.quick:
        effort = replace(effort, block=LONG)
    comparison = compare(contestants, effort)
    add(report, f"{size} units", comparison, target=1.1)
    moving = comparison.ratios(f"{OURS}, K = 1", "plain").median
    verdict = report.judge(f"{size} units, K = 1: / plain", moving, 1.1)
    report.notes.append(f"With K = 1: {moving:.2f}, {verdict}.")
    return report


if __name__ == "__main__":
    main(measure)
