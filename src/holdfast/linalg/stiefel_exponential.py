r"""Orthonormal columns by the exponential, without a square matrix of that size.

Note [The small exponential]
    For the skew matrix A of :math:`\Omega` and K, see Note [Thin], and with
    :math:`\hat K = [0; K]`,

    .. math::
        A\, [E, \hat K / c] = [E, \hat K / c]\, N, \qquad
        N = \begin{pmatrix} \Omega & -K^H K / c \\ c I & 0 \end{pmatrix},

    so that the first k columns of :math:`\exp A` are :math:`[F; K G / c]` for the first
    k columns [F; G] of :math:`\exp N`, which has size 2k. Nothing is divided by K: it
    may have any rank, and all derivatives are those of smooth functions. The value does
    not depend on c, which balances the blocks and counts as a constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InvalidTensorError
from .cayley import cayley_signs
from .closed_form import Tensors, closed_form
from .exponential import (
    matrix_exponential,
    skew_exponential,
    skew_exponential_lower,
)
from .logarithm import skew_logarithm
from .orthonormal import complete
from .precision import double
from .products import add_product
from .structure import lower_skew, require_square
from .thin import require_columns

# The search for coordinates gives up after so many steps.
_STEPS = 200

# From so many rows for each column on, a general exponential of size 2k in double
# precision is cheaper than a skew one of size n, gradients included.
_THIN = 8


class _WideGram:
    """K^H K in double precision: a long K rounds more than its square.

    Its derivatives take K as it is, so that no wide copy of it is kept.
    """

    @staticmethod
    def forward(K: Tensor) -> tuple[Tensor]:
        wide = double(K)
        return (wide.mH @ wide,)

    @staticmethod
    def keep(inputs: tuple[Tensor], outputs: Any) -> Tensors:  # noqa: ANN401
        return inputs

    @staticmethod
    def vjp(kept: tuple[Tensor], needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        return (kept[0] @ (G + G.mH).to(kept[0].dtype),)

    @staticmethod
    def jvp(kept: tuple[Tensor], dK: Tensor) -> Tensors:
        half = double(kept[0]).mH @ double(dK)
        return (half + half.mH,)


_wide_gram = closed_form(_WideGram)


def thin_exponential(Omega: Tensor, K: Tensor) -> Tensor:
    r"""Return the first k columns of the exponential of [[Omega, -K^H], [K, 0]].

    They are orthonormal for a skew ``Omega``. It costs about 4nk² operations and an
    exponential of size 2k in double precision. See Note [The small exponential].

    Shape: ``(*batch, k, k), (*batch, n - k, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> half_turn = torch.tensor([[torch.pi], [0.0]])
        >>> thin_exponential(torch.zeros(1, 1), half_turn).round()
        tensor([[-1.],
                [-0.],
                [ 0.]])

    References:
        Edelman, Arias and Smith, The Geometry of Algorithms with Orthogonality
        Constraints, 1998, https://doi.org/10.1137/S0895479895290954
    """
    require_square(Omega)
    require_columns(K, Omega)
    F, G = _small_exponential(Omega, K)
    return torch.cat([F, K @ G], -2)


def thin_exponential_lower(X: Tensor) -> Tensor:
    r"""Return ``thin_exponential(lower_skew(X[:k]), X[k:])``, the cheaper way.

    That is the first columns of an exponential of size n, if n is less than 8k. What
    ``X`` has above its diagonal is not read.

    Shape: ``(*batch, n, k) -> (*batch, n, k)`` for n >= k.

    Example:
        >>> import torch
        >>> thin_exponential_lower(torch.tensor([[5.0], [torch.pi / 2]])).round().abs()
        tensor([[0.],
                [1.]])
    """
    require_columns(X, X)
    n, k = X.shape[-2:]
    if n == k:
        return skew_exponential_lower(X)
    if n < _THIN * k:
        return skew_exponential(lower_skew(pad(X, (0, n - k))))[..., :k]
    upper, lower = X.split([k, n - k], -2)
    return thin_exponential(lower_skew(upper), lower)


def thin_exponential_at(Z: Tensor, base: Tensor) -> Tensor:
    r"""Return the point of coordinates ``Z`` around one with orthonormal columns.

    The coordinates are those of `thin_cayley_at`.

    Shape: ``(*batch, n, k), (*batch, n, k) -> (*batch, n, k)``; the base may lack
        leading dimensions.

    Example:
        >>> import torch
        >>> base = torch.eye(3, 1)
        >>> torch.equal(thin_exponential_at(torch.zeros(3, 1), base), base)
        True
    """
    require_columns(Z, Z)
    base = base.expand_as(Z)
    C = base.conj_physical().mT @ Z
    K = add_product(Z, base, C, alpha=-1)
    F, G = _small_exponential(C - C.conj_physical().mT, K)
    return add_product(K @ G, base, F)


def _small_exponential(Omega: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Return F and G/c. See Note [The small exponential]."""
    k = Omega.shape[-1]
    wide, gram = double(Omega), _wide_gram(K)
    c = torch.linalg.matrix_norm(gram.detach(), keepdim=True).sqrt().clamp_min(1e-3)
    identity = torch.eye(k, dtype=wide.dtype, device=wide.device)
    upper = torch.cat([wide, -gram / c], -1)
    lower = torch.cat([c * identity, torch.zeros_like(wide)], -1)
    N = torch.cat([upper, lower], -2)
    F, G = matrix_exponential(N)[..., :k].split([k, k], -2)
    return F.to(K.dtype), (G / c).to(K.dtype)


def thin_logarithm(
    Q: Tensor, signs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return Omega, K and signs D with ``thin_exponential(Omega, K) * D == Q``.

    For a square Q this is a logarithm. Otherwise the skew matrix whose exponential has
    the right first columns, and no block in its lower right corner, is searched for
    among the logarithms of the ways to complete Q, starting from signs which keep it
    near. Meant for right inverses: it is slow, and knows no derivative.

    Raises:
        InvalidTensorError: nothing was found.

    Shape:
        ``(*batch, n, k), (*batch, k)
        -> (*batch, k, k), (*batch, n - k, k), (*batch, k)``.

    Example:
        >>> import torch
        >>> Omega, K, signs = thin_logarithm(torch.tensor([[0.0], [1.0]]))
        >>> K
        tensor([[1.5708]])

    References:
        Zimmermann and Hüper, Computing the Riemannian Logarithm on the Stiefel
        Manifold, 2022, https://doi.org/10.1137/21M1425426
    """
    require_columns(Q, Q)
    k = Q.shape[-1]
    if signs is None:
        signs = cayley_signs(double(Q[..., :k, :]))
    signed = double(Q) * signs.unsqueeze(-2)
    Y, R = torch.linalg.qr(signed[..., k:, :])  # (n - k) x m, m x k
    V = _rotation_with(torch.cat([signed[..., :k, :], R], -2))
    A = skew_logarithm(V)
    for _ in range(_STEPS):
        below, corner = A[..., k:, :k], A[..., k:, k:]
        size = torch.linalg.matrix_norm(corner)
        if corner.numel() == 0 or bool(size.amax() < 1e-13 * V.shape[-1]):
            break
        V = torch.cat([V[..., :k], V[..., k:] @ _turn(below, corner)], -1)
        A = skew_logarithm(V)
    else:
        raise InvalidTensorError("Found no coordinates for the exponential.")
    Omega, K = A[..., :k, :k], Y @ A[..., k:, :k]
    return Omega.to(Q.dtype), K.to(Q.dtype), signs


def _rotation_with(columns: Tensor) -> Tensor:
    """Complete orthonormal columns to a rotation; its last block is almost positive."""
    k = columns.shape[-1]
    rest = complete(columns)[..., k:]
    if rest.shape[-1] == 0:
        return columns
    U, _, Wh = torch.linalg.svd(rest[..., k:, :])
    rest = rest @ Wh.mH
    full = torch.cat([columns, rest @ U.mH], -1)
    if not columns.is_complex():  # the smallest singular value pays for the determinant
        rest = torch.cat([rest[..., :-1], rest[..., -1:] * _determinant(full)], -1)
    return torch.cat([columns, rest @ U.mH], -1)


def _determinant(V: Tensor) -> Tensor:
    return torch.linalg.det(V).sgn()[..., None, None]


def _turn(below: Tensor, corner: Tensor) -> Tensor:
    """Return the rotation of the added columns that should make the corner zero.

    It would if the series of Baker, Campbell and Hausdorff ended at third order.
    """
    values, U = torch.linalg.eigh(below @ below.mH / 12)
    values = (values - 0.5).clamp_max(-0.1)
    inside = U.mH @ corner @ U / (values.unsqueeze(-1) + values.unsqueeze(-2))
    return skew_exponential(U @ inside @ U.mH)
