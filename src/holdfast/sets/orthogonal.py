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


class Grassmann(Constraint):
    r"""Subspaces, each given by orthonormal columns that span it; rows for n < k.

    .. math::
        \mathrm{Gr}(n, k) = \mathrm{St}(n, k) / O(k), \quad n \ge k

    The tensors are those of `Stiefel`, and so is the residual, but all bases of one
    subspace count as one point: the dimension is smaller.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Grassmann().contains(torch.eye(5, 3)), sets.Grassmann().dim((5, 3))
        (True, 6)

    References:
        Edelman, Arias and Smith, The Geometry of Algorithms with Orthogonality
        Constraints, 1998, https://arxiv.org/abs/physics/9806030
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the columns (or rows) are from orthonormal ones."""
        return _STIEFEL.residual(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the basis nearest to the matrix, which spans the same subspace."""
        return _STIEFEL.project(weight)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a basis of a uniformly distributed subspace."""
        return _STIEFEL.from_normal(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`k(n - k)`, twice that for complex ones."""
        count, n, k = sizes(shape)
        n, k = max(n, k), min(n, k)
        return count * k * (n - k) * (2 if dtype.is_complex else 1)


class ScaledOrthogonal(Constraint):
    r"""Multiples of matrices with orthonormal columns, or rows for n < k.

    .. math::
        \{c\, Q : c \ge 0,\ Q \in \mathrm{St}(n, k)\}

    All singular values are the same: the angles between vectors are kept, the lengths
    scaled. The residual is that of `Stiefel` for :math:`W / c`, with
    :math:`c = \|W\|_F / \sqrt{k}`. Zero is one of them.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.ScaledOrthogonal().contains(3 * torch.eye(3, 2))
        True
        >>> sets.ScaledOrthogonal().project(torch.diag(torch.tensor([3.0, 1.0])))
        tensor([[2., 0.],
                [0., 2.]])

    References:
        Schönemann, A Generalized Solution of the Orthogonal Procrustes Problem, 1966,
        https://doi.org/10.1007/BF02289451
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the columns (or rows) over their length are from such."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        W = _tall(double(weight))
        length = torch.linalg.matrix_norm(W) / max(1, W.shape[-1]) ** 0.5
        zero = length == 0
        off = orthogonality(W / length.masked_fill(zero, 1)[..., None, None])
        return off.masked_fill(zero, 0)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: the polar factor times the mean singular value."""
        sizes(weight.shape)
        W = _tall(double(weight))
        Q = polar(W)
        values = (Q.conj() * W).real.sum((-2, -1)) / max(1, W.shape[-1])
        return _like(values[..., None, None] * Q, weight)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a uniformly distributed direction with the length of the tensor."""
        Q, k = _STIEFEL.from_normal(normal), min(normal.shape[-2:])
        length = torch.linalg.matrix_norm(double(normal)) / max(1, k) ** 0.5
        return (length[..., None, None] * double(Q)).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return one more than for `Stiefel`, for each matrix."""
        return _STIEFEL.dim(shape, dtype) + math.prod(shape[:-2])


_STIEFEL = Stiefel()


def _tall(weight: Tensor) -> Tensor:
    return weight.mH if weight.shape[-2] < weight.shape[-1] else weight


def _like(Q: Tensor, weight: Tensor) -> Tensor:
    """Return a tall Q in the orientation, type and layout of ``weight``."""
    Q = Q if Q.shape == weight.shape else Q.mH
    return Q.to(weight.dtype).contiguous()
