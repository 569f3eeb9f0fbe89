"""Matrices of low rank: of at most, and of exactly so much."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.certificates import certain, near_columns, worth_asking
from ..linalg.decompositions import singular_values
from ..linalg.low_rank import nearest_of_rank, require_rank, truncated_svd
from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, sizes


class LowRankMatrices(Constraint):
    r"""Matrices of at most this rank.

    .. math::
        \{W \in \mathbb{R}^{n \times k} : \mathrm{rank}\, W \le r\}

    The residual is the singular value after the r largest ones, over the largest; of a
    matrix of rank r to rounding, a bound of it from above, which costs a few products
    with r columns. The set is closed, and a manifold but for matrices of lower rank.

    Args:
        rank: r >= 1.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> low = sets.LowRankMatrices(1)
        >>> low.residual(torch.diag(torch.tensor([4.0, 1.0])))
        tensor(0.2500, dtype=torch.float64)
        >>> low.project(torch.diag(torch.tensor([4.0, 1.0])))
        tensor([[4., 0.],
                [0., 0.]])
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def residual(self, weight: Tensor) -> Tensor:
        """Return the first singular value too many, over the largest."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        if not (weight.is_meta or bool(weight.count_nonzero())):
            return filled(weight, 0.0)
        W = double(weight)
        values, bound = _sketched(W, self.rank)
        if values is not None and certain(bound, tolerance(weight), W):
            return bound
        return _too_many(singular_values(W), self.rank)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one, of the r largest singular values."""
        sizes(weight.shape)
        return nearest_of_rank(double(weight), self.rank).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return what is nearest to the normal matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`r (n + k - r)`, twice that for complex matrices."""
        count, n, k = sizes(shape)
        r = min(self.rank, n, k)
        return count * r * (n + k - r) * (2 if dtype.is_complex else 1)


class FixedRankMatrices(Constraint):
    r"""Matrices of exactly this rank.

    .. math::
        \{W \in \mathbb{R}^{n \times k} : \mathrm{rank}\, W = r\}

    A manifold, and not closed: all but the matrices whose rank is lower to rounding
    count as inside. The residual is the larger of that of `LowRankMatrices`, and of how
    far the last of the r singular values lies below the rounding unit times the
    largest, from 0 to 1.

    Args:
        rank: r >= 1, at most the smaller side.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> W = torch.diag(torch.tensor([4.0, 1.0, 0.0]))
        >>> [sets.FixedRankMatrices(rank).contains(W) for rank in (1, 2, 3)]
        [False, True, False]
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def residual(self, weight: Tensor) -> Tensor:
        """Return the larger of what is too much, and of what is lacking."""
        if weight.ndim < 2 or not 1 <= self.rank <= min(weight.shape[-2:]):
            return filled(weight, math.inf)
        W = double(weight)
        values, beyond = _sketched(W, self.rank)
        if values is not None:
            bound = torch.maximum(beyond, self._lacking(values, weight))
            if certain(bound, tolerance(weight), W):
                return bound
        values = singular_values(W)
        return torch.maximum(
            _too_many(values, self.rank), self._lacking(values, weight)
        )

    def _lacking(self, values: Tensor, weight: Tensor) -> Tensor:
        largest, last = values[..., 0], values[..., self.rank - 1]
        ratio = torch.where(largest > 0, last / largest, 0)
        return (1 - ratio / torch.finfo(weight.dtype).eps).relu()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one whose r singular values stand out from rounding."""
        require_rank(weight, self.rank)
        U, values, Vh = truncated_svd(double(weight), self.rank)
        largest = values[..., :1]
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        values = torch.maximum(values, floor)
        return ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return what is nearest to the normal matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`r (n + k - r)`, twice that for complex matrices."""
        return LowRankMatrices(self.rank).dim(shape, dtype)


def _too_many(values: Tensor, rank: int) -> Tensor:
    """Return the value after the first ones, over the first."""
    if rank >= values.shape[-1]:
        return torch.zeros(values.shape[:-1], device=values.device)
    largest = values[..., 0]
    return torch.where(largest > 0, values[..., rank] / largest, values[..., rank])


def _sketched(W: Tensor, rank: int) -> tuple[Tensor | None, Tensor]:
    """Return lower bounds of the first singular values, and an upper one of the rest.

    The latter is relative to the largest. There are none where they would not pay.
    """
    W = W.contiguous()
    V = near_columns(W, rank) if worth_asking(W) else None
    if V is None:
        return None, torch.zeros(())
    C = W @ V
    values = torch.linalg.svdvals(C)
    beyond, largest = torch.linalg.matrix_norm(W - C @ V.mH), values[..., 0]
    return values, torch.where(largest > 0, beyond / largest, beyond)
