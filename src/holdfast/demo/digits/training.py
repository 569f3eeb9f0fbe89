"""Train one network per kernel, all with the same data, seed and budget."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..progress import Listener
from ..running import percent
from .data import Digits, load_split
from .measuring import Spectrum, gradient_norms, residual, score, spectrum
from .network import Kernel, Network, build_network
from .settings import Settings

_MEASURED = 100  # test sequences that the gradients are averaged over
_WARM_UP = 0.15  # share of the updates before the learning rate is at its largest


@dataclass(frozen=True)
class Moment:
    """A network after so many epochs: loss and accuracy on the test set, spectrum."""

    epoch: int
    loss: float
    accuracy: float
    spectrum: Spectrum


@dataclass(frozen=True)
class Observation:
    """What is measured before and after a training only."""

    residual: float
    gradient_norms: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """All that is known of one training; the first moment is before it."""

    kernel: Kernel
    moments: tuple[Moment, ...]
    before: Observation
    after: Observation
    seconds: float

    @property
    def accuracy(self) -> float:
        """The test accuracy in the end."""
        return self.moments[-1].accuracy


def train_all(settings: Settings, listener: Listener) -> tuple[Run, ...]:
    """Train a network per kernel and return what was seen, in the kernels' order."""
    training, tested = load_split(settings.seed, settings.pixels)
    return tuple(
        Trainer(kernel, settings, training, tested).run(listener) for kernel in Kernel
    )


class Trainer:
    """One network with its data, its noise and its optimizer.

    The noise and the order of the training set come from the seed, so that every
    trainer with the same settings sees the same sequences in the same batches.
    """

    def __init__(
        self, kernel: Kernel, settings: Settings, training: Digits, tested: Digits
    ) -> None:
        self.kernel, self.settings, self.training = kernel, settings, training
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.sequences = tested.padded(settings.steps, self.generator)
        self.labels = tested.labels
        self.network = build_network(kernel, settings)
        self.updates = settings.epochs * math.ceil(
            len(training.labels) / settings.batch
        )
        self.optimizer, self.schedule = _optimizer(self.network, settings, self.updates)

    def run(self, listener: Listener) -> Run:
        """Train, and observe before, between and after the epochs."""
        listener.started(self.kernel.value, self.updates)
        before, moments = self.observe(), [self.moment(0)]
        start = time.perf_counter()
        for epoch in range(1, self.settings.epochs + 1):
            self.train_epoch(listener)
            moments.append(self.moment(epoch))
            listener.tested(f"{percent(moments[-1].accuracy)} right")
        seconds = time.perf_counter() - start
        return Run(self.kernel, tuple(moments), before, self.observe(), seconds)

    def train_epoch(self, listener: Listener) -> None:
        """Pass over the training set once, followed by new noise."""
        sequences = self.training.padded(self.settings.steps, self.generator)
        order = torch.randperm(len(self.training.labels), generator=self.generator)
        for batch in order.split(self.settings.batch):
            self.update(sequences[:, batch], self.training.labels[batch])
            listener.updated()

    def update(self, sequences: Tensor, labels: Tensor) -> None:
        """Take one optimizer step, unless the gradient has overflowed."""
        loss = nn.functional.cross_entropy(self.network(sequences), labels)
        self.optimizer.zero_grad()
        loss.backward()
        parameters = self.network.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        if not norm.isfinite():
            self.optimizer.zero_grad()
        self.optimizer.step()
        self.schedule.step()

    def moment(self, epoch: int) -> Moment:
        """Test the network as it is now."""
        loss, accuracy = score(self.network, self.sequences, self.labels)
        return Moment(epoch, loss, accuracy, spectrum(self.network))

    def observe(self) -> Observation:
        """Measure what the optimizer never sees."""
        few = self.sequences[:, :_MEASURED], self.labels[:_MEASURED]
        return Observation(residual(self.network), gradient_norms(self.network, *few))


def _optimizer(
    network: Network, settings: Settings, updates: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return Adam with a slower rate for the recurrent kernel, and one cycle of both.

    The kernel is used at every step of a sequence, so a change of it counts many times.
    """
    recurrent = list(network.recurrent.parameters())
    others = [p for p in network.parameters() if all(p is not r for r in recurrent)]
    rates = [settings.rate, settings.recurrent_rate]
    optimizer = torch.optim.Adam([{"params": others}, {"params": recurrent}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=updates, pct_start=_WARM_UP
    )
    return optimizer, schedule
