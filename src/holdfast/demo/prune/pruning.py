"""A small network for digits, and ways to give its weights zeros."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

import holdfast
from holdfast import Parametrization, maps
from holdfast.sets import NMSparse

from ..digits.classifier import Classifier, layers
from ..progress import Listener
from ..running import percent
from .settings import Settings

_HIDDEN, _RATE = 64, 3e-3
_RISE = 0.3  # share of the steps in which the zeros of a schedule become more


class Pattern(NamedTuple):
    """N of every M weights along a row are kept."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return 1 - self.n / self.m


PATTERNS = (Pattern(4, 8), Pattern(2, 8), Pattern(1, 8), Pattern(1, 16))


@dataclass(frozen=True)
class Way:
    """A way to prune: how it is called, and what it does."""

    label: str
    prune: Callable[[Training, Pattern], nn.Sequential]


@dataclass(frozen=True)
class Pruned:
    """What a way made of all runs with one pattern; ``None`` stands for no zeros.

    Attributes:
        way: its label.
        pattern: of the zeros.
        accuracies: on the test set, one per run.
        holds: whether at most N of every M weights are nonzero, in all layers.
        zeros: the share of zeros in all layers' weights.
        weight: that of the first layer, of the first run.
        sparsities: the share of zeros after each step of the first run.
    """

    way: str
    pattern: Pattern | None
    accuracies: Sequence[float]
    holds: bool
    zeros: float
    weight: Tensor
    sparsities: Sequence[float]

    @property
    def accuracy(self) -> float:
        """The mean of the runs."""
        return sum(self.accuracies) / len(self.accuracies)


class Training:
    """One run: digits, and networks that train on them with zeros or without."""

    def __init__(self, settings: Settings, run: int, listener: Listener) -> None:
        seed, epochs = settings.seed, settings.epochs
        self.digits = Classifier(seed, seed + run, epochs, listener)
        self.sparsities = list[float]()

    def network(self) -> nn.Sequential:
        """Return the network as it starts."""
        return self.digits.start(_HIDDEN)

    def fit(
        self, network: nn.Sequential, epochs: int, *, scheduled: bool = False
    ) -> nn.Sequential:
        """Train with Adam; schedules rise by themselves."""
        optimizer = torch.optim.Adam(network.parameters(), _RATE)
        if scheduled:
            holdfast.Sparsify(network, optimizer)

        def record(*_: object) -> None:
            self.sparsities.append(zeros(network))

        optimizer.register_step_post_hook(record)
        self.digits.fit(network, optimizer, self.digits.images, epochs)
        return network

    @cached_property
    def dense(self) -> nn.Sequential:
        """The network without zeros."""
        return self.fit(self.network(), self.digits.epochs)

    def accuracy(self, network: nn.Module) -> float:
        """Return the share of the digits that are recognized."""
        return self.digits.accuracy(network, self.digits.tested)


def register(
    network: nn.Sequential, make: Callable[[nn.Linear], Parametrization]
) -> nn.Sequential:
    """Parametrize the weight of every layer."""
    for layer in layers(network):
        holdfast.register_parametrization(layer, "weight", make(layer))
    return network


def zeros(network: nn.Sequential) -> float:
    """Return the share of zeros in the weights of all layers."""
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers(network)])
    return (weights == 0).double().mean().item()


def one_shot(training: Training, pattern: Pattern) -> nn.Sequential:
    """Prune a trained network, and leave it at that."""
    # Its steps are those that the dense network has taken.
    training.digits.listener.updated(training.digits.steps)
    network = copy.deepcopy(training.dense)
    return register(network, lambda _: maps.NMSparsity(*pattern))


def fine_tuned(training: Training, pattern: Pattern) -> nn.Sequential:
    """Prune after half of the epochs, and train what was kept for the others."""
    half = training.digits.epochs // 2
    network = training.fit(training.network(), training.digits.epochs - half)
    register(network, lambda _: maps.NMSparsity(*pattern, gradient="masked"))
    return training.fit(network, half)


def from_the_start(training: Training, pattern: Pattern) -> nn.Sequential:
    """Choose the N of M anew at every step, with a straight-through gradient."""
    network = register(training.network(), lambda _: maps.NMSparsity(*pattern))
    return training.fit(network, training.digits.epochs)


def scheduled(training: Training, pattern: Pattern) -> nn.Sequential:
    """Keep fewer and fewer of every M, from M down to N.

    A group is a row of a block of M columns, and the schedule counts along rows.
    """

    def make(layer: nn.Linear) -> Parametrization:
        rise = schedule(training, pattern, axis=-1)
        return maps.PerBlock(rise, layer.in_features // pattern.m, dim=1)

    network = register(training.network(), make)
    return training.fit(network, training.digits.epochs, scheduled=True)


def anywhere(training: Training, pattern: Pattern) -> nn.Sequential:
    """Make as many zeros, with the same schedule, wherever the weights are small."""
    network = register(training.network(), lambda _: schedule(training, pattern))
    return training.fit(network, training.digits.epochs, scheduled=True)


def schedule(
    training: Training, pattern: Pattern, axis: int | None = None
) -> maps.GradualTopK:
    """Return the map whose share of zeros rises to that of the pattern."""
    steps = max(1, int(_RISE * training.digits.steps))
    return maps.GradualTopK(pattern.sparsity, steps=steps, axis=axis)


SCHEDULED, ANYWHERE = "N:M with schedule", "schedule, anywhere"

WAYS = (
    Way("one-shot", one_shot),
    Way("one-shot, fine-tuned", fine_tuned),
    Way("N:M from the start", from_the_start),
    Way(SCHEDULED, scheduled),
    Way(ANYWHERE, anywhere),
)


def prune_all(settings: Settings, listener: Listener) -> tuple[Pruned, ...]:
    """Train without zeros, and prune in each way to each pattern."""
    trainings = [Training(settings, run, listener) for run in range(settings.runs)]
    updates = settings.runs * trainings[0].digits.steps
    listener.started("dense", updates)
    results = [summed("dense", None, trainings, [each.dense for each in trainings])]
    listener.tested(f"{percent(results[0].accuracy)} right")
    for way in WAYS:
        listener.started(way.label, updates * len(PATTERNS))
        for pattern in PATTERNS:
            networks = [way.prune(each, pattern) for each in trainings]
            results.append(summed(way.label, pattern, trainings, networks))
            listener.tested(f"{percent(results[-1].accuracy)} right")
    return tuple(results)


def summed(
    way: str,
    pattern: Pattern | None,
    trainings: Sequence[Training],
    networks: Sequence[nn.Sequential],
) -> Pruned:
    """Measure the networks of all runs, and begin a new record of zeros."""
    weights = [layer.weight.detach() for net in networks for layer in layers(net)]
    sparsities = tuple(trainings[0].sparsities)
    for training in trainings:
        training.sparsities.clear()
    return Pruned(
        way,
        pattern,
        [each.accuracy(net) for each, net in zip(trainings, networks, strict=True)],
        all(pattern and NMSparse(*pattern).contains(W) for W in weights),
        sum(map(zeros, networks)) / len(networks),
        weights[0].clone(),
        sparsities,
    )
