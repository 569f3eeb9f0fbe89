"""The recurrent network, and the three starts and constraints of its kernel."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor, nn

import holdfast

from .data import CLASSES
from .settings import Settings


class Kernel(Enum):
    """What holds of the recurrent kernel, and where it starts."""

    ORTHOGONAL = "orthogonal"
    ORDINARY = "unconstrained, ordinary start"
    SAME_START = "unconstrained, orthogonal start"


class Network(nn.Module):
    r"""One recurrent layer that answers after the last step.

    .. math::
        h_t = \operatorname{modReLU}(W h_{t-1} + U x_t), \qquad
        \text{logits} = V h_T + c

    Small ``U`` and ``V`` keep the first answers unsure; ``W`` starts as torch starts
    every linear layer.
    """

    def __init__(self, pixels: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(pixels, hidden, bias=False)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-0.01, 0.01))
        self.readout = nn.Linear(hidden, CLASSES)
        nn.init.normal_(self.input.weight, std=math.sqrt(0.08 / pixels))
        nn.init.normal_(self.readout.weight, std=0.01)

    def states(self, sequences: Tensor) -> list[Tensor]:
        """Return the hidden state after every step, each ``(samples, hidden)``."""
        hidden = sequences.new_zeros(sequences.shape[1], self.recurrent.in_features)
        states = list[Tensor]()
        # The kernel is read at every step and computed at the first.
        with holdfast.cached(self.recurrent):
            for drive in self.input(sequences):
                hidden = mod_relu(self.recurrent(hidden) + drive, self.bias)
                states.append(hidden)
        return states

    def forward(self, sequences: Tensor) -> Tensor:
        """Map sequences ``(steps, samples, pixels)`` to logits ``(samples, 10)``."""
        return self.readout(self.states(sequences)[-1])


def mod_relu(values: Tensor, bias: Tensor) -> Tensor:
    """Return sign(x) max(|x| + b, 0): near the identity, where a tanh would shrink."""
    return values.sign() * torch.relu(values.abs() + bias)


def build_network(kernel: Kernel, settings: Settings) -> Network:
    """Return a network whose weights depend on the seed and on the kernel alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Network(settings.pixels, settings.hidden)
    if kernel is not Kernel.ORDINARY:
        holdfast.orthogonal(network.recurrent, "weight", "cayley")
    if kernel is Kernel.SAME_START:
        holdfast.remove_parametrizations(network.recurrent, "weight")
    return network
