"""The largest singular value of a matrix by power iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import full_precision


@full_precision
def power_iteration(
    M: Tensor, u: Tensor, v: Tensor, *, count: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the unit vectors after ``count`` steps towards the top singular pair.

    A vector that a step would make zero stays as it was, so that a matrix that is
    zero for a while does not spoil them.

    Shape: ``(h, w), (h), (w) -> (h), (w)``.

    Example:
        >>> import torch
        >>> M, u = torch.diag(torch.tensor([2.0, 1.0])), torch.ones(2)
        >>> u, v = power_iteration(M, u, u, count=20, eps=1e-12)
        >>> round(float(rayleigh(M, u, v)), 5)
        2.0
    """
    for _ in range(count):
        u = _unit(M @ v, u, eps)
        v = _unit(M.mH @ u, v, eps)
    return u, v


def _unit(x: Tensor, otherwise: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x)
    return torch.where(norm > eps, x / norm.clamp_min(eps), otherwise)


def rayleigh(M: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return ``u^H M v``, the largest singular value for the top singular vectors.

    Example:
        >>> import torch
        >>> rayleigh(torch.eye(2), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
        tensor(1.)
    """
    return torch.vdot(u, M @ v)
