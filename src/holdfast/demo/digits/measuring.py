"""What the demo observes of a network, apart from its loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.sets import Stiefel

from .network import Network


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and, in descending order, singular values of a kernel."""

    eigenvalues: tuple[complex, ...]
    singular_values: tuple[float, ...]


def kernel_of(network: Network) -> Tensor:
    """Return the recurrent kernel as it is now, in float64 and without a graph."""
    return network.recurrent.weight.detach().double()


def residual(network: Network) -> float:
    """Return how far the recurrent kernel is from the orthogonal matrices."""
    return Stiefel().residual(kernel_of(network)).item()


def spectrum(network: Network) -> Spectrum:
    """Return the spectrum of the recurrent kernel; not-a-numbers if it has diverged."""
    kernel = kernel_of(network)
    if not kernel.isfinite().all():
        unknown = (float("nan"),) * len(kernel)
        return Spectrum(unknown, unknown)
    eigenvalues = torch.linalg.eigvals(kernel)
    return Spectrum(
        tuple(eigenvalues.tolist()), tuple(torch.linalg.svdvals(kernel).tolist())
    )


def score(network: Network, sequences: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean loss and the share of sequences answered rightly."""
    with torch.no_grad():
        logits = network(sequences)
    right = (logits.argmax(1) == labels).double().mean()
    return nn.functional.cross_entropy(logits, labels).item(), right.item()


def gradient_norms(
    network: Network, sequences: Tensor, labels: Tensor
) -> tuple[float, ...]:
    """Return the mean over samples of the norm of dloss/dh at every step."""
    states = network.states(sequences)
    # The sum keeps samples apart: each row is the gradient of its own loss.
    loss = nn.functional.cross_entropy(
        network.readout(states[-1]), labels, reduction="sum"
    )
    gradients = torch.autograd.grad(loss, states)
    return tuple(gradient.norm(dim=1).mean().item() for gradient in gradients)
