"""Matrices that are constant along their diagonals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.precision import double
from ..linalg.shifts import circulant, diagonal_means, toeplitz, wrapped_means
from ..linalg.structure import require_square
from .constraint import Constraint, Shape, filled, is_square, sizes


class ToeplitzMatrices(Constraint):
    r"""Matrices with one value on each diagonal, square, tall or wide.

    .. math::
        \{W \in \mathbb{R}^{n \times k} : w_{ij} = t_{i - j}\}

    The residual is the distance to the nearest one over the norm of the matrix.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.ToeplitzMatrices().project(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        tensor([[3., 2.],
                [3., 3.]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much the entries on a diagonal differ."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: the means along the diagonals."""
        sizes(weight.shape)
        means = diagonal_means(double(weight))
        return toeplitz(means, weight.shape[-1]).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return independent normal diagonals: the first row's and column's."""
        sizes(normal.shape)
        if not normal.numel():
            return normal
        k = normal.shape[-1]
        first = normal[..., 0, :].flip(-1)
        rest = normal.split([1, normal.shape[-2] - 1], -2)[1][..., 0]
        return toeplitz(torch.cat([first, rest], -1), k)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n + k - 1`, twice that where complex."""
        count, n, k = sizes(shape)
        return count * (n + k - 1) * (2 if dtype.is_complex else 1)


class CirculantMatrices(Constraint):
    r"""Square matrices whose columns are turns of the first one.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : w_{ij} = c_{(i - j) \bmod n}\}

    The residual is the distance to the nearest one over the norm of the matrix.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.CirculantMatrices().project(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        tensor([[3.0000, 2.5000],
                [2.5000, 3.0000]])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much the entries on a wrapped diagonal differ."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: the means along wrapped diagonals."""
        return circulant(wrapped_means(double(weight))).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the turns of the first column."""
        require_square(normal)
        return circulant(normal[..., 0])

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return n, twice that where complex."""
        count, n, _ = sizes(shape)
        return count * n * (2 if dtype.is_complex else 1)
