"""Sets made of other sets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linalg.matricization import (
    Axes,
    join_blocks,
    matricize,
    matricized_shape,
    stack_blocks,
    stacked_shape,
    tensorize,
)
from ..linalg.precision import double
from ..linalg.structure import require_matrix
from .constraint import Constraint, Shape
from .groups import Orthogonal, Unitary
from .linear import (
    Real,
    SkewMatrices,
    Sparse,
    SquareMatrices,
    SymmetricMatrices,
    TriangularMatrices,
)
from .orthogonal import Grassmann, ScaledOrthogonal, Stiefel

_ORTHONORMAL = (Stiefel, Grassmann, Orthogonal, Unitary)
_LINEAR = (
    Real,
    SkewMatrices,
    Sparse,
    SquareMatrices,
    SymmetricMatrices,
    TriangularMatrices,
)


class Matricized(Constraint):
    r"""Tensors that lie in a set of matrices when some dimensions become the rows.

    .. math::
        \{W : \mathrm{mat}(W) \in \mathcal{S}\}

    The residual is that of the one matrix.

    Args:
        set: the set of matrices.
        rows: the dimension, or the dimensions in the order wanted, that become the
            rows; all others become the columns. Negative ones count from the end.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> kernels = sets.Matricized(sets.Stiefel())
        >>> kernel = kernels.sample((4, 2, 3, 3))
        >>> sets.Stiefel().contains(kernel.reshape(4, 18))
        True
    """

    def __init__(self, set: Constraint, rows: Axes = 0) -> None:
        self.set = set
        self.rows = rows

    def residual(self, weight: Tensor) -> Tensor:
        """Return the residual of the matrix."""
        return self.set.residual(matricize(weight, self.rows))

    def project(self, weight: Tensor) -> Tensor:
        """Return the tensor of the matrix's projection."""
        P = self.set.project(matricize(weight, self.rows))
        return tensorize(P, weight.shape, self.rows).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the tensor of a random matrix."""
        W = self.set.from_normal(matricize(normal, self.rows))
        return tensorize(W, normal.shape, self.rows).contiguous()

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the dimension for the matrix."""
        return self.set.dim(matricized_shape(tuple(shape), self.rows), dtype)


class Scaled(Constraint):
    r"""A set, each of its tensors multiplied by a number.

    .. math::
        \{c\, W : W \in \mathcal{S}\}

    The residual is that of :math:`W / c`.

    Args:
        set: the set.
        factor: the number c, not zero.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> doubled = sets.Scaled(sets.Stiefel(), 2.0)
        >>> doubled.contains(2 * torch.eye(3)), doubled.contains(torch.eye(3))
        (True, False)
    """

    def __init__(self, set: Constraint, factor: float) -> None:
        self.set = set
        self.factor = factor

    def residual(self, weight: Tensor) -> Tensor:
        """Return the residual of the tensor over the factor."""
        return self.set.residual(weight / self.factor)

    def project(self, weight: Tensor) -> Tensor:
        """Return the factor times the projection of the tensor over the factor."""
        P = self.set.project(double(weight) / self.factor)
        return (self.factor * P).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the factor times a random tensor of the set."""
        return self.factor * self.set.from_normal(normal)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the dimension of the set."""
        return self.set.dim(shape, dtype)


class Transposed(Constraint):
    r"""Matrices whose transposes lie in a set.

    .. math::
        \{W : W^T \in \mathcal{S}\}

    Args:
        set: the set of the transposes.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Transposed(sets.Simplex()).contains(torch.tensor([[0.0], [1.0]]))
        True
    """

    def __init__(self, set: Constraint) -> None:
        self.set = set

    def residual(self, weight: Tensor) -> Tensor:
        """Return the residual of the transpose; infinity for what has none."""
        if weight.ndim < 2:
            return torch.full((), torch.inf, device=weight.device)
        return self.set.residual(weight.mT)

    def project(self, weight: Tensor) -> Tensor:
        """Return the transpose of its transpose's projection."""
        require_matrix(weight)
        return self.set.project(weight.mT).mT.contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the transpose of a random matrix."""
        require_matrix(normal)
        return self.set.from_normal(normal.mT).mT.contiguous()

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the dimension for the transposed shape."""
        *batch, n, k = shape
        return self.set.dim((*batch, k, n), dtype)


class PerBlock(Constraint):
    r"""Tensors whose equal blocks along a dimension lie in a set, each for itself.

    .. math::
        \{(W_1, \ldots, W_b) : W_i \in \mathcal{S}\}

    The residual is the largest of the blocks'.

    Args:
        set: the set of one block.
        blocks: their number b.
        axis: the dimension along which they follow each other.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> gates = sets.PerBlock(sets.Stiefel(), blocks=4)
        >>> gates.contains(torch.eye(3).repeat(4, 1))
        True
    """

    def __init__(self, set: Constraint, blocks: int = 4, axis: int = 0) -> None:
        self.set = set
        self.blocks = blocks
        self.axis = axis

    def residual(self, weight: Tensor) -> Tensor:
        """Return the largest residual of a block."""
        residual = self.set.residual(self._stack(weight))
        return residual.amax(-1) if residual.ndim else residual

    def _stack(self, weight: Tensor) -> Tensor:
        return stack_blocks(weight, self.blocks, self.axis)

    def project(self, weight: Tensor) -> Tensor:
        """Return the projections of the blocks."""
        return join_blocks(self.set.project(self._stack(weight)), self.axis)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return independent random blocks."""
        return join_blocks(self.set.from_normal(self._stack(normal)), self.axis)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the sum of the blocks' dimensions."""
        stacked = stacked_shape(tuple(shape), self.blocks, self.axis)
        return self.set.dim(stacked, dtype)


def matricized(constraint: Constraint, rows: Axes) -> Constraint:
    """Return the tensors that are in a set as matrices.

    Example:
        >>> matricized(Real(), 0)
        Real()
    """
    if isinstance(constraint, Real):
        return constraint
    return Matricized(constraint, rows)


def transposed(constraint: Constraint) -> Constraint:
    """Return the matrices whose transposes are in a set.

    Example:
        >>> transposed(Real())
        Real()
    """
    if isinstance(constraint, Real):
        return constraint
    return Transposed(constraint)


def per_block(constraint: Constraint, blocks: int, axis: int) -> Constraint:
    """Return the tensors whose blocks are in a set.

    Example:
        >>> per_block(Real(), 4, 0)
        Real()
    """
    if isinstance(constraint, Real):
        return constraint
    return PerBlock(constraint, blocks, axis)


def multiples(constraint: Constraint) -> Constraint | None:
    """Return all multiples of a set's tensors; ``None`` where signs lead out of it.

    Example:
        >>> multiples(Stiefel())
        ScaledOrthogonal()
    """
    if isinstance(constraint, Matricized):
        inside = multiples(constraint.set)
        return None if inside is None else Matricized(inside, constraint.rows)
    if isinstance(constraint, Transposed):
        inside = multiples(constraint.set)
        return None if inside is None else Transposed(inside)
    if isinstance(constraint, PerBlock):  # one scale for all blocks
        return constraint if isinstance(constraint.set, _LINEAR) else None
    if isinstance(constraint, _ORTHONORMAL):
        return ScaledOrthogonal()
    return constraint if isinstance(constraint, _LINEAR) else None
