"""Matrices by the interval that their singular values lie in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.certificates import rooms, surely_between
from ..linalg.decompositions import singular_values
from ..linalg.precision import double
from ..linalg.structure import require_matrix
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, inside, sizes


class SingularValuesIn(Constraint):
    r"""Matrices whose singular values lie in an interval.

    .. math::
        \{W : a \le \sigma_i(W) \le b,\ i = 1, \ldots, \min(n, k)\}

    The condition number is at most b/a. For a = b they are multiples of matrices with
    orthonormal columns or rows. The residual is how far a singular value is beyond an
    end, relative to b; within an eighth of the tolerance it counts as that eighth.

    Args:
        low: a >= 0.
        high: b >= a, and positive.
        margin: how far inside `project` puts a singular value that is outside, relative
            to the length of the interval; 0 for the nearest matrix. Maps whose
            derivative is zero at the ends ask for a hundredth.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> W = torch.diag(torch.tensor([3.0, 1.0, 0.1]))
        >>> sets.SingularValuesIn(0.5, high=2.0).project(W).diagonal()
        tensor([2.0000, 1.0000, 0.5000])
    """

    def __init__(self, low: float, *, high: float, margin: float = 0.0) -> None:
        self.low = low
        self.high = high
        self.margin = margin

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the singular values are beyond the ends."""
        if weight.ndim < 2:
            return filled(weight, math.inf)
        if 0 in weight.shape[-2:]:  # there are none
            return filled(weight, 0.0)
        W = double(weight)
        for room in rooms(weight):
            if surely_between(W / self.high, self.low / self.high - room, 1 + room):
                return inside(weight) + room
        values = singular_values(W)
        above, below = values[..., 0] - self.high, self.low - values[..., -1]
        return torch.maximum(above, below).relu() / self.high

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one: singular values are moved to the interval."""
        require_matrix(weight)
        U, values, Vh = torch.linalg.svd(double(weight), full_matrices=False)
        step = self.margin * (self.high - self.low)
        # what is outside by a rounding is inside
        slack = tolerance(weight) * self.high
        values = torch.where(values > self.high + slack, self.high - step, values)
        values = torch.where(values < self.low - slack, self.low + step, values)
        values = values.clamp(self.low, self.high)
        return ((U * values.unsqueeze(-2)) @ Vh).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return random singular vectors, and values uniform in the interval."""
        require_matrix(normal)
        U, values, Vh = torch.linalg.svd(double(normal), full_matrices=False)
        # the ranks of the values are not random, but what their digits are is
        share = torch.remainder(values * 64, 1)
        values = self.low + (self.high - self.low) * share
        return ((U * values.unsqueeze(-2)) @ Vh).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries; those of orthonormal columns if a = b."""
        count, n, k = sizes(shape)
        n, k = max(n, k), min(n, k)
        entries = n * k * (2 if dtype.is_complex else 1)
        if self.low < self.high:
            return count * entries
        fixed = k * k if dtype.is_complex else k * (k + 1) // 2
        return count * (entries - fixed)
