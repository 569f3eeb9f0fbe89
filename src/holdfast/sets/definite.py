"""Definite matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.precision import double
from ..linalg.structure import require_square
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, is_square, relative, sizes


class SymmetricPositiveDefinite(Constraint):
    r"""Symmetric matrices with positive eigenvalues; Hermitian where complex.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : W = W^T,\ \lambda_{\min}(W) > 0\}

    The residual is the larger of the skew part, relative to the norm, and of how far
    the smallest eigenvalue lies below zero, relative to the largest one in modulus. No
    finite precision tells an eigenvalue of zero from a tiny positive one, so the
    semidefinite matrices other than zero count as inside.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> definite = sets.SymmetricPositiveDefinite()
        >>> definite.contains(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        True
        >>> definite.residual(torch.diag(torch.tensor([2.0, -1.0])))
        tensor(0.5000, dtype=torch.float64)
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the matrix is from symmetric, or from nonnegative spectrum."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        values = torch.linalg.eigvalsh((W + W.mH) / 2)
        largest = values.abs().amax(-1)
        below = torch.where(largest > 0, (-values[..., 0]).relu() / largest, 1)
        return torch.maximum(relative((W - W.mH) / 2, W), below)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest one whose condition is at most that of rounding."""
        require_square(weight)
        W = double(weight)
        values, V = torch.linalg.eigh((W + W.mH) / 2)
        largest = values[..., -1:]
        floor = tolerance(weight) * torch.where(largest > 0, largest, 1)
        P = (V * torch.maximum(values, floor).unsqueeze(-2)) @ V.mH
        return ((P + P.mH) / 2).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the exponential of a symmetric normal matrix, of condition ~ 20."""
        require_square(normal)
        G = double(normal)
        values, V = torch.linalg.eigh((G + G.mH) / 2 / max(1, G.shape[-1]) ** 0.5)
        P = (V * values.exp().unsqueeze(-2)) @ V.mH
        return ((P + P.mH) / 2).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n + 1)/2`, or :math:`n^2` for Hermitian matrices."""
        count, n, _ = sizes(shape)
        return count * (n * n if dtype.is_complex else n * (n + 1) // 2)
