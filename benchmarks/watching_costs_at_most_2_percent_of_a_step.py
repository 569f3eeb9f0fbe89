"""Residuals every 50 steps, and spectra every 500, cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

import holdfast

from .reporting import OURS, Report, add, main, times_report
from .timing import Contestant, Effort, compare

BATCH = 32
ROUNDS = 15
# a look at spectra takes two steps
LONG = 0.1


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


def looking(model: nn.Module, *, spectra: bool) -> Callable[[], None]:
    """Return a function that looks after a step that changed every weight."""
    watch = holdfast.Watch(
        model, lambda *_: None, every=1, spectra_every=int(spectra), lost="stop"
    )
    done = 0

    def look() -> None:
        nonlocal done
        done += 1
        watch.after_step(done)

    return look


def measure(effort: Effort) -> Report:
    """Time a step, and the looks that come every 50 and every 500 steps."""
    blocks, size = (1, 8) if effort.quick else (12, 64)
    report = times_report(
        "Watching a model costs at most 2 % of its training steps",
        "step",
        f"{4 * blocks} orthogonal `nn.Linear({size}, {size})`, a batch of {BATCH}, "
        "Adam. With a scope, a step evaluates all weights as one batch: it is the "
        "shortest step there is. A look is all residuals; a long look all singular "
        "values too. The share is that of looks every 50 steps and long ones every "
        "500, which is what `holdfast.Watch` does unless it is told otherwise.",
    )
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    if not effort.quick:
        effort = replace(effort, block=LONG)
    for case, scope in (("plain loop", False), ("with a scope", True)):
        model = model_of(blocks, size)
        calls = {
            "step": training(model, size, scope=scope),
            f"{OURS}, a look": looking(model, spectra=False),
            f"{OURS}, a long look": looking(model, spectra=True),
        }
        contestants = [
            Contestant(name, "call()", {"call": call}) for name, call in calls.items()
        ]
        comparison = compare(contestants, effort)
        add(report, case, comparison)
        look, long = (comparison.ratios(name, "step").median for name in [*calls][1:])
        share = 100 * (0.9 * look + 0.1 * long) / 50
        verdict = report.judge(f"{case}: share of a step", share, 2.0, " %")
        report.notes.append(f"{case}: {share:.2f} % of a step, {verdict}.")
    return report


if __name__ == "__main__":
    main(measure)
