"""Probability vectors, what sums to zero, and sequences in order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.entrywise import require_real
from ..linalg.norms import axis as position
from ..linalg.precision import double
from ..linalg.simplex import monotone, simplex_projection
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, relative


class Simplex(Constraint):
    r"""Tensors whose slices along a dimension are probability vectors.

    .. math::
        \{W : w_{ij} \ge 0,\ \textstyle\sum_j w_{ij} = 1\}

    ``Simplex(-1)`` are the row-stochastic matrices, ``Simplex(-2)`` the
    column-stochastic ones. Entries of zero belong to the set. The residual is the
    largest error of a sum, or the largest negative part. Complex numbers are outside.

    Args:
        axis: the dimension along which the entries sum to 1.
        margin: the share of equal parts that `project` mixes into a slice that is
            outside; 0 for the nearest one. Maps that do not reach zero ask for a
            hundredth.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Simplex().project(torch.tensor([[0.5, 0.5], [3.0, 1.0]]))
        tensor([[0.5000, 0.5000],
                [1.0000, 0.0000]])
    """

    def __init__(self, axis: int = -1, *, margin: float = 0.0) -> None:
        self.axis = axis
        self.margin = margin

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the sums are from 1, or the entries below 0."""
        if weight.is_complex() or not _has(weight.shape, self.axis):
            return filled(weight, math.inf)
        W = double(weight)
        off = (W.sum(self.axis, keepdim=True) - 1).abs()
        return per_matrix(torch.maximum(off, (-W).relu()))

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor, with equal parts mixed in."""
        self._require(weight)
        W = double(weight).movedim(self.axis, -1)
        P = simplex_projection(W)
        outside = (P - W).abs().amax(-1, keepdim=True) > tolerance(weight)
        mixed = P + self.margin * (1 / P.shape[-1] - P)
        P = torch.where(outside, mixed, P).movedim(-1, self.axis)
        return P.to(weight.dtype).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return slices that are uniform on the simplex."""
        self._require(normal)
        waits = -torch.special.log_ndtr(double(normal))  # exponentially distributed
        return (waits / waits.sum(self.axis, keepdim=True)).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, less one for each slice."""
        return _less_one(shape, (self.axis,))

    def _require(self, weight: Tensor) -> None:
        require_real(weight)
        require_entries(weight, self.axis)


class ZeroSum(Constraint):
    r"""Tensors whose slices along one or several dimensions sum to zero.

    .. math::
        \{W : \textstyle\sum_j w_{ij} = 0\}

    A linear subspace, real or complex. The residual is the distance over the norm of
    the matrix.

    Args:
        axis: the dimension along which the sums are zero, or several: ``(-2, -1)`` for
            rows and columns.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.ZeroSum().project(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """

    def __init__(self, axis: int | tuple[int, ...] = -1) -> None:
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the tensor is constant along the dimensions."""
        if not all(_has(weight.shape, d) for d in dims_of(self.axis)):
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor: the mean of each slice is taken off."""
        W = double(weight)
        for d in dims_of(self.axis):
            require_entries(weight, d)
            W = W - W.mean(d, keepdim=True)
        return W.to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries less the mean of their slice."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, less one for each slice."""
        return _less_one(shape, dims_of(self.axis)) * (2 if dtype.is_complex else 1)


class Ordered(Constraint):
    r"""Tensors whose slices along a dimension do not decrease.

    .. math::
        \{W : w_{i1} \le w_{i2} \le \cdots \le w_{in}\}

    Equal neighbours belong to the set. The residual is the distance to what `project`
    gives over the norm of the matrix. Complex numbers are outside.

    Args:
        axis: the dimension along which the entries are in order.
        positive: whether the first entry, and with it all, is at least zero.
        margin: by how much the entries of a slice that is outside rise at least from
            first to last after `project`, relative to their mean modulus; 0 for the
            nearest one. Maps that do not reach equal entries ask for a hundredth.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Ordered().project(torch.tensor([0.0, 3.0, 1.0, 4.0]))
        tensor([0., 2., 2., 4.])
    """

    def __init__(
        self, axis: int = -1, *, positive: bool = False, margin: float = 0.0
    ) -> None:
        self.axis = axis
        self.positive = positive
        self.margin = margin

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the entries are from being in order."""
        if weight.is_complex() or not _has(weight.shape, self.axis):
            return filled(weight, math.inf)
        W = double(weight)
        return relative(
            W - self._nearest(W.movedim(self.axis, -1)).movedim(-1, self.axis), W
        )

    def project(self, weight: Tensor) -> Tensor:
        """Return the tensor in order that is nearest in its largest deviation."""
        require_real(weight)
        require_entries(weight, self.axis)
        W = double(weight).movedim(self.axis, -1)
        P = self._nearest(W)
        n = W.shape[-1]
        rise = torch.arange(1, n + 1, dtype=P.dtype, device=P.device) / n
        slope = self.margin * W.abs().mean(-1, keepdim=True)
        outside = (P != W).any(-1, keepdim=True)
        P = torch.where(outside, P + slope * rise, P).movedim(-1, self.axis)
        return P.to(weight.dtype).contiguous()

    def _nearest(self, W: Tensor) -> Tensor:
        P = monotone(W)
        return P.relu() if self.positive else P

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries, or their moduli, sorted."""
        require_real(normal)
        require_entries(normal, self.axis)
        return (normal.abs() if self.positive else normal).sort(self.axis).values

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries."""
        position(self.axis, len(shape))
        return math.prod(shape)


def dims_of(axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return one dimension or several as a tuple."""
    return (axis,) if isinstance(axis, int) else axis


def require_entries(weight: Tensor, axis: int) -> None:
    """Raise unless the tensor has the dimension, with entries along it."""
    if weight.ndim == 0 or weight.shape[position(axis, weight.ndim)] == 0:
        raise InvalidTensorError(
            f"Expected at least one entry along dimension {axis}. Got shape "
            f"{tuple(weight.shape)}."
        )


def per_matrix(off: Tensor) -> Tensor:
    """Return the largest error in each matrix."""
    dims = tuple(range(max(0, off.ndim - 2), off.ndim))
    if not dims:
        return off
    if not all(off.shape[dim] for dim in dims):
        return off.sum(dims)  # 0 for no entries
    return off.amax(dims)


def _has(shape: Shape, axis: int) -> bool:
    return -len(shape) <= axis < len(shape) and shape[axis] > 0


def _less_one(shape: Shape, dims: tuple[int, ...]) -> int:
    positions = {position(d, len(shape)) for d in dims}
    return math.prod(n - 1 if i in positions else n for i, n in enumerate(shape))
