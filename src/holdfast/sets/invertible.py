"""Invertible matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.precision import double
from ..linalg.structure import require_square
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, is_square, sizes


class GeneralLinear(Constraint):
    r"""Invertible matrices, :math:`GL(n) = \{W : \det W \ne 0\}`.

    The set is open, and its complement has no volume: all but the matrices that are
    singular to rounding count as inside. The residual is 1 for a singular matrix and
    falls to 0 where :math:`\sigma_{\min}/\sigma_{\max}` reaches the rounding unit.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.GeneralLinear().contains(torch.eye(3))
        True
        >>> sets.GeneralLinear().contains(torch.ones(3, 3))
        False
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how singular the matrix is, from 0 to 1."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        values = torch.linalg.svdvals(double(weight))
        smallest, largest = values[..., -1], values[..., 0]
        ratio = torch.where(largest > 0, smallest / largest, 0)
        return (1 - ratio / torch.finfo(weight.dtype).eps).relu()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one whose condition is at most that of rounding."""
        require_square(weight)
        U, values, Vh = torch.linalg.svd(double(weight))
        largest = values[..., :1]
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        values = torch.maximum(values, floor)
        return ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the normal matrix: it is invertible with probability 1."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2`, twice that for complex matrices."""
        sizes(shape)
        return math.prod(shape) * (2 if dtype.is_complex else 1)
