"""Correlation matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.precision import double
from ..linalg.structure import require_square
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, is_square, sizes
from .definite import SymmetricPositiveDefinite


class CorrelationMatrices(Constraint):
    r"""Positive definite matrices with ones on the diagonal; Hermitian where complex.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : W = W^T,\ \lambda_{\min}(W) > 0,\ w_{ii} = 1\}

    The residual is the larger of that of `SymmetricPositiveDefinite` and of how far an
    entry of the diagonal is from one.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> W = torch.tensor([[4.0, 1.0], [1.0, 1.0]])
        >>> sets.CorrelationMatrices().project(W)
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])

    References:
        Higham, Strabić and Šego, Restoring Definiteness via Shrinking, 2016,
        https://doi.org/10.1137/140996112
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far from definite the matrix is, or its diagonal from one."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        diagonal = double(weight).diagonal(dim1=-2, dim2=-1)
        off = (diagonal - 1).abs().amax(-1)
        return torch.maximum(SymmetricPositiveDefinite().residual(weight), off)

    def project(self, weight: Tensor) -> Tensor:
        """Return the correlations of a covariance, shrunk towards I until definite.

        Not the nearest one, which takes an iteration. Where the diagonal is not
        positive it is replaced by ones. What is inside stays.
        """
        require_square(weight)
        W = double(weight)
        diagonal = W.diagonal(dim1=-2, dim2=-1).real
        scale = torch.where((diagonal > 0).all(-1, keepdim=True), diagonal, 1).rsqrt()
        C = (W + W.mH) / 2 * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        identity = torch.eye(W.shape[-1], dtype=torch.bool, device=W.device)
        C = torch.where(identity, 1, C)
        smallest, largest = torch.linalg.eigvalsh(C)[..., [0, -1]].unbind(-1)
        floor = tolerance(weight) * largest
        kept = torch.where(smallest < floor, (1 - floor) / (1 - smallest), 1)
        kept = kept.clamp(0, 1)[..., None, None]
        return torch.where(identity, 1, kept * C).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the correlation matrix of a random definite one."""
        return self.project(SymmetricPositiveDefinite().from_normal(normal))

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n(n - 1)/2`, twice that for Hermitian matrices."""
        count, n, _ = sizes(shape)
        return count * (n * (n - 1) if dtype.is_complex else n * (n - 1) // 2)
