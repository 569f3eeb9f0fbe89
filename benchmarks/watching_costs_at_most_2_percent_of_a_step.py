"""Residuals every 50 steps, and spectra every 500, cost next to nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import holdfast

from .reporting import OURS, Report, main, time_text
from .timing import Effort

BATCH = 32
STEPS = 500
RUNS = 5


def model_of(blocks: int, size: int) -> nn.Sequential:
    """Return blocks of four orthogonal layers."""
    layer = partial(nn.Linear, size, size)
    return nn.Sequential(
        *(
            nn.Sequential(*(holdfast.orthogonal(layer()) for _ in range(4)), nn.ReLU())
            for _ in range(blocks)
        )
    )


def training(model: nn.Module, size: int, *, scope: bool) -> Callable[[], None]:
    """Return a function that makes one training step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(BATCH, size)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    def scoped() -> None:
        with holdfast.cached(model):
            step()

    return scoped if scope else step


def watched(
    step: Callable[[], None], watch: holdfast.Watch, steps: int
) -> tuple[float, float]:
    """Return the seconds of all steps, and of all that the watch did after them."""
    clock = time.process_time
    training, watching = 0.0, 0.0
    for i in range(steps):
        start = clock()
        step()
        between = clock()
        watch.after_step(i)
        training += between - start
        watching += clock() - between
    return training, watching


def measure(effort: Effort) -> Report:
    """Train for a while, and say which share of the time the watch took."""
    blocks, size = (1, 8) if effort.quick else (12, 64)
    steps, runs = (10, 1) if effort.quick else (STEPS, RUNS)
    report = Report(
        "Watching a model costs at most 2 % of its training steps",
        ["case", "contestant", "step", "watching, for each step", "share", "target"],
        f"{4 * blocks} orthogonal `nn.Linear({size}, {size})`, a batch of {BATCH}, "
        f"Adam; {steps} steps, median of {runs} runs. All residuals every 50 steps, "
        "and all singular values every 500, as `holdfast.Watch` does unless it is told "
        "otherwise. With a scope, a step evaluates all weights as one batch: it is the "
        "shortest step there is.",
    )
    for case, scope in (("plain loop", False), ("with a scope", True)):
        model = model_of(blocks, size)
        step = training(model, size, scope=scope)
        watch = holdfast.Watch(model, lambda *_: None, lost="stop")
        watched(step, watch, 2)
        pairs = [watched(step, watch, steps) for _ in range(runs)]
        share = statistics.median(100 * looks / all_ for all_, looks in pairs)
        report.rows.append(
            [
                case,
                OURS,
                time_text(statistics.median(all_ for all_, _ in pairs) / steps),
                time_text(statistics.median(looks for _, looks in pairs) / steps),
                f"{share:.2f} %",
                report.judge(f"{case}: share of a step", share, 2.0, " %"),
            ]
        )
        report.raw[case] = pairs
    return report


if __name__ == "__main__":
    main(measure)
