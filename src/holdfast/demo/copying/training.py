"""Train one network per kind and length, all on the same sequences."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from ..progress import Listener
from ..running import percent
from .network import Kind, Network, OrthogonalRNN, build_network
from .settings import Settings
from .task import cross_entropy, recall, sequences

_TESTED = 256  # sequences that the result is an average of
_WARM_UP = 0.1  # share of the updates before the learning rate is at its largest


@dataclass(frozen=True)
class Run:
    """All that is known of one training.

    Attributes:
        kind: what was trained.
        length: the number T of steps to remember.
        losses: cross entropies before each update, of sequences that were new then.
        recalls: shares of letters that were right, of the same sequences.
        loss: the cross entropy of other new sequences in the end.
        recall: the share of their letters that are right.
        seconds: what the updates took.
    """

    kind: Kind
    length: int
    losses: tuple[float, ...]
    recalls: tuple[float, ...]
    loss: float
    recall: float
    seconds: float


def train_all(settings: Settings, listener: Listener) -> tuple[Run, ...]:
    """Train every network for every length."""
    return tuple(
        train(kind, length, settings, listener)
        for length in settings.lengths
        for kind in Kind
    )


def train(kind: Kind, length: int, settings: Settings, listener: Listener) -> Run:
    """Train one network; sequences and start come from the seed."""
    listener.started(f"T = {length}, {kind.value}", settings.updates)
    generator = torch.Generator().manual_seed(settings.seed)
    network = build_network(kind, settings)
    optimizer, schedule = _optimizer(network, settings)
    losses, recalls, start = list[float](), list[float](), time.perf_counter()
    for _ in range(settings.updates):
        inputs, answers = sequences(length, settings.batch, generator)
        logits = network(inputs)
        loss = cross_entropy(logits, answers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        recalls.append(recall(logits, answers))
        listener.updated()
        listener.tested(f"{percent(recalls[-1])} right")
    seconds = time.perf_counter() - start
    inputs, answers = sequences(length, _TESTED, generator)
    with torch.no_grad():
        logits = network(inputs)
    return Run(
        kind,
        length,
        tuple(losses),
        tuple(recalls),
        cross_entropy(logits, answers).item(),
        recall(logits, answers),
        seconds,
    )


def _optimizer(
    network: Network, settings: Settings
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return RMSprop, slower for an orthogonal kernel, and one cycle of its rates.

    The kernel is applied T times, so that a change of it counts T times.
    """
    recurrent = list[nn.Parameter]()
    if isinstance(network.layer, OrthogonalRNN):
        recurrent += network.layer.recurrent.parameters()
    others = [p for p in network.parameters() if all(p is not r for r in recurrent)]
    groups = [{"params": others}, {"params": recurrent}]
    optimizer = torch.optim.RMSprop(groups, alpha=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [settings.rate, settings.recurrent_rate],
        total_steps=settings.updates,
        pct_start=_WARM_UP,
        cycle_momentum=False,
    )
    return optimizer, schedule
