"""Divided differences of softplus and of the logistic function, without cancellation.

With :math:`f[a, b] = (f(a) - f(b))/(a - b)` and
:math:`f[a, b, c] = (f[a, b] - f[b, c])/(a - c)`; where arguments meet, these are
derivatives. They are what the derivatives of eigenvalue functions are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .entrywise import softplus

Scalar = Callable[[Tensor], Tensor]

# Arguments within this of each other are told apart by quadrature: the functions have
# their poles at a distance of pi, so six nodes are right to rounding.
_NEAR = 0.5
_NODES = (
    (0.03376524289842399, 0.08566224618958517),
    (0.16939530676686774, 0.18038078652406930),
    (0.38069040695840156, 0.23395696728634552),
    (0.61930959304159844, 0.23395696728634552),
    (0.83060469323313226, 0.18038078652406930),
    (0.96623475710157601, 0.08566224618958517),
)


class Differences(Protocol):
    """A function of the real line, and its divided differences."""

    @staticmethod
    def value(x: Tensor) -> Tensor:
        """Return f(x)."""
        ...

    @staticmethod
    def first(low: Tensor, high: Tensor) -> Tensor:
        """Return f[low, high], for low <= high."""
        ...

    @staticmethod
    def curvature(x: Tensor) -> Tensor:
        """Return the second derivative."""
        ...


class Softplus:
    """The softplus function; its slope is the logistic function."""

    @staticmethod
    def value(x: Tensor) -> Tensor:
        """Return log(1 + exp(x))."""
        return softplus(x)

    @staticmethod
    def first(low: Tensor, high: Tensor) -> Tensor:
        """Return the divided difference, for low <= high."""
        gap = high - low
        safe = torch.where(gap > 0, gap, 1)
        far = (softplus(high) - softplus(low)) / safe
        slope = torch.sigmoid(high)
        near = -torch.log1p(slope * torch.expm1(-gap.clamp_max(1))) / safe
        return torch.where(gap > 1, far, torch.where(gap > 0, near, slope))

    @staticmethod
    def curvature(x: Tensor) -> Tensor:
        """Return the second derivative."""
        return torch.sigmoid(x) * torch.sigmoid(-x)


class Logistic:
    """The logistic function, 1/(1 + exp(-x))."""

    @staticmethod
    def value(x: Tensor) -> Tensor:
        """Return 1/(1 + exp(-x))."""
        return torch.sigmoid(x)

    @staticmethod
    def first(low: Tensor, high: Tensor) -> Tensor:
        """Return the divided difference, for low <= high."""
        gap = high - low
        safe = torch.where(gap > 0, gap, 1)
        quotient = torch.where(gap > 0, -torch.expm1(-gap) / safe, 1)
        return torch.sigmoid(high) * torch.sigmoid(-low) * quotient

    @staticmethod
    def curvature(x: Tensor) -> Tensor:
        """Return the second derivative."""
        return -torch.sigmoid(x) * torch.sigmoid(-x) * torch.tanh(x / 2)


def first_differences(f: Differences, values: Tensor) -> Tensor:
    """Return f[a, b] for all pairs of values.

    Shape: ``(*batch, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> first_differences(Softplus, torch.zeros(2))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    a, b = values.unsqueeze(-1), values.unsqueeze(-2)
    return f.first(torch.minimum(a, b), torch.maximum(a, b))


def second_differences(f: Differences, values: Tensor) -> Tensor:
    """Return f[a, b, c] for all triples of values.

    Shape: ``(*batch, n) -> (*batch, n, n, n)``.

    Example:
        >>> import torch
        >>> second_differences(Softplus, torch.zeros(1))
        tensor([[[0.1250]]])
    """
    triples = torch.broadcast_tensors(
        values[..., :, None, None],
        values[..., None, :, None],
        values[..., None, None, :],
    )
    ordered = torch.stack(triples, -1).sort(-1).values
    a, b, c = ordered.unbind(-1)
    wide = c - a
    far = (f.first(b, c) - f.first(a, b)) / torch.where(wide > _NEAR, wide, 1)
    return torch.where(wide > _NEAR, far, _quadrature(f.curvature, a, b, c))


def _quadrature(curvature: Scalar, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the integral of the curvature over the triangle of the arguments."""
    total = torch.zeros_like(a)
    for u, weight in _NODES:
        for v, other in _NODES:
            point = a + u * ((b - a) + v * (c - b))
            total = total + weight * other * u * curvature(point)
    return total
