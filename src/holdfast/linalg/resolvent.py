"""The small inverse in Note [Thin] of `linalg/thin.py`, and its derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from .inverse import invert_accretive
from .precision import double
from .products import add_product, add_to_diagonal, scaled_product
from .tracing import recorded

# From a squared half length of K on, S is made in double precision; from another on
# the identity in S is lost there too.
_LONG, _LOST = 4.0, 1e15


def resolvent(Omega: Tensor, K: Tensor) -> Tensor:
    """Return the inverse X of S = I - Omega/2 + K^H K/4.

    A long K has its square in S, and rounds the columns that it hardly has a part in.
    So S is made and inverted in double precision then, and on CUDA, where nobody may
    look how long it is, always.

    Example:
        >>> import torch
        >>> resolvent(torch.zeros(1, 1), torch.full((1, 1), 2.0))
        tensor([[0.5000]])
    """
    S = None if K.is_cuda else add_product(Omega, K.mH, K, alpha=0.25, beta=-0.5)
    if S is None or is_long(S):
        wide = double(K)
        S = add_product(double(Omega), wide.mH, wide, alpha=0.25, beta=-0.5)
    return invert_accretive(add_to_diagonal(S, 1)).to(K.dtype)


def is_long(S: Tensor) -> bool:
    """Tell whether single precision rounds I + S too much, where a look is cheap.

    Example:
        >>> import torch
        >>> is_long(torch.eye(2)), is_long(5 * torch.eye(2))
        (False, True)
    """
    if S.dtype in (torch.float64, torch.complex128):
        return False
    if S.device.type != "cpu" or recorded(S) or S.numel() == 0:
        return False
    return _LONG < float(S.real.max()) < _LOST  # on the diagonal, or Omega is long


def resolvent_gradient(
    X: Tensor, K: Tensor, upper: Tensor, lower: Tensor, gX: Tensor | None
) -> Tensor:
    """Return the gradient of Omega, P/2 in Note [Thin], for the parts of G Y^H.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> resolvent_gradient(one, one, one, 2 * one, None)
        tensor([[2.]])
    """
    inner = add_product(upper, K.mH, lower, alpha=0.5)
    if gX is not None:
        inner = inner + gX @ X.mH / 2
    return X.mH @ inner


def resolvent_tangent(
    X: Tensor, K: Tensor, dOmega: Tensor | None, dK: Tensor | None
) -> Tensor:
    """Return the tangent of X.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> resolvent_tangent(one, one, None, one)
        tensor([[-0.5000]])
    """
    if dK is None:
        dS = torch.zeros_like(X)
    else:
        half = K.mH @ dK
        dS = (half + half.mH) / 4
    if dOmega is not None:
        dS = dS - dOmega / 2
    return scaled_product(X @ dS, X, -1)
