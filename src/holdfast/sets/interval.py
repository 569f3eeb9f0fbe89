"""Entries within bounds, and on a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.entrywise import require_real
from ..linalg.precision import double
from .constraint import Constraint, Shape, filled, relative

Bound = float | Tensor


class Interval(Constraint):
    r"""Tensors whose entries lie between bounds, which belong to the set.

    .. math::
        \{W : a_{ij} \le w_{ij} \le b_{ij}\}

    A bound may be infinite, and a tensor gives each entry its own: ``Interval(0.0)``
    are the nonnegative tensors, ``Interval(-c, c)`` the bounded ones, and with
    ``(0, inf)``, ``(-inf, 0)`` or ``(0, 0)`` for each entry their signs are given. No
    finite precision tells a positive number from zero, so that the open sets, such as
    the positive tensors, are these as well.

    The residual is the distance to the set over the norm of the matrix. Complex numbers
    have no order, and are outside.

    Args:
        lower: the smallest value; a tensor is broadcast to the weight's shape.
        upper: the largest value, likewise.
        margin: how far inside `project` puts an entry that is outside, relative to the
            width of the interval, or to the mean distance from its only bound; 0 for
            the nearest tensor. Maps that do not reach the bounds ask for a hundredth,
            from where an entry can be trained.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Interval(0.0, 1.0).project(torch.tensor([-3.0, 0.5, 3.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(
        self, lower: Bound = -math.inf, upper: Bound = math.inf, *, margin: float = 0.0
    ) -> None:
        self.lower = lower
        self.upper = upper
        self.margin = margin

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the entries lie beyond the bounds."""
        if weight.is_complex():
            return filled(weight, math.inf)
        W = double(weight)
        return relative(W - self._clamp(W), W)

    def project(self, weight: Tensor) -> Tensor:
        """Return the tensor with entries beyond a bound moved there, or inside."""
        require_real(weight)
        if not self.margin:
            return self._clamp(weight)
        W = double(weight)
        a, b = like(self.lower, W), like(self.upper, W)
        inside = torch.where(a > W, a + self.margin * _width(W, a, b), W)
        inside = torch.where(b < W, b - self.margin * _width(W, b, a), inside)
        return self._clamp(inside.to(weight.dtype))

    def _clamp(self, weight: Tensor) -> Tensor:
        return torch.minimum(
            torch.maximum(weight, like(self.lower, weight)), like(self.upper, weight)
        )

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return uniform entries, half-normal ones above or below a single bound."""
        require_real(normal)
        Z = double(normal)
        a, b = like(self.lower, Z), like(self.upper, Z)
        inside = torch.where(a == b, a, a + (b - a) * torch.special.ndtr(Z))
        one_sided = torch.where(a.isinf(), b - Z.abs(), a + Z.abs())
        bounded = torch.where(a.isinf() | b.isinf(), one_sided, inside)
        free = a.isinf() & b.isinf()
        return self._clamp(torch.where(free, Z, bounded).to(normal.dtype))

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries whose bounds differ."""
        apart = torch.as_tensor(self.lower != self.upper)
        return int(apart.expand(shape).sum())


def _width(W: Tensor, bound: Tensor, other: Tensor) -> Tensor:
    """Return the widths of intervals; without another bound, the mean distance."""
    dims = tuple(range(max(0, W.ndim - 2), W.ndim))
    distance = (W - bound).abs()
    mean = distance.where(distance.isfinite(), 0).mean(dims, keepdim=True)
    return torch.where(other.isinf(), mean, (other - bound).abs())


class Grid(Constraint):
    r"""Tensors whose entries are whole multiples of a step, between two of them.

    .. math::
        \{W : w_{ij} = s\, k_{ij},\ k_{ij} \in \{l, l + 1, \ldots, h\}\}

    The residual is the distance to the nearest such tensor over the norm. The set is
    discrete: it has no degrees of freedom.

    Args:
        step: the distance s of two levels; a tensor is broadcast to the weight's shape.
        low: the number l of the lowest level.
        high: the number h of the highest level.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Grid(0.5, -2, 2).project(torch.tensor([-3.0, 0.3, 0.8]))
        tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(
        self, step: Bound, low: int | Tensor = -127, high: int | Tensor = 127
    ) -> None:
        self.step = step
        self.low = low
        self.high = high

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the entries are from the levels."""
        if weight.is_complex():
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor."""
        require_real(weight)
        W = double(weight)
        return self._levels(W / like(self.step, W)).to(weight.dtype)

    def _levels(self, K: Tensor) -> Tensor:
        low, high = like(self.low, K), like(self.high, K)
        return like(self.step, K) * torch.minimum(torch.maximum(K.round(), low), high)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return levels that follow a bell over their range, of six deviations."""
        require_real(normal)
        Z = double(normal)
        low, high = like(self.low, Z), like(self.high, Z)
        return self._levels((low + high) / 2 + Z * (high - low) / 6).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return 0."""
        return 0


def like(bound: Bound, weight: Tensor) -> Tensor:
    """Return a number or tensor as a tensor of the weight's type and place."""
    if isinstance(bound, Tensor):
        return bound.to(weight.dtype)
    return weight.new_full((), bound)  # which waits for no device
