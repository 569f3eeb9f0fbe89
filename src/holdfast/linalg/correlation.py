r"""Triangular factors with rows of norm 1: those of correlation matrices.

Note [Partial correlations]
    Row i of a factor L is a unit vector with i entries and a positive last one. Cut off
    from the left, :math:`l_{ij} = z_{ij} (1 - \sum_{m < j} |l_{im}|^2)^{1/2}`, where
    :math:`z_{ij}` is the partial correlation of i and j given those before j. With
    :math:`z = x / \sqrt{1 + |x|^2}` the root is a product of factors
    :math:`(1 + |x|^2)^{-1/2}`, and the way back is

    .. math::
        x_{ij} = l_{ij} \Big/ \Big(\sum_{m > j} |l_{im}|^2\Big)^{1/2}.

    No difference occurs in either direction, so that no digits are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .structure import require_square


def partial_correlation_factor(X: Tensor) -> Tensor:
    """Return the factor of a correlation matrix, by partial correlations.

    What is below the diagonal of X counts. See Note [Partial correlations].

    Shape: ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> partial_correlation_factor(torch.tensor([[0.0, 0.0], [0.75, 0.0]]))
        tensor([[1.0000, 0.0000],
                [0.6000, 0.8000]])
    """
    require_square(X)
    below = X.tril(-1)
    lengths = -torch.log1p(_squares(below)).cumsum(-1) / 2
    return _with_unit_diagonal(below) * lengths.exp()


def partial_correlations(L: Tensor) -> Tensor:
    """Return the X that `partial_correlation_factor` maps to a factor.

    Example:
        >>> import torch
        >>> partial_correlations(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
        tensor([[0.0000, 0.0000],
                [0.7500, 0.0000]])
    """
    require_square(L)
    squares = _squares(L)
    tails = squares.flip(-1).cumsum(-1).flip(-1)
    after = torch.cat([tails.split([1, L.shape[-1] - 1], -1)[1], squares[..., :1]], -1)
    return L.tril(-1) / torch.where(after > 0, after, 1).sqrt()


def normalized_factor(X: Tensor) -> Tensor:
    """Return a unit lower triangular matrix with its rows divided by their norms.

    What is below the diagonal of X counts.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> normalized_factor(torch.tensor([[0.0, 0.0], [0.75, 0.0]]))
        tensor([[1.0000, 0.0000],
                [0.6000, 0.8000]])
    """
    require_square(X)
    below = X.tril(-1)
    squares = 1 + _squares(below).sum(-1, keepdim=True)
    return _with_unit_diagonal(below) / squares.sqrt()


def _with_unit_diagonal(below: Tensor) -> Tensor:
    n = below.shape[-1]
    return below + torch.eye(n, dtype=below.dtype, device=below.device)


def _squares(X: Tensor) -> Tensor:
    return (X * X.conj()).real if X.is_complex() else X * X
