"""Matrices that are zero off the diagonal, off a band, or off their blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.blocks import block_diagonal, diagonal_blocks
from .constraint import Constraint, Shape, filled, sizes


class DiagonalMatrices(Constraint):
    r"""Diagonal matrices, square, tall or wide: :math:`w_{ij} = 0` for i ≠ j.

    The residual is the norm of what should be zero over the norm of the matrix.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.DiagonalMatrices().project(torch.ones(2, 3))
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix is off the diagonal."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest diagonal matrix: the entries of the diagonal."""
        sizes(weight.shape)
        return weight.tril().triu()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries on the diagonal."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the length of the diagonal, twice that where complex."""
        count, n, k = sizes(shape)
        return count * min(n, k) * (2 if dtype.is_complex else 1)


class BandedMatrices(Constraint):
    r"""Matrices with a band of free entries along the diagonal.

    .. math::
        \{W \in \mathbb{R}^{n \times k} : w_{ij} = 0 \text{ unless }
        -u \le i - j \le l\}

    The residual is the norm of what should be zero over the norm of the matrix.
    Tridiagonal matrices have l = u = 1, upper Hessenberg ones l = 1 and u = n.

    Args:
        lower: l, the number of free diagonals below the main one.
        upper: u, the number of free diagonals above it.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.BandedMatrices(1, upper=0).project(torch.ones(3, 3))
        tensor([[1., 0., 0.],
                [1., 1., 0.],
                [0., 1., 1.]])
    """

    def __init__(self, lower: int = 1, *, upper: int = 1) -> None:
        self.lower = lower
        self.upper = upper

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix is off the band."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest banded matrix: the entries of the band."""
        sizes(weight.shape)
        return weight.triu(-self.lower).tril(self.upper)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries in the band."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries in the band, twice that where complex."""
        count, n, k = sizes(shape)
        ends = ((i - self.lower, i + self.upper + 1) for i in range(n))
        free = sum(max(0, min(end, k) - max(0, start)) for start, end in ends)
        return count * free * (2 if dtype.is_complex else 1)


class BlockDiagonalMatrices(Constraint):
    r"""Matrices with equal blocks along the diagonal, and zeros elsewhere.

    .. math::
        \{\mathrm{diag}(B_1, \ldots, B_b) : B_i \in \mathbb{R}^{n/b \times k/b}\}

    The residual is the norm of what should be zero over the norm of the matrix; it is
    infinite where the matrix cannot be cut into as many equal blocks.

    Args:
        blocks: b, the number of blocks.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.BlockDiagonalMatrices(2).project(torch.ones(2, 4))
        tensor([[1., 1., 0., 0.],
                [0., 0., 1., 1.]])
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the matrix is off the blocks."""
        try:
            return self.distance(weight)
        except InvalidTensorError:
            return filled(weight, math.inf)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such matrix: the entries of the blocks."""
        return block_diagonal(diagonal_blocks(weight, self.blocks))

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return normal entries in the blocks."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries in the blocks, twice that where complex."""
        count, n, k = sizes(shape)
        return count * n * k // self.blocks * (2 if dtype.is_complex else 1)
