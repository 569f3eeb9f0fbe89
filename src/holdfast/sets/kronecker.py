"""Kronecker products."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.blocks import blocks_as_rows, kronecker, nearest_kronecker
from ..linalg.certificates import beyond_rank, certain
from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, sizes


class KroneckerProducts(Constraint):
    r"""Kronecker products of two matrices, the left one of a given size.

    .. math::
        \{A \otimes B : A \in \mathbb{R}^{p \times q},
        B \in \mathbb{R}^{n/p \times k/q}\}

    The residual is the distance to the nearest one over the norm of the matrix, or, of
    a product to rounding, to another near one: a bound from above. It is infinite where
    p does not divide n, or q not k.

    Args:
        left: p and q, the size of A.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> products = sets.KroneckerProducts((2, 2))
        >>> products.contains(torch.eye(4)), products.dim((4, 4))
        (True, 7)

    References:
        Van Loan and Pitsianis, Approximation with Kronecker Products, 1993,
        https://doi.org/10.1007/978-94-015-8196-7_17
    """

    def __init__(self, left: tuple[int, int]) -> None:
        self.left = left

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the nearest product is."""
        try:
            W = double(weight)
            beyond = beyond_rank(blocks_as_rows(W, *self.left), 1)
            if beyond is not None:
                bound = beyond / torch.linalg.matrix_norm(W)
                if certain(bound, tolerance(weight), W):
                    return bound
            return self.distance(weight)
        except InvalidTensorError:
            return filled(weight, math.inf)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest product."""
        A, B = nearest_kronecker(double(weight), *self.left)
        return kronecker(A, B).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the nearest product to a normal matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the entries of both factors but one, twice that where complex."""
        count, n, k = sizes(shape)
        p, q = self.left
        free = p * q + n * k // (p * q) - 1
        return count * free * (2 if dtype.is_complex else 1)
