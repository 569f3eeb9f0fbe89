"""The three recurrent networks."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor, nn

import holdfast

from .settings import Settings
from .task import INPUTS, OUTPUTS


class Kind(Enum):
    """What is recurrent in a network."""

    ORTHOGONAL = "orthogonal RNN"
    TANH = "tanh RNN"
    LSTM = "LSTM"


class OrthogonalRNN(nn.Module):
    r"""A recurrent layer whose states neither grow nor fade.

    .. math::
        h_t = \operatorname{modReLU}(W h_{t-1} + U x_t), \qquad W^T W = I

    ``W`` starts as a rotation in each of hidden / 2 planes, by random angles.

    References:
        Lezcano-Casado and Martinez-Rubio, Cheap Orthogonal Constraints in Neural
        Networks, 2019, https://arxiv.org/abs/1901.08428
        Henaff, Szlam and LeCun, Recurrent Orthogonal Networks and Long-Memory Tasks,
        2016, https://arxiv.org/abs/1602.06662 (the start)
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, hidden, bias=False)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-0.01, 0.01))
        holdfast.orthogonal(self.recurrent, "weight", "matrix_exp")
        self.recurrent.weight = rotations(hidden)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states after all steps and after the last, as `nn.RNN` does."""
        weight = self.recurrent.weight.T  # computed once for all steps
        hidden = sequence.new_zeros(sequence.shape[1], len(weight))
        states = list[Tensor]()
        for drive in self.input(sequence):
            hidden = torch.addmm(drive, hidden, weight)
            # modReLU, which is near the identity, where a tanh would shrink
            hidden = hidden.sign() * torch.relu(hidden.abs() + self.bias)
            states.append(hidden)
        return torch.stack(states), hidden


class Network(nn.Module):
    """A recurrent layer between symbols and answers."""

    def __init__(self, kind: Kind, hidden: int) -> None:
        super().__init__()
        if kind is Kind.LSTM:
            hidden = math.ceil(hidden / 2)
            self.layer: nn.Module = nn.LSTM(INPUTS, hidden)
        elif kind is Kind.TANH:
            self.layer = nn.RNN(INPUTS, hidden)
        else:
            self.layer = OrthogonalRNN(INPUTS, hidden)
        self.readout = nn.Linear(hidden, OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map symbols ``(steps, samples)`` to logits ``(steps, samples, 9)``."""
        states, _ = self.layer(nn.functional.one_hot(inputs, INPUTS).float())
        return self.readout(states)


def rotations(hidden: int) -> Tensor:
    """Return a block diagonal of rotations by angles of all sizes."""
    angles = torch.empty(hidden // 2).uniform_(-math.pi, math.pi)
    c, s = angles.cos(), angles.sin()
    blocks = torch.stack([c, -s, s, c], 1).unflatten(1, (2, 2))
    return torch.block_diag(*blocks, torch.eye(hidden % 2))


def build_network(kind: Kind, settings: Settings) -> Network:
    """Return a network whose weights depend on the seed and on its kind alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Network(kind, settings.hidden)
