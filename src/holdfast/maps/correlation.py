"""Correlation matrices by triangular factors with rows of norm 1."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.correlation import (
    normalized_factor,
    partial_correlation_factor,
    partial_correlations,
)
from ..linalg.gram_matrix import gram, semidefinite_factor, triangular_factor
from ..linalg.precision import double, full_precision
from ..linalg.structure import require_square
from ..sets.correlation import CorrelationMatrices
from ..sets.linear import SquareMatrices


class PartialCorrelations(Parametrization):
    r"""Canonical partial correlations, of each pair given those before.

    .. math::
        X \mapsto L L^H, \quad
        l_{ij} = z_{ij} \Big(1 - \sum_{m < j} |l_{im}|^2\Big)^{1/2}, \quad
        z_{ij} = \frac{x_{ij}}{\sqrt{1 + |x_{ij}|^2}} \quad (j < i)

    A bijection from what is below the diagonal to the correlation matrices, real or
    Hermitian; the rest of X is not used. The right inverse is exact. Singular matrices
    are at infinity, and one that is assigned is reached up to rounding. The partial
    correlations z take all values between -1 and 1 independently of each other, so that
    a prior on them is one on W. Costs one product and four passes over the matrix.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.PartialCorrelations()(torch.tensor([[0.0, 0.0], [0.75, 0.0]]))
        tensor([[1.0000, 0.6000],
                [0.6000, 1.0000]])

    References:
        Lewandowski, Kurowicka and Joe, Generating Random Correlation Matrices Based on
        Vines and Extended Onion Method, 2009, https://doi.org/10.1016/j.jmva.2009.04.008
    """

    domain = SquareMatrices()
    codomain = CorrelationMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square."""
        require_square(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the correlation matrix."""
        return gram(partial_correlation_factor(X))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates of the partial correlations."""
        return partial_correlations(_factor(weight)).to(weight.dtype)


class NormalizedCholesky(Parametrization):
    r"""A unit triangular matrix with rows of norm 1, times its transpose.

    .. math::
        X \mapsto L L^H, \quad
        L_i = (x_{i1}, \ldots, x_{i,i-1}, 1, 0, \ldots) /
        \sqrt{1 + \textstyle\sum_{j < i} |x_{ij}|^2}

    A bijection from what is below the diagonal to the correlation matrices, real or
    Hermitian; the rest of X is not used. The right inverse is exact. Singular matrices
    are at infinity, and one that is assigned is reached up to rounding. Costs one
    product and three passes over the matrix; `PartialCorrelations` has coordinates with
    a meaning of their own.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.NormalizedCholesky()(torch.tensor([[0.0, 0.0], [0.75, 0.0]]))
        tensor([[1.0000, 0.6000],
                [0.6000, 1.0000]])

    References:
        Pinheiro and Bates, Unconstrained Parametrizations for Variance-Covariance
        Matrices, 1996, https://doi.org/10.1007/BF00140873
    """

    domain = SquareMatrices()
    codomain = CorrelationMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square."""
        require_square(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the correlation matrix."""
        return gram(normalized_factor(X))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the factor's rows over their last entries."""
        L = _factor(weight)
        last = L.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        return (L / last).tril(-1).to(weight.dtype)


def _factor(weight: Tensor) -> Tensor:
    """Return the triangular factor, its diagonal not below rounding."""
    require_square(weight)
    n, eps = weight.shape[-1], torch.finfo(weight.dtype).eps
    return triangular_factor(semidefinite_factor(double(weight), n, eps))
