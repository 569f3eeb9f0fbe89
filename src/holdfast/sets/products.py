"""Matrices that are products of others."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linalg.factoring import (
    Sizes,
    factor_shapes,
    middle_factor,
    product_of,
    spectral_split,
)
from ..linalg.precision import double
from .constraint import Constraint, Shape
from .linear import Real

# One finds U, S and V again; more bring other products nearer.
_SWEEPS = 4


class MatrixProducts(Constraint):
    r"""Products of matrices, each of a set.

    .. math::
        \{W_1 W_2 \cdots W_m : W_i \in \mathcal{S}_i\}

    Which factors a matrix has is found exactly where it is in one of the sets and the
    identity in all others, for products of free matrices (low rank), and for
    :math:`U S V` with orthonormal columns and rows and a diagonal between. For other
    sets it is a search by alternating least squares, so that `residual` is an upper
    bound: the distance to the product that was found, over the norm.

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
        """Return the factors that alternating least squares find."""
        W = double(weight)
        found = [
            each.project(factor)
            for each, factor in zip(
                self.factors, spectral_split(W, shapes), strict=True
            )
        ]
        for i in [*range(len(found))] * _SWEEPS:
            new = middle_factor(W, found[:i], found[i + 1 :])
            rivals = [*found[:i], self.factors[i].project(new), *found[i + 1 :]]
            # nothing says that a projection comes nearer
            better = _distance(W, rivals) < _distance(W, found)
            found[i] = torch.where(better[..., None, None], rivals[i], found[i])
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


def _distance(W: Tensor, factors: list[Tensor]) -> Tensor:
    return torch.linalg.matrix_norm(W - product_of(*factors))
