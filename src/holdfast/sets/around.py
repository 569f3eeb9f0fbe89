"""Sets around a given tensor: what a frozen base and a change of some kind make."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.certificates import beyond_rank, certain
from ..linalg.precision import double
from ..linalg.tolerances import tolerance
from ..linalg.turned_blocks import (
    column_blocks,
    nearest_turn,
    off_a_turn,
    turn_columns,
)
from .constraint import Constraint, Shape, filled, sizes
from .linear import Real
from .low_rank import LowRankMatrices

Side = Literal["left", "right"]


class Shifted(Constraint):
    r"""A set, each of its tensors added to a given one.

    .. math::
        \{B + W : W \in \mathcal{S}\}

    The residual is the distance to the projection over the norm of the tensor. Of one
    that is inside to rounding, and the set one of low ranks, it is the distance to
    another point of the set, which is had for a few products: a bound from above.

    Args:
        set: the set.
        base: B, broadcast to the tensor's shape.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> near = sets.Shifted(sets.LowRankMatrices(1), torch.eye(3))
        >>> near.contains(torch.eye(3) + 1), near.contains(3 * torch.eye(3))
        (True, False)
    """

    def __init__(self, set: Constraint, base: Tensor) -> None:
        self.set = set
        self.base = base

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the projection is."""
        if not _fits(weight, self.base):
            return filled(weight, math.inf)
        if _same(weight, self.base):
            return self.set.residual(torch.zeros_like(weight))
        if isinstance(self.set, LowRankMatrices):
            W = double(weight)
            beyond = beyond_rank(W - self.base.to(W), self.set.rank)
            if beyond is not None:
                bound = beyond / torch.linalg.matrix_norm(W)
                if certain(bound, tolerance(weight), W):
                    return bound
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the base plus the projection of what is beyond it."""
        B = _like(self.base, weight)
        return (B + self.set.project(double(weight) - B)).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the base plus a random tensor of the set."""
        B = _like(self.base, normal)
        return (B + double(self.set.from_normal(normal))).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the dimension of the set."""
        return self.set.dim(shape, dtype)


class Isometric(Constraint):
    r"""Matrices whose blocks of columns are those of a given one, turned.

    .. math::
        \{[B_1 R_1, \ldots, B_g R_g] : R_i^T R_i = I\} =
        \{W : W_i W_i^T = B_i B_i^T\}

    Lengths of and angles between the rows of a block are those of the base. With
    ``side="left"`` the same is true of blocks of rows and of columns. The residual is
    the distance to the projection over the norm of the matrix; of one that is inside to
    rounding, the distance to another point of the set: a bound from above.

    Args:
        base: B, broadcast to the matrix's shape.
        block_size: the columns (or rows) of each block; by default all.
        side: where the orthogonal matrices stand.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> turned = sets.Isometric(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        >>> turned.contains(torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
        True
        >>> turned.contains(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        False
    """

    def __init__(
        self, base: Tensor, *, block_size: int | None = None, side: Side = "right"
    ) -> None:
        self.base = base
        self.block_size = block_size
        self.side: Side = side

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the projection is."""
        if not _fits(weight, self.base):
            return filled(weight, math.inf)
        if _same(weight, self.base):
            return filled(weight, 0.0)
        W, B = (
            side_of(X, self.side) for X in (double(weight), _like(self.base, weight))
        )
        off = off_a_turn(W, B, self.block_size or W.shape[-1])
        if off is not None:
            bound = off / torch.linalg.matrix_norm(W)
            if certain(bound, tolerance(weight), W):
                return bound
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: the base with each block turned the best way."""
        B = _like(self.base, weight)
        W, B = (side_of(X, self.side) for X in (double(weight), B))
        R = nearest_turn(W, B, self.block_size or W.shape[-1])
        turned = side_of(turn_columns(B, R), self.side)
        return turned.to(weight.dtype).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return what is nearest to the normal matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        r"""Return the sum of :math:`b \rho - \rho (\rho + 1) / 2` over the blocks.

        They are of size b, and :math:`\rho` is the rank of the base's. For complex
        matrices it is the sum of :math:`2 b \rho - \rho^2`.
        """
        sizes(shape)
        B = side_of(self.base.expand(shape), self.side)
        b = self.block_size or B.shape[-1]
        ranks = torch.linalg.matrix_rank(double(column_blocks(B, b)))
        if dtype.is_complex:
            return int((2 * b * ranks - ranks * ranks).sum())
        return int((b * ranks - ranks * (ranks + 1) // 2).sum())


def shifted(constraint: Constraint, base: Tensor | None) -> Constraint:
    """Return a set around a base, if there is one: a space of all tensors has none.

    Example:
        >>> shifted(Real(), None)
        Real()
    """
    if isinstance(constraint, Real) or base is None:
        return Real()
    return Shifted(constraint, base)


def side_of(W: Tensor, side: Side) -> Tensor:
    """Return the matrix with the side that is turned as its columns.

    Example:
        >>> import torch
        >>> side_of(torch.zeros(2, 3), "left").shape
        torch.Size([3, 2])
    """
    return W.mT if side == "left" else W


def _fits(weight: Tensor, base: Tensor) -> bool:
    """Tell whether the base can be broadcast to the tensor's shape."""
    if weight.ndim < base.ndim:
        return False
    tail = weight.shape[weight.ndim - base.ndim :]
    return all(b in (1, n) for n, b in zip(tail, base.shape, strict=True))


def _same(weight: Tensor, base: Tensor) -> bool:
    """Tell whether there is no change: a registration asks, which is to cost little."""
    if weight.is_meta or weight.dtype != base.dtype or weight.device != base.device:
        return False
    return torch.equal(weight, base)


def _like(base: Tensor, weight: Tensor) -> Tensor:
    """Return the base in the precision of projections, of the tensor's shape."""
    if not _fits(weight, base):
        raise InvalidTensorError(
            f"Expected a tensor of the base's shape {tuple(base.shape)}, or a batch of "
            f"such. Got shape {tuple(weight.shape)}."
        )
    kind = double(weight)
    return base.to(kind).expand(weight.shape)
