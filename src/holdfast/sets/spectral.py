"""Matrices of bounded spectral norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.certificates import rooms, surely_between
from ..linalg.decompositions import singular_values
from ..linalg.norms import axis as position
from ..linalg.precision import double
from .constraint import Constraint, Shape, inside


class SpectralBall(Constraint):
    r"""Matrices whose largest singular value is at most a radius.

    .. math::
        \{W \in \mathbb{R}^{n \times k} : \sigma_{\max}(W) \le r\}

    The residual is how far the largest singular value is above r, relative to r; within
    an eighth of the tolerance it counts as that eighth, which is told by a product.

    Args:
        radius: r > 0.
        axis: take the tensor as a single matrix with this dimension as its rows, as
            for a convolution. By default it is a batch of matrices.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SpectralBall().project(torch.diag(torch.tensor([3.0, 0.5])))
        tensor([[1.0000, 0.0000],
                [0.0000, 0.5000]])
    """

    def __init__(self, radius: float = 1.0, *, axis: int | None = None) -> None:
        self.radius = radius
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return by what factor the norm is too large, less 1."""
        W = _matrix(weight, self.axis)
        for room in rooms(weight):
            if surely_between(W / self.radius, 0.0, 1 + room):
                return inside(W) + room
        return (_largest(weight, self.axis) / self.radius - 1).relu()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: singular values above the radius become it."""
        U, values, Vh = _decomposed(weight, self.axis)
        values = values.clamp_max(self.radius)
        return _composed(U, values, Vh, weight, self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a normal matrix of norm about 2r, projected."""
        return self.project(normal * self.radius / max(1, *normal.shape[-2:]) ** 0.5)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, twice that where they are complex."""
        return math.prod(shape) * (2 if dtype.is_complex else 1)


class SpectralSphere(Constraint):
    r"""Matrices whose largest singular value is a given radius.

    .. math::
        \{W \in \mathbb{R}^{n \times k} : \sigma_{\max}(W) = r\}

    The residual is how far the largest singular value is from r, relative to r. For
    vectors it is the unit sphere.

    Args:
        radius: r > 0.
        axis: take the tensor as a single matrix with this dimension as its rows, as
            for a convolution. By default it is a batch of matrices.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SpectralSphere().residual(torch.eye(3) / 2)
        tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self, radius: float = 1.0, *, axis: int | None = None) -> None:
        self.radius = radius
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return by what factor the norm is off, less 1."""
        return (_largest(weight, self.axis) / self.radius - 1).abs()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: the largest singular value becomes the radius."""
        U, values, Vh = _decomposed(weight, self.axis)
        first = torch.full_like(values[..., :1], self.radius)
        values = torch.cat([first, values[..., 1:].clamp_max(self.radius)], -1)
        return _composed(U, values, Vh, weight, self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the normal matrix over its norm."""
        norm = _largest(normal, self.axis)
        norm = norm[..., None, None] if self.axis is None and normal.ndim > 1 else norm
        return (normal * self.radius / norm).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, less one for each matrix."""
        entries = math.prod(shape) * (2 if dtype.is_complex else 1)
        single = self.axis is not None or len(shape) < 2
        return entries - (1 if single else math.prod(shape[:-2]))


def _matrix(weight: Tensor, axis: int | None) -> Tensor:
    if weight.ndim < 2:
        return double(weight).reshape(-1, 1)
    if axis is None:
        return double(weight)
    return double(weight).movedim(position(axis, weight.ndim), 0).flatten(1)


def _largest(weight: Tensor, axis: int | None) -> Tensor:
    values = singular_values(_matrix(weight, axis))
    return values.amax(-1) if values.shape[-1] else values.sum(-1)  # 0 for no entries


def _decomposed(weight: Tensor, axis: int | None) -> tuple[Tensor, Tensor, Tensor]:
    U, values, Vh = torch.linalg.svd(_matrix(weight, axis), full_matrices=False)
    return U, values, Vh


def _composed(
    U: Tensor, values: Tensor, Vh: Tensor, weight: Tensor, axis: int | None
) -> Tensor:
    """Return the matrix as a tensor like ``weight``."""
    P = ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)
    if axis is None or weight.ndim < 2:
        return P.reshape(weight.shape)
    rows = position(axis, weight.ndim)
    shape = weight.movedim(rows, 0).shape
    return P.reshape(shape).movedim(0, rows).contiguous()
