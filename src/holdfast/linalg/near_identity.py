"""Inverses of what is near the identity, as a series of few terms."""

from __future__ import annotations

import torch
from torch import Tensor

from .products import add_product, add_to_diagonal
from .tracing import recorded

# Larger ones are inverted in less than three products.
_SERIES = 128


def near_identity(E: Tensor) -> Tensor | None:
    """Return the inverse of I + E, if a look says that a series of few terms is exact.

    It takes two products, or three, and is cut at the fourth power of E, or the sixth,
    which a norm of the square bounds.

    Example:
        >>> import torch
        >>> near_identity(torch.tensor([[0.0, 0.01], [-0.01, 0.0]]))
        tensor([[ 0.9999, -0.0100],
                [ 0.0100,  0.9999]])
    """
    if E.shape[-1] > _SERIES or E.device.type != "cpu" or recorded(E):
        return None
    eps = torch.finfo(E.dtype).eps / 2
    if largest_norm(E) > _short(E):
        return None
    E2 = E @ E
    size = largest_norm(E2)
    if not size**3 <= eps:
        return None
    if size**2 > eps:
        E2 = add_product(E2, E2, E2)
    M = add_to_diagonal(-E, 1)
    return add_product(M, M, E2)


def may_be_short(L: Tensor) -> bool:
    """Tell whether a series may do for the inverse of I - (L - L^H) / 2.

    Example:
        >>> import torch
        >>> may_be_short(torch.zeros(3, 3)), may_be_short(torch.ones(3, 3).tril())
        (True, False)
    """
    return L.shape[-1] <= _SERIES and largest_norm(L) <= 2**0.5 * _short(L)


def _short(E: Tensor) -> float:
    """Return the norm up to which that of the square may be small enough."""
    eps = torch.finfo(E.dtype).eps / 2
    return E.shape[-1] ** 0.25 * eps ** (1 / 6)


def largest_norm(X: Tensor) -> float:
    """Return the largest Frobenius norm in a batch.

    Example:
        >>> import torch
        >>> largest_norm(torch.eye(4).expand(3, 4, 4))
        2.0
    """
    return float(torch.linalg.vector_norm(X, dim=(-2, -1)).max()) if X.numel() else 0.0
