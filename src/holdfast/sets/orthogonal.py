"""Matrices with orthonormal columns or rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.orthonormal import orthogonality, positive_qr
from ..linalg.polar_factor import polar
from ..linalg.precision import double
from .constraint import Constraint, Shape, filled, sizes


class Stiefel(Constraint):
    r"""Orthonormal columns for n >= k, orthonormal rows for n < k.

    .. math::
        \{Q \in \mathbb{R}^{n \times k} : Q^T Q = I_k\}, \quad n \ge k

    Square ones are the orthogonal matrices O(n), of determinant 1 and -1; complex ones
    are unitary. The residual is :math:`\|Q^H Q - I\|_F / \sqrt{k}`.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> Q = sets.Stiefel().sample((3, 5))
        >>> sets.Stiefel().contains(Q), sets.Stiefel().contains(2 * Q)
        (True, False)
        >>> sets.Stiefel().dim((5, 3))
        9

    References:
        Edelman, Arias and Smith, The Geometry of Algorithms with Orthogonality
        Constraints, 1998, https://arxiv.org/abs/physics/9806030
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the columns (or rows) are from orthonormal ones."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        return orthogonality(_tall(double(weight)))

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such matrix, the orthogonal factor of polar form."""
        sizes(weight.shape)
        Q = polar(_tall(double(weight)))
        return _like(Q, weight)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a uniformly distributed one."""
        sizes(normal.shape)
        return _like(positive_qr(_tall(double(normal))), normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`nk - k(k + 1)/2`, or :math:`2nk - k^2` for complex ones."""
        count, n, k = sizes(shape)
        n, k = max(n, k), min(n, k)
        real = n * k - k * (k + 1) // 2
        return count * (2 * n * k - k * k if dtype.is_complex else real)


def _tall(weight: Tensor) -> Tensor:
    return weight.mH if weight.shape[-2] < weight.shape[-1] else weight


def _like(Q: Tensor, weight: Tensor) -> Tensor:
    """Return a tall Q in the orientation, type and layout of ``weight``."""
    Q = Q if Q.shape == weight.shape else Q.mH
    return Q.to(weight.dtype).contiguous()
