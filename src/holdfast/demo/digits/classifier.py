"""Whole digits, and a small network that is trained to recognize them.

The demos that change such a network, `prune` and `lora`, share it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ..progress import Listener
from .data import CLASSES, Digits, load_split
from .settings import PIXELS

_BATCH = 64


class Classifier:
    """One run: its data, its weights at the start, and how a network is trained.

    Args:
        split: the seed of the split into digits to train on and to test on.
        seed: that of the weights and of the order.
        epochs: passes over the training set, for the whole of a budget.
        listener: hears of every step.
    """

    def __init__(self, split: int, seed: int, epochs: int, listener: Listener) -> None:
        self.seed, self.epochs, self.listener = seed, epochs, listener
        training, tested = load_split(split)
        self.images, self.labels = _images(training), training.labels
        self.tested, self.tested_labels = _images(tested), tested.labels

    @property
    def steps(self) -> int:
        """The optimizer steps of the whole budget."""
        return self.epochs * -(-len(self.labels) // _BATCH)

    def start(self, hidden: int) -> nn.Sequential:
        """Return a network as it starts; torch's generator stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return network(hidden)

    def fit(
        self,
        network: nn.Sequential,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        epochs: int,
    ) -> None:
        """Train, while the learning rate falls to zero."""
        rates = CosineAnnealingLR(optimizer, epochs * self.steps // self.epochs)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(epochs):
            order = torch.randperm(len(self.labels), generator=generator)
            for batch in order.split(_BATCH):
                logits = network(images[batch])
                loss = nn.functional.cross_entropy(logits, self.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rates.step()
                self.listener.updated()

    def accuracy(self, network: nn.Module, images: Tensor) -> float:
        """Return the share of the digits to test on that are recognized."""
        with torch.no_grad():
            answers = network(images).argmax(1)
        return (answers == self.tested_labels).double().mean().item()


def network(hidden: int) -> nn.Sequential:
    """Return a network with two hidden layers, from torch's global generator."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


def layers(network: nn.Sequential) -> list[nn.Linear]:
    """Return the layers that have weights."""
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def _images(digits: Digits) -> Tensor:
    """Return images of the shape ``(samples, 8, 8)``."""
    return digits.images.transpose(0, 1).contiguous()
