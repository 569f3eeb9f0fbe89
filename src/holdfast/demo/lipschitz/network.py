"""The two networks: one that never stretches a distance, and one that may."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor, nn

import holdfast

from ..digits.data import CLASSES
from ..digits.settings import PIXELS
from .settings import Settings


class Kind(Enum):
    """What holds of the weights."""

    ORTHOGONAL = "orthogonal weights"
    FREE = "unconstrained weights"


class MaxMin(nn.Module):
    """Sort each pair of neighboring units: never stretches, and loses nothing.

    References:
        Anil, Lucas and Grosse, Sorting Out Lipschitz Function Approximation, 2019,
        https://arxiv.org/abs/1811.05381
    """

    def forward(self, values: Tensor) -> Tensor:
        """Map ``(..., 2 n)`` to the same shape, the larger of each pair first."""
        pairs = values.unflatten(-1, (-1, 2))
        return torch.stack([pairs.amax(-1), pairs.amin(-1)], -1).flatten(-2)


def build_network(kind: Kind, settings: Settings) -> nn.Sequential:
    """Return a network from ``(samples, 64)`` pixels to ``(samples, 10)`` logits."""
    hidden = 2 * math.ceil(settings.hidden / 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = nn.Sequential(
            nn.Linear(PIXELS, hidden),
            MaxMin(),
            nn.Linear(hidden, hidden),
            MaxMin(),
            nn.Linear(hidden, CLASSES),
        )
        if kind is Kind.ORTHOGONAL:
            for layer in linear_layers(network):
                holdfast.orthogonal(layer, "weight")
    return network


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """Return the layers that have weights."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def lipschitz_bound(network: nn.Module) -> float:
    """Return a factor by which no distance grows: the product of all spectral norms."""
    with torch.no_grad():
        norms = [
            torch.linalg.matrix_norm(layer.weight.double(), 2).item()
            for layer in linear_layers(network)
        ]
    return math.prod(norms)
