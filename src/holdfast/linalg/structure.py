"""Linear structure: the symmetric and skew matrices, from a triangle."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidTensorError


def require_square(X: Tensor) -> None:
    """Raise unless ``X`` is a square matrix or a batch of them."""
    if X.ndim < 2 or X.shape[-1] != X.shape[-2]:
        raise InvalidTensorError(
            f"Expected a square matrix or a batch of them. Got shape {tuple(X.shape)}."
        )


def symmetric(X: Tensor) -> Tensor:
    """Reflect the upper triangle: symmetric, or Hermitian where ``X`` is complex.

    Example:
        >>> import torch
        >>> symmetric(torch.tensor([[1.0, 2.0], [9.0, 3.0]]))
        tensor([[1., 2.],
                [2., 3.]])
    """
    require_square(X)
    above = X.triu(1)
    diagonal = X.diagonal(dim1=-2, dim2=-1).real
    return above + above.mH + torch.diag_embed(diagonal)


def skew(X: Tensor) -> Tensor:
    """Reflect the upper triangle with a minus: skew, or skew-Hermitian where complex.

    Example:
        >>> import torch
        >>> skew(torch.tensor([[1.0, 2.0], [9.0, 3.0]]))
        tensor([[ 0.,  2.],
                [-2.,  0.]])
    """
    require_square(X)
    above = X.triu(1)
    if not X.is_complex():
        return above - above.mH
    diagonal = X.diagonal(dim1=-2, dim2=-1).imag
    return above - above.mH + torch.diag_embed(1j * diagonal)
