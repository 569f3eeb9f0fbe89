"""Tensors with few nonzero entries, wherever these are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.certificates import finite, worth_asking
from ..linalg.magnitudes import largest, largest_of_groups, require_groups
from ..linalg.norms import axis as position
from .constraint import Constraint, Shape, filled, inside


class KSparse(Constraint):
    r"""Tensors with at most k nonzero entries, in all or in every slice.

    .. math::
        \{W : \|W\|_0 \le k\}

    A closed cone, and no convex set: a union of subspaces, one for each choice of
    entries. The residual is the norm of all but the k largest entries over the norm of
    the tensor; there is one for the tensor, or for each matrix if ``axis`` is given.

    Args:
        count: k; or a tensor that holds it, which is then not looked at.
        axis: the dimension along which the entries are counted, as -1 for each row.
            ``None`` counts those of the whole tensor.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.KSparse(1, axis=-1).project(torch.tensor([[3.0, -4.0], [2.0, 1.0]]))
        tensor([[ 0., -4.],
                [ 2.,  0.]])
    """

    def __init__(self, count: int | Tensor, *, axis: int | None = None) -> None:
        self.count = count
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of the tensor lies beyond the k largest entries."""
        flat = weight.flatten() if self.axis is None else weight
        if worth_asking(weight) and self._holds(flat):
            return inside(flat)
        return self.distance(flat)

    def _holds(self, weight: Tensor) -> bool:
        dim = () if self.axis is None else self.axis
        return _few((weight != 0).sum(dim), self.count, weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return a nearest such tensor: the k entries of largest modulus."""
        return torch.where(largest(weight, self.count, self.axis), weight, 0)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the k largest of independent normal entries."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return k for each slice, twice that where the entries are complex."""
        entries = math.prod(shape)
        length = (
            entries if self.axis is None else shape[position(self.axis, len(shape))]
        )
        free = entries // max(1, length) * min(int(self.count), length)
        return free * (2 if dtype.is_complex else 1)


class NMSparse(Constraint):
    r"""Tensors with at most N nonzero entries in every M along an axis.

    .. math::
        \{W : \|(w_{jM}, \ldots, w_{jM + M - 1})\|_0 \le N \text{ for all } j\}

    A closed cone, and no convex set. Accelerators multiply by 2:4 sparse matrices at
    up to twice the speed. The residual is the norm of all but the N largest entries of
    every group over that of the matrix; infinite if the axis is no multiple of M.

    Args:
        n: N, how many entries of a group may be nonzero.
        m: M, the size of a group.
        axis: the dimension that is cut into groups.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.NMSparse(1, 2).project(torch.tensor([[3.0, -4.0], [2.0, 1.0]]))
        tensor([[ 0., -4.],
                [ 2.,  0.]])
    """

    def __init__(self, n: int = 2, m: int = 4, *, axis: int = -1) -> None:
        self.n = n
        self.m = m
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return how much of each matrix lies beyond the largest entries."""
        ndim = weight.ndim
        if not -ndim <= self.axis < ndim or weight.shape[self.axis] % self.m:
            return filled(weight, math.inf)
        if worth_asking(weight):
            groups = (weight != 0).unflatten(self.axis, (-1, self.m))
            dim = self.axis if self.axis < 0 else self.axis + 1
            if _few(groups.sum(dim), self.n, weight):
                return inside(weight)
        return self.distance(weight)

    def project(self, weight: Tensor) -> Tensor:
        """Return a nearest such tensor: the entries of largest modulus."""
        mask = largest_of_groups(weight, self.n, self.m, self.axis)
        return torch.where(mask, weight, 0)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the largest of independent normal entries."""
        return self.project(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return N for each group, twice that where the entries are complex."""
        require_groups(shape, self.m, self.axis)
        free = math.prod(shape) // self.m * self.n
        return free * (2 if dtype.is_complex else 1)


def _few(counts: Tensor, limit: int | Tensor, weight: Tensor) -> bool:
    """Tell whether no count is above the limit, in a tensor of numbers."""
    return bool((counts <= limit).all() & finite(weight))
