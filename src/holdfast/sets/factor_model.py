"""Semidefinite matrices of low rank plus a positive diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.certificates import certain, worth_asking
from ..linalg.factor_model import low_rank_plus_diagonal
from ..linalg.gram_matrix import gram
from ..linalg.precision import double
from ..linalg.structure import require_square
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, is_square, relative, sizes


class LowRankPlusDiagonalMatrices(Constraint):
    r"""Definite matrices that are of low rank but for their diagonal: factor models.

    .. math::
        \{B B^H + D : B \in \mathbb{R}^{n \times r},\ D \text{ diagonal},\ d_{ii} > 0\},
        \qquad n \ge 3r

    The residual is the distance to the projection over the norm of the matrix, or, of
    one that is inside to rounding, to what fits after the first round. For less rows
    than 3r the parts could not be told from each other, and nothing is inside.

    Args:
        rank: r.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> factors = sets.LowRankPlusDiagonalMatrices(1)
        >>> factors.contains(torch.ones(4, 4) + torch.eye(4)), factors.dim((4, 4))
        (True, 8)
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the projection is."""
        if not is_square(weight.shape) or weight.shape[-1] < 3 * self.rank:
            return filled(weight, math.inf)
        if worth_asking(weight):
            W = double(weight)
            bound = relative(W - self._fitted(W, rounds=1), W)
            if certain(bound, tolerance(weight), W):
                return bound
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the matrix with the same diagonal that an alternating fit gives.

        Not the nearest one, but what is inside stays.
        """
        check_factors(weight, self.rank)
        return self._fitted(weight).to(weight.dtype)

    def _fitted(self, weight: Tensor, **rounds: int) -> Tensor:
        W = double(weight)
        W = (W + W.mH) / 2
        diagonal = W.diagonal(dim1=-2, dim2=-1).real
        floor = torch.finfo(weight.dtype).eps
        # a diagonal that is not positive has no such matrix: the nearest that has
        least = floor * diagonal.abs().amax(-1, keepdim=True)
        W = W + torch.diag_embed((least - diagonal).relu()).to(W.dtype)
        B, d = low_rank_plus_diagonal(W, self.rank, floor, **rounds)
        return gram(B) + torch.diag_embed(d).to(W.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return that of normal factors, and a diagonal between 1/2 and 3/2."""
        check_factors(normal, self.rank)
        B = normal[..., : self.rank] / self.rank**0.5
        d = 0.5 + torch.sigmoid(normal[..., -1].real)
        return gram(B) + torch.diag_embed(d).to(B.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`nr - r(r - 1)/2 + n`, or :math:`2nr - r^2 + n` if complex."""
        count, n, _ = sizes(shape)
        r = self.rank
        free = 2 * n * r - r * r if dtype.is_complex else n * r - r * (r - 1) // 2
        return count * (free + n)


def check_factors(weight: Tensor, rank: int) -> None:
    """Raise unless the matrix is square, with at least 3r rows."""
    require_square(weight)
    if not 1 <= rank <= weight.shape[-1] // 3:
        raise InvalidTensorError(
            "Expected a rank from 1 to a third of the size, above which rank and "
            f"diagonal cannot be told apart. Got rank {rank} for shape "
            f"{tuple(weight.shape)}."
        )
