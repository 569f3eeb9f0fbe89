"""The groups O(n), SO(n), U(n) and SU(n): square matrices of one kind of number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.orthonormal import orthogonality, positive_qr
from ..linalg.polar_factor import nearest_rotation, polar, unit_determinant
from ..linalg.precision import double
from .constraint import Constraint, Shape, filled, is_square, sizes


class Orthogonal(Constraint):
    r"""Orthogonal matrices, of determinant 1 and -1; square and real.

    .. math::
        O(n) = \{Q \in \mathbb{R}^{n \times n} : Q^T Q = I\}

    `Stiefel` takes matrices of any shape, and complex ones. The residual is
    :math:`\|Q^T Q - I\|_F / \sqrt{n}`.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> orthogonal = sets.Orthogonal()
        >>> orthogonal.contains(-torch.eye(3)), orthogonal.contains(torch.eye(3, 2))
        (True, False)

    References:
        Edelman, Arias and Smith, The Geometry of Algorithms with Orthogonality
        Constraints, 1998, https://arxiv.org/abs/physics/9806030
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the columns are from orthonormal ones."""
        return _orthogonality(weight, is_complex=False)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such matrix, the orthogonal factor of polar form."""
        _require(weight.shape, weight.dtype, is_complex=False)
        return polar(double(weight)).to(weight.dtype).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a uniformly distributed one."""
        _require(normal.shape, normal.dtype, is_complex=False)
        return positive_qr(double(normal)).to(normal.dtype).contiguous()

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n - 1)/2`."""
        _require(shape, dtype, is_complex=False)
        count, n, _ = sizes(shape)
        return count * (n * (n - 1) // 2)


class SpecialOrthogonal(Constraint):
    r"""Rotations: orthogonal matrices of determinant 1.

    .. math::
        SO(n) = \{Q \in \mathbb{R}^{n \times n} : Q^T Q = I,\ \det Q = 1\}

    The residual is :math:`\|Q^T Q - I\|_F / \sqrt{n}`, and at least 2 where the
    determinant is negative.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SpecialOrthogonal().contains(torch.diag(torch.tensor([1.0, -1.0])))
        False
        >>> sets.SpecialOrthogonal().project(torch.diag(torch.tensor([2.0, -1.0])))
        tensor([[1., 0.],
                [0., 1.]])

    References:
        Kabsch, A Solution for the Best Rotation to Relate Two Sets of Vectors, 1976,
        https://doi.org/10.1107/S0567739476001873
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the columns are from orthonormal ones, or the determinant."""
        return _special(weight, is_complex=False)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest rotation."""
        _require(weight.shape, weight.dtype, is_complex=False)
        return nearest_rotation(double(weight)).to(weight.dtype).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a uniformly distributed one: one of O(n), with a column turned."""
        _require(normal.shape, normal.dtype, is_complex=False)
        Q = positive_qr(double(normal))
        first = Q[..., :1] * torch.linalg.det(Q).sign()[..., None, None]
        return torch.cat([first, Q[..., 1:]], -1).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n - 1)/2`."""
        _require(shape, dtype, is_complex=False)
        count, n, _ = sizes(shape)
        return count * (n * (n - 1) // 2)


class Unitary(Constraint):
    r"""Unitary matrices, square and complex.

    .. math::
        U(n) = \{Q \in \mathbb{C}^{n \times n} : Q^H Q = I\}

    The residual is :math:`\|Q^H Q - I\|_F / \sqrt{n}`, and infinite for a real tensor.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Unitary().contains(1j * torch.eye(2)), sets.Unitary().dim((2, 2))
        (True, 4)
        >>> sets.Unitary().contains(torch.eye(2))
        False

    References:
        Arjovsky, Shah and Bengio, Unitary Evolution Recurrent Neural Networks, 2016,
        https://arxiv.org/abs/1511.06464
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the columns are from orthonormal ones."""
        return _orthogonality(weight, is_complex=True)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such matrix, the unitary factor of polar form."""
        _require(weight.shape, weight.dtype, is_complex=True)
        return polar(double(weight)).to(weight.dtype).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a uniformly distributed one."""
        _require(normal.shape, normal.dtype, is_complex=True)
        return positive_qr(double(normal)).to(normal.dtype).contiguous()

    def dim(self, shape: Shape, dtype: torch.dtype = torch.complex64) -> int:
        """Return :math:`n^2`."""
        _require(shape, dtype, is_complex=True)
        count, n, _ = sizes(shape)
        return count * n * n


class SpecialUnitary(Constraint):
    r"""Unitary matrices of determinant 1.

    .. math::
        SU(n) = \{Q \in \mathbb{C}^{n \times n} : Q^H Q = I,\ \det Q = 1\}

    The residual is the larger one of :math:`\|Q^H Q - I\|_F / \sqrt{n}` and the
    distance of the determinant's phase from 1. It is infinite for a real tensor.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> special = sets.SpecialUnitary()
        >>> special.contains(torch.diag(torch.tensor([1j, -1j])))
        True
        >>> special.contains(1j * torch.eye(2))
        False

    References:
        Hall, Lie Groups, Lie Algebras, and Representations, 2015, chapter 1,
        https://doi.org/10.1007/978-3-319-13467-3
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far columns and determinant are off, whichever is more."""
        return _special(weight, is_complex=True)

    def project(self, weight: Tensor) -> Tensor:
        r"""Return a cheap one: the unitary factor Q of polar form, over its root.

        That is :math:`Q\,(\det Q)^{-1/n}`, which is near, but not always nearest.
        """
        _require(weight.shape, weight.dtype, is_complex=True)
        Q = unit_determinant(polar(double(weight)))
        return Q.to(weight.dtype).contiguous()

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a uniformly distributed one: one of U(n), over its root."""
        _require(normal.shape, normal.dtype, is_complex=True)
        Q = unit_determinant(positive_qr(double(normal)))
        return Q.to(normal.dtype).contiguous()

    def dim(self, shape: Shape, dtype: torch.dtype = torch.complex64) -> int:
        """Return :math:`n^2 - 1`."""
        _require(shape, dtype, is_complex=True)
        count, n, _ = sizes(shape)
        return count * (n * n - 1)


def _orthogonality(weight: Tensor, *, is_complex: bool) -> Tensor:
    if not is_square(weight.shape) or weight.is_complex() != is_complex:
        return filled(weight, math.inf)
    return orthogonality(double(weight))


def _special(weight: Tensor, *, is_complex: bool) -> Tensor:
    """Return the residual that takes the determinant into account too."""
    off = _orthogonality(weight, is_complex=is_complex)
    if not is_square(weight.shape) or weight.is_complex() != is_complex:
        return off
    phase = torch.linalg.slogdet(double(weight)).sign
    return torch.maximum(off, (phase - 1).abs())


def _require(shape: Shape, dtype: torch.dtype, *, is_complex: bool) -> None:
    """Refuse what is not square, and numbers of the wrong kind."""
    kind = "complex" if is_complex else "real"
    if not is_square(shape) or dtype.is_complex != is_complex:
        raise InvalidTensorError(
            f"Expected a square matrix or a batch of them, of {kind} numbers. Got "
            f"shape {tuple(shape)} of {dtype}. `sets.Stiefel` takes matrices of any "
            "shape and kind."
        )
