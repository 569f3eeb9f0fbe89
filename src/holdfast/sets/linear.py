"""Linear subspaces, and the whole space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.precision import double
from ..linalg.structure import require_square, traceless
from .constraint import Constraint, Shape, filled, is_square, sizes


class Real(Constraint):
    r"""All tensors of any shape, :math:`\mathbb{R}^{n_1 \times n_2 \times \cdots}`.

    The set of a free tensor; of complex ones as well.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Real().contains(torch.randn(2, 3))
        True
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros(weight.shape[:-2], device=weight.device)

    def project(self, weight: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return weight

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return independent standard normal entries."""
        return normal

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, twice that where they are complex."""
        return math.prod(shape) * (2 if dtype.is_complex else 1)


class SquareMatrices(Constraint):
    r"""All square matrices, :math:`\mathbb{R}^{n \times n}`.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SquareMatrices().contains(torch.randn(2, 3))
        False
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return zeros, or infinity for a matrix that is not square."""
        return filled(weight, 0.0 if is_square(weight.shape) else math.inf)

    def project(self, weight: Tensor) -> Tensor:
        """Return the matrix as it is."""
        require_square(weight)
        return weight

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return independent standard normal entries."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2`, twice that for complex matrices."""
        sizes(shape)
        return math.prod(shape) * (2 if dtype.is_complex else 1)


class SymmetricMatrices(Constraint):
    r"""Symmetric matrices, :math:`W = W^T`; Hermitian ones where they are complex.

    The residual is the norm of the skew part over the norm of the matrix.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SymmetricMatrices().project(torch.tensor([[1.0, 4.0], [2.0, 3.0]]))
        tensor([[1., 3.],
                [3., 3.]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix is skew."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest symmetric matrix, :math:`(W + W^H)/2`."""
        require_square(weight)
        return (weight + weight.mH) / 2

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the symmetric part of a normal matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n + 1)/2`, or :math:`n^2` for Hermitian matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n if dtype.is_complex else n * (n + 1) // 2)


class SkewMatrices(Constraint):
    r"""Skew-symmetric matrices, :math:`W = -W^T`; skew-Hermitian where complex.

    The residual is the norm of the symmetric part over the norm of the matrix.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SkewMatrices().project(torch.tensor([[1.0, 4.0], [2.0, 3.0]]))
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix is symmetric."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest skew matrix, :math:`(W - W^H)/2`."""
        require_square(weight)
        return (weight - weight.mH) / 2

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the skew part of a normal matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n - 1)/2`, or :math:`n^2` for skew-Hermitian matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n if dtype.is_complex else n * (n - 1) // 2)


class TracelessMatrices(Constraint):
    r"""Square matrices of trace zero: the Lie algebra :math:`\mathfrak{sl}(n)`.

    The residual is :math:`|\mathrm{tr}\, W| / \sqrt{n}` over the norm of the matrix.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.TracelessMatrices().project(torch.tensor([[3.0, 5.0], [0.0, 1.0]]))
        tensor([[ 1.,  5.],
                [ 0., -1.]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix is a multiple of the identity."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one, less the mean of the diagonal."""
        return traceless(double(weight)).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a normal matrix less the mean of its diagonal."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2 - 1`, twice that for complex matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n - 1) * (2 if dtype.is_complex else 1)


class TriangularMatrices(Constraint):
    r"""Lower or upper triangular matrices, square, tall or wide.

    The residual is the norm of what should be zero over the norm of the matrix.

    Args:
        upper: the entries on and above the diagonal are free, not those below.
        strict: the diagonal is zero as well.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.TriangularMatrices(upper=True).project(torch.ones(2, 2))
        tensor([[1., 1.],
                [0., 1.]])
    """

    def __init__(self, *, upper: bool = False, strict: bool = False) -> None:
        self.upper = upper
        self.strict = strict

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix lies in the other triangle."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest triangular matrix: the entries of the triangle."""
        sizes(weight.shape)
        offset = int(self.strict)
        return weight.triu(offset) if self.upper else weight.tril(-offset)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries in the triangle."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries in the triangle, twice that where complex."""
        count, n, k = sizes(shape)
        rows, columns = (k, n) if self.upper else (n, k)
        free = sum(min(max(i + 1 - self.strict, 0), columns) for i in range(rows))
        return count * free * (2 if dtype.is_complex else 1)


class Sparse(Constraint):
    r"""Tensors that are zero wherever a mask is.

    The residual is the norm of the masked entries over the norm of the tensor.

    Args:
        mask: true, or 1, where an entry is free; broadcast to the tensor's shape.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Sparse(torch.tensor([True, False])).project(torch.ones(2))
        tensor([1., 0.])
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the tensor the mask would remove."""
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor: the entries that the mask keeps."""
        return torch.where(self.mask.bool(), weight, 0)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries where the mask is true."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of free entries, twice that where they are complex."""
        free = int(self.mask.bool().expand(shape).sum())
        return free * (2 if dtype.is_complex else 1)
