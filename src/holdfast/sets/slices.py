"""Slices of given norm, of bounded norm, or with given mean and deviation."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.balls import ball_projection, ball_sample, uniform_share
from ..linalg.precision import double
from ..linalg.rays import (
    Dims,
    from_slices,
    normalized,
    positions,
    require_slices,
    slice_norm,
    slice_size,
    slices,
)
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled
from .simplex import per_matrix


class Sphere(Constraint):
    r"""Tensors whose slices have a given norm.

    .. math::
        \{W : \|w_i\|_2 = r\}

    ``Sphere(axis=-1)`` are the matrices of unit rows, ``Sphere(axis=-2)`` those of unit
    columns (the oblique manifold), ``Sphere(axis=(-2, -1))`` those of Frobenius norm 1;
    with ``axis=None`` the tensor is a single slice. Real or complex. The residual is
    the largest error of a norm, relative to r.

    Args:
        radius: r > 0.
        axis: the dimension that the slices run along, or several; ``None`` for all.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Sphere(5.0).project(torch.tensor([[6.0, 8.0], [0.0, 1.0]]))
        tensor([[3., 4.],
                [0., 5.]])
    """

    def __init__(self, radius: float = 1.0, axis: Dims = -1) -> None:
        self.radius = radius
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return by what factor a norm is off, less 1."""
        if not _has(weight.shape, self.axis):
            return filled(weight, math.inf)
        norm = slice_norm(slices(weight, self.axis))
        return _worst((norm / self.radius - 1).abs(), weight, self.axis)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor; slices of zeros become constant."""
        require_slices(weight.shape, self.axis)
        W = normalized(slices(double(weight), self.axis)) * self.radius
        return _tensor(W, weight, self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return slices that are uniform on their sphere."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, less one for each slice."""
        return _degrees(shape, self.axis, dtype, 1)


class LpBall(Constraint):
    r"""Tensors whose slices have a p-norm of at most c.

    .. math::
        \{W : \|w_i\|_p \le c\}, \qquad
        \|w\|_p = \left(\textstyle\sum_j |w_j|^p\right)^{1/p}

    Real or complex. The residual is how far the largest norm is above c, relative to c.

    Args:
        p: 1, 2, ``"inf"``, or any other number above 1.
        radius: c > 0.
        axis: the dimension that the slices run along, or several; ``None`` for all.
        margin: how far inside `project` puts a slice that is outside, relative to its
            nearest point; 0 for that one. Maps that do not reach the boundary ask for a
            hundredth.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.LpBall(1.0).project(torch.tensor([2.0, 1.5, 0.1]))
        tensor([0.7500, 0.2500, 0.0000])
    """

    def __init__(
        self,
        p: float | Literal["inf"] = 2.0,
        radius: float = 1.0,
        axis: Dims = -1,
        *,
        margin: float = 0.0,
    ) -> None:
        self.p: float | Literal["inf"] = p
        self.radius = radius
        self.axis = axis
        self.margin = margin

    def residual(self, weight: Tensor) -> Tensor:
        """Return by what factor a norm is too large, less 1."""
        if not _has(weight.shape, self.axis):
            return filled(weight, math.inf)
        norm = slice_norm(slices(weight, self.axis), float(self.p))
        return _worst((norm / self.radius - 1).relu(), weight, self.axis)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor for p = 1, 2 and infinity, else rescale."""
        require_slices(weight.shape, self.axis)
        W = slices(double(weight), self.axis)
        P = ball_projection(W, float(self.p), self.radius)
        if self.margin:
            outside = slice_norm(W, float(self.p)) > self.radius * (
                1 + tolerance(weight)
            )
            P = torch.where(outside, (1 - self.margin) * P, P)
        return _tensor(P, weight, self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return random slices in the ball: uniform for p = 2."""
        require_slices(normal.shape, self.axis)
        W = ball_sample(slices(double(normal), self.axis), float(self.p), self.radius)
        return _tensor(W, normal, self.axis)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, twice that where they are complex."""
        return _degrees(shape, self.axis, dtype, 0)


class NormInterval(Constraint):
    r"""Tensors whose slices have a norm between two bounds.

    .. math::
        \{W : a \le \|w_i\|_2 \le b\}

    Real or complex. The residual is how far a norm is beyond a bound, relative to it.

    Args:
        low: a >= 0.
        high: b >= a, and positive.
        axis: the dimension that the slices run along, or several; ``None`` for all.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> W = torch.tensor([[6.0, 8.0], [0.3, 0.4], [1.0, 1.0]])
        >>> sets.NormInterval(1.0, 5.0).project(W)
        tensor([[3.0000, 4.0000],
                [0.6000, 0.8000],
                [1.0000, 1.0000]])
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, axis: Dims = -1) -> None:
        self.low = low
        self.high = high
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return by what factor a norm is too large or too small."""
        if not _has(weight.shape, self.axis):
            return filled(weight, math.inf)
        norm = slice_norm(slices(weight, self.axis))
        above = (norm / self.high - 1).relu()
        below = (self.low - norm).relu() / (self.low or 1.0)
        return _worst(torch.maximum(above, below), weight, self.axis)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor; slices of zeros become constant."""
        require_slices(weight.shape, self.axis)
        W = slices(double(weight), self.axis)
        norm = slice_norm(W)
        inside = (norm >= self.low) & (norm <= self.high)
        P = normalized(W) * norm.clamp(self.low, self.high)
        return _tensor(torch.where(inside, W, P), weight, self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return slices of uniform direction, and norm uniform between the bounds."""
        require_slices(normal.shape, self.axis)
        Z = slices(double(normal), self.axis)
        norm = self.low + (self.high - self.low) * uniform_share(Z)
        return _tensor(normalized(Z) * norm, normal, self.axis)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, or less one a slice if the bounds are equal."""
        return _degrees(shape, self.axis, dtype, int(self.low == self.high))


class Standardized(Constraint):
    r"""Tensors whose slices have mean zero and a given standard deviation.

    .. math::
        \{W : \textstyle\sum_j w_{ij} = 0,\ \tfrac1N \sum_j |w_{ij}|^2 = \sigma^2\}

    over the N entries of a slice: the intersection of a sphere and a linear subspace.
    Real or complex. The residual is the largest of the means and of the errors of
    deviations, relative to the deviation.

    Args:
        std: the deviation; the population's, over N.
        axis: the dimension that the slices run along, or several; ``None`` for all.
        fan_in: divide the deviation by :math:`\sqrt N`, so that a sum over N separate
            inputs of variance 1 has the deviation ``std``.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Standardized().project(torch.tensor([1.0, 2.0, 1.0, 2.0]))
        tensor([-1.,  1., -1.,  1.])
    """

    def __init__(
        self, std: float = 1.0, axis: Dims = -1, *, fan_in: bool = False
    ) -> None:
        self.std = std
        self.axis = axis
        self.fan_in = fan_in

    def radius(self, shape: Shape) -> float:
        """Return the norm of the slices of a tensor of this shape."""
        return slice_radius(shape, self.std, self.axis, fan_in=self.fan_in)

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far means are from zero, and deviations from the given one."""
        if not _has(weight.shape, self.axis, 2):
            return filled(weight, math.inf)
        W, radius = slices(double(weight), self.axis), self.radius(weight.shape)
        mean = W.mean(-1, keepdim=True)
        spread = (slice_norm(W - mean) / radius - 1).abs()
        off = mean.abs() * (W.shape[-1] ** 0.5 / radius)
        return _worst(torch.maximum(spread, off), weight, self.axis)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor; constant slices become a linear ramp."""
        require_slices(weight.shape, self.axis, 2)
        W = slices(double(weight), self.axis)
        P = normalized(W - W.mean(-1, keepdim=True), balanced=True)
        return _tensor(P * self.radius(weight.shape), weight, self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return uniform slices."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, less those of a mean and one for each slice."""
        means = 2 if dtype.is_complex else 1
        return _degrees(shape, self.axis, dtype, means + 1)


def slice_radius(shape: Shape, std: float, axis: Dims, *, fan_in: bool) -> float:
    """Return the norm of slices of mean zero and such a deviation."""
    return std if fan_in else std * math.sqrt(slice_size(shape, axis))


def _has(shape: Shape, axis: Dims, least: int = 1) -> bool:
    try:
        require_slices(shape, axis, least)
    except (IndexError, InvalidTensorError):
        return False
    return True


def _worst(off: Tensor, weight: Tensor, axis: Dims) -> Tensor:
    """Return the largest of the slices' errors for each matrix."""
    if 0 in weight.shape[-2:]:
        return filled(weight, 0.0)
    inside = positions(axis, weight.ndim)
    kept = tuple(1 if i in inside else n for i, n in enumerate(weight.shape))
    return per_matrix(from_slices(off, kept, axis)).expand(weight.shape[:-2])


def _tensor(X: Tensor, weight: Tensor, axis: Dims) -> Tensor:
    """Return slices as a tensor like ``weight``."""
    return from_slices(X, weight.shape, axis).to(weight.dtype).contiguous()


def _degrees(shape: Shape, axis: Dims, dtype: torch.dtype, fixed: int) -> int:
    """Return the number of real entries, less so many for each slice."""
    size = slice_size(shape, axis)
    count = math.prod(shape) // size if size else 0
    return count * (size * (2 if dtype.is_complex else 1) - fixed)
