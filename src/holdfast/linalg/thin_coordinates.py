"""The coordinates of orthonormal columns under the thin Cayley transform."""

from __future__ import annotations

import torch
from torch import Tensor

from .cayley import cayley_signs
from .products import add_product
from .thin import require_columns


def thin_cayley_inverse(
    Q: Tensor, signs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return Omega, K and signs D with ``thin_cayley(Omega, K) * D == Q``.

    They exist for every Q with orthonormal columns; see Note [Signs] of the Cayley
    transform. For the blocks U and V of Q D,

    .. math::
        X = (U + I)/2, \qquad K = V X^{-1}, \qquad
        \Omega = 2 (I + K^H K/4 - X^{-1}).

    Shape:
        ``(*batch, n, k), (*batch, k)
        -> (*batch, k, k), (*batch, n - k, k), (*batch, k)``.

    Example:
        >>> import torch
        >>> Omega, K, signs = thin_cayley_inverse(torch.tensor([[0.0], [1.0]]))
        >>> K
        tensor([[2.]])
    """
    require_columns(Q, Q)
    k = Q.shape[-1]
    if signs is None:
        signs = cayley_signs(Q[..., :k, :])
    signed = Q * signs.unsqueeze(-2)
    return *_coordinates(signed[..., :k, :], signed[..., k:, :]), signs


def thin_cayley_lower_inverse(Q: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return X and signs D with ``thin_cayley_lower(X) * D == Q``.

    ``X`` is zero above its diagonal.

    Shape: ``(*batch, n, k) -> (*batch, n, k), (*batch, k)``.

    Example:
        >>> import torch
        >>> thin_cayley_lower_inverse(torch.tensor([[-1.0], [0.0]]))
        (tensor([[0.],
                [0.]]), tensor([-1], dtype=torch.int8))
    """
    Omega, K, signs = thin_cayley_inverse(Q)
    half = Omega.diagonal(dim1=-2, dim2=-1) / 2  # it is added to its conjugate
    return torch.cat([Omega.tril() - torch.diag_embed(half), K], -2), signs


def thin_cayley_inverse_at(
    Q: Tensor, base: Tensor, signs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return Z and signs D with ``thin_cayley_at(Z, base) * D == Q``.

    Of all such Z it is the tangent one: :math:`B^H Z` is skew.

    Shape: ``(*batch, n, k), (*batch, n, k) -> (*batch, n, k), (*batch, k)``.

    Example:
        >>> import torch
        >>> Q, base = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]])
        >>> thin_cayley_inverse_at(Q, base)[0]
        tensor([[0.],
                [2.]])
    """
    require_columns(Q, Q)
    upper = base.mH @ Q
    if signs is None:
        signs = cayley_signs(upper)
    lower = add_product(Q, base.expand_as(Q), upper, alpha=-1) * signs.unsqueeze(-2)
    Omega, K = _coordinates(upper * signs.unsqueeze(-2), lower)
    return add_product(K, base.expand_as(Q), Omega, alpha=0.5), signs


def _coordinates(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Return Omega and K for the blocks of the value."""
    identity = torch.eye(U.shape[-1], dtype=U.dtype, device=U.device)
    inverse = 2 * torch.linalg.inv_ex(U + identity)[0]  # of X
    K = V @ inverse
    # The Hermitian part of the formula is zero but for rounding.
    return inverse.mH - inverse, K
