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

LOW_RANK = partial(holdfast.low_rank, rank=8)
CASES = {
    "48 orthogonal 64 x 64": (holdfast.orthogonal, 48, 32, 64, False),
    "48 orthogonal 64 x 64, with a scope": (holdfast.orthogonal, 48, 32, 64, True),
    "4 of low rank 256 x 256": (LOW_RANK, 4, 16, 256, False),
}
STEPS = 500
RUNS = 5


def model_of(
    recipe: Callable[[nn.Module], nn.Module], layers: int, size: int
) -> nn.Sequential:
    """Return square layers with an activation after every fourth."""
    model = nn.Sequential()
    for i in range(layers):
        model.append(recipe(nn.Linear(size, size)))
        if i % 4 == 3:
            model.append(nn.ReLU())
    return model


def training(
    model: nn.Module, batch: int, size: int, *, scope: bool
) -> Callable[[], None]:
    """Return a function that makes one training step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(batch, size)

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
    steps, runs = (10, 1) if effort.quick else (STEPS, RUNS)
    report = Report(
        "Watching a model costs at most 2 % of its training steps",
        ["case", "contestant", "step", "watching, for each step", "share", "target"],
        f"Square `nn.Linear` and Adam; {steps} steps, {runs} times: medians for a "
        "step, means for looking. All residuals every 50 steps, and all singular "
        "values every 500, as far as that takes no more than 2 % of the time, as "
        "`holdfast.Watch` does unless it is told otherwise. With a scope, a step "
        "evaluates all weights as one batch: it is the shortest step there is.",
    )
    for case, (recipe, layers, batch, size, scope) in CASES.items():
        if effort.quick:
            layers, size = 2, 8
        model = model_of(recipe, layers, size)
        step = training(model, batch, size, scope=scope)
        watch = holdfast.Watch(model, lambda *_: None, lost="stop")
        watched(step, watch, 2)
        pairs = [watched(step, watch, steps) for _ in range(runs)]
        training_time, watching_time = map(sum, zip(*pairs, strict=True))
        share = 100 * watching_time / training_time
        report.rows.append(
            [
                case,
                OURS,
                time_text(statistics.median(all_ for all_, _ in pairs) / steps),
                time_text(watching_time / (runs * steps)),
                f"{share:.2f} %",
                report.judge(f"{case}: share of a step", share, 2.0, " %"),
            ]
        )
        report.raw[case] = pairs
    return report


if __name__ == "__main__":
    main(measure)
