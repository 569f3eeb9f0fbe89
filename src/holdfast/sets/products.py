"""Tensors of several parts: factors, and blocks behind each other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.factoring import (
    Sizes,
    factor_shapes,
    middle_factor,
    orthonormal_factors,
    product_of,
    spectral_split,
)
from ..linalg.norms import axis as from_front
from ..linalg.precision import double
from .constraint import Constraint, Shape
from .linear import Real

# One finds U, S and V again; more bring other products nearer.
_SWEEPS = 4

# Relative distance, in double precision, that leaves nothing to look for.
_EXACT = 1e-15


class MatrixProducts(Constraint):
    r"""Products of matrices, each of a set.

    .. math::
        \{W_1 W_2 \cdots W_m : W_i \in \mathcal{S}_i\}

    Which factors a matrix has is found exactly where it is in one of the sets and the
    identity in all others, for products of free matrices (low rank), for
    :math:`U S V` with orthonormal columns and rows and a diagonal between, and for an
    orthonormal factor on either side of a square one that is definite, triangular with
    positive diagonal, or diagonal. For other sets it is a search by alternating least
    squares, so that `residual` is an upper bound: the distance to the product that was
    found, over the norm.

    Args:
        factors: the sets :math:`\mathcal{S}_i`.
        sizes: the sizes between the factors, one number for all; ``None`` is the
            smaller size of W.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> rank_one = sets.MatrixProducts((sets.Real(), sets.Real()), sizes=1)
        >>> rank_one.contains(torch.ones(3, 2)), rank_one.contains(torch.eye(2))
        (True, False)
    """

    def __init__(self, factors: tuple[Constraint, ...], sizes: Sizes = None) -> None:
        self.factors = factors
        self.sizes = sizes

    def shapes(self, shape: Shape) -> list[tuple[int, ...]]:
        """Return the shapes of the factors."""
        return factor_shapes(tuple(shape), len(self.factors), self.sizes)

    def split(self, weight: Tensor) -> list[Tensor]:
        """Return factors in the sets whose product is the matrix, or near it."""
        shapes = self.shapes(weight.shape)
        if weight.is_meta or not weight.numel():
            return [
                each.project(weight.new_ones(shape))
                for each, shape in zip(self.factors, shapes, strict=True)
            ]
        found = self._with_identities(weight, shapes) or self._search(weight, shapes)
        return [factor.to(weight.dtype).contiguous() for factor in found]

    def _with_identities(
        self, weight: Tensor, shapes: list[tuple[int, ...]]
    ) -> list[Tensor]:
        """Return identities and the matrix, if the sets contain these."""
        units = [
            torch.eye(*s[-2:], dtype=weight.dtype, device=weight.device).expand(s)
            for s in shapes
        ]
        outside = [
            i
            for i, (each, unit) in enumerate(zip(self.factors, units, strict=True))
            if unit.shape[-1] != unit.shape[-2] or not each.contains(unit)
        ]
        for i, each in enumerate(self.factors):
            fits = {*outside} <= {i} and shapes[i] == tuple(weight.shape)
            if fits and each.contains(weight):
                return [*units[:i], weight, *units[i + 1 :]]
        return []

    def _search(self, weight: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
        """Return the best factors that alternating least squares find."""
        W, best = double(weight), list[Tensor]()
        for start in self._starts(W, shapes):
            found = self._improved(W, start)
            nearer = _distance(W, found) < _distance(W, best) if best else None
            best = found if nearer is None else _chosen(nearer, found, best)
            if _exact(W, best):
                break
        return best

    def _starts(
        self, W: Tensor, shapes: list[tuple[int, ...]]
    ) -> Iterator[list[Tensor]]:
        """Return factors of a spectral split, then pairs with an orthonormal one."""
        yield self._projected(spectral_split(W, shapes))
        if len(shapes) == 2:
            yield from map(self._projected, _orthonormal_pairs(W, shapes[0][-1]))

    def _projected(self, factors: list[Tensor]) -> list[Tensor]:
        pairs = zip(self.factors, factors, strict=True)
        return [each.project(factor) for each, factor in pairs]

    def _improved(self, W: Tensor, found: list[Tensor]) -> list[Tensor]:
        """Return factors whose product is not farther from W."""
        for i in [*range(len(found))] * _SWEEPS:
            if _exact(W, found):
                break
            new = middle_factor(W, found[:i], found[i + 1 :])
            rivals = [*found[:i], self.factors[i].project(new), *found[i + 1 :]]
            # nothing says that a projection comes nearer
            nearer = _distance(W, rivals) < _distance(W, found)
            found = _chosen(nearer, rivals, found)
        return found

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the product of the factors found is from the matrix."""
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return the product of the factors found, which need not be the nearest."""
        return product_of(*self.split(weight))

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the product next to a random matrix."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return an upper bound: the factors' dimensions, at most the matrix's."""
        pairs = zip(self.factors, self.shapes(shape), strict=True)
        total = sum(each.dim(s, dtype) for each, s in pairs)
        return min(Real().dim(shape, dtype), total)


def _orthonormal_pairs(W: Tensor, size: int) -> Iterator[list[Tensor]]:
    """Return pairs of factors, first with orthonormal columns on the left."""
    if size <= min(W.shape[-2:]):
        for Q in orthonormal_factors(W[..., :size]):
            yield [Q, Q.mH @ W]
        for Q in orthonormal_factors(W[..., :size, :].mH):
            yield [W @ Q, Q.mH]


def _chosen(first: Tensor, factors: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    pairs = zip(factors, others, strict=True)
    return [torch.where(first[..., None, None], A, B) for A, B in pairs]


def _exact(W: Tensor, factors: list[Tensor]) -> bool:
    limit = _EXACT * torch.linalg.matrix_norm(W)
    return bool((_distance(W, factors) <= limit).all())


def _distance(W: Tensor, factors: list[Tensor]) -> Tensor:
    return torch.linalg.matrix_norm(W - product_of(*factors))


class Concatenations(Constraint):
    r"""Tensors whose blocks along a dimension lie each in a set of its own.

    .. math::
        \{(W_1, \ldots, W_m) : W_i \in \mathcal{S}_i\}

    The residual is the largest of the blocks'.

    Args:
        parts: the sets :math:`\mathcal{S}_i`.
        sizes: the blocks' sizes along the dimension; ``None`` makes them equal.
        axis: the dimension; negative ones count from the end.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> both = sets.Concatenations((sets.Stiefel(), sets.SkewMatrices()))
        >>> both.contains(
        ...     torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [-5.0, 0.0]])
        ... )
        True
    """

    def __init__(
        self,
        parts: tuple[Constraint, ...],
        sizes: tuple[int, ...] | None = None,
        axis: int = 0,
    ) -> None:
        self.parts = parts
        self.sizes = sizes
        self.axis = axis

    def split(self, weight: Tensor) -> list[Tensor]:
        """Return the blocks."""
        sizes = self._sizes(tuple(weight.shape))
        return [*weight.split(sizes, from_front(self.axis, weight.ndim))]

    def _sizes(self, shape: Shape) -> list[int]:
        whole, count = shape[from_front(self.axis, len(shape))], len(self.parts)
        sizes = self.sizes or (whole // max(1, count),) * count
        if len(sizes) != count or sum(sizes) != whole or min(sizes, default=0) < 0:
            raise InvalidTensorError(
                f"Expected {count} sizes that add up to {whole}, that of dimension "
                f"{self.axis} of {tuple(shape)}. Got {sizes}."
            )
        return [*sizes]

    def residual(self, weight: Tensor) -> Tensor:
        """Return the largest residual of a block."""
        pairs = zip(self.parts, self.split(weight), strict=True)
        return reduce(torch.maximum, [each.residual(block) for each, block in pairs])

    def project(self, weight: Tensor) -> Tensor:
        """Return the projections of the blocks."""
        pairs = zip(self.parts, self.split(weight), strict=True)
        return torch.cat([each.project(block) for each, block in pairs], self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return random blocks."""
        pairs = zip(self.parts, self.split(normal), strict=True)
        return torch.cat([each.from_normal(block) for each, block in pairs], self.axis)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the sum of the blocks' dimensions."""
        blocks = self.split(torch.empty(tuple(shape), device="meta"))
        pairs = zip(self.parts, blocks, strict=True)
        return sum(each.dim(block.shape, dtype) for each, block in pairs)
