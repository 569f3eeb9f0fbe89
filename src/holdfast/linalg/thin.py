r"""Orthonormal columns by the Cayley transform, without a square matrix of that size.

Note [Thin]
    With :math:`\Omega` skew of size k and K of size (n - k) x k, let

    .. math::
        A = \begin{pmatrix} \Omega & -K^H \\ K & 0 \end{pmatrix}, \qquad
        S = I - \Omega/2 + K^H K/4, \qquad X = S^{-1}.

    S is the Schur complement of the lower block in I - A/2, so the first k columns of
    the Cayley transform of A are :math:`[2X - I;\ K X]`: one inverse of size k, and
    thin products. For a cotangent [G; H] of them, and
    :math:`P = X^H (2G + K^H H) X^H`, the gradients are P/2 for :math:`\Omega`, and
    :math:`H X^H - K (P + P^H)/4` for K.

    At a base point B, of orthonormal columns, the coordinates are an n x k matrix Z.
    With :math:`C = B^H Z` they stand for :math:`\Omega = C - C^H` and
    :math:`K = Z - B C`, which is orthogonal to B, and the value is
    :math:`B (2X - I) + K X`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .closed_form import Tensors, closed_form
from .inverse import invert_accretive
from .precision import double
from .products import (
    accumulate_product,
    add_product,
    add_to_diagonal,
    replace_rows,
    scaled_product,
    stacked_product,
)
from .structure import difference, require_square
from .tracing import recorded

# From a squared half length of K on, S is made in double precision.
_LONGEST = 4.0


def _resolvent(Omega: Tensor, K: Tensor) -> Tensor:
    """Return the inverse of I - Omega/2 + K^H K/4.

    A long K has its square in S, and rounds the columns that it hardly has a part in.
    """
    S = add_product(Omega, K.mH, K, alpha=0.25, beta=-0.5)
    if _is_long(S):
        wide = double(K)
        S = add_product(double(Omega), wide.mH, wide, alpha=0.25, beta=-0.5)
    return invert_accretive(add_to_diagonal(S, 1)).to(K.dtype)


def _is_long(S: Tensor) -> bool:
    """Tell whether single precision rounds S too much, where a look is cheap."""
    if S.dtype in (torch.float64, torch.complex128):
        return False
    if S.device.type != "cpu" or recorded(S) or S.numel() == 0:
        return False
    return float(S.real.max()) > _LONGEST  # on the diagonal, or Omega is long


def _minus_identity(X: Tensor) -> Tensor:
    """Return 2X - I."""
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return torch.sub(2 * X, identity)


def _resolvent_gradient(
    X: Tensor, K: Tensor, upper: Tensor, lower: Tensor, gX: Tensor | None
) -> Tensor:
    """Return the gradient of Omega, P/2 in Note [Thin], for a cotangent's parts."""
    total = add_product(upper, K.mH, lower, beta=2)
    if gX is not None:
        total = total + gX
    return scaled_product(X.mH @ total, X.mH, 0.5)


def _resolvent_tangent(
    X: Tensor, K: Tensor, dOmega: Tensor | None, dK: Tensor | None
) -> Tensor:
    if dK is None:
        dS = torch.zeros_like(X)
    else:
        half = K.mH @ dK
        dS = (half + half.mH) / 4
    if dOmega is not None:
        dS = dS - dOmega / 2
    return scaled_product(X @ dS, X, -1)


class _Thin:
    @staticmethod
    def forward(Omega: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        X = _resolvent(Omega, K)
        return stacked_product(K, X), X

    @staticmethod
    def keep(inputs: tuple[Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> Tensors:
        return outputs[1], inputs[1]

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor],
        needs: Any,  # noqa: ANN401
        G: Tensor,
        gX: Tensor | None,
    ) -> Tensors:
        X, K = kept
        upper, lower = G.split([X.shape[-1], K.shape[-2]], -2)
        half = _resolvent_gradient(X, K, upper, lower, gX)
        gK = scaled_product(K, half + half.mH, -0.5)
        return half, accumulate_product(gK, lower, X.mH)

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor], dOmega: Tensor | None, dK: Tensor | None
    ) -> Tensors:
        X, K = kept
        dX = _resolvent_tangent(X, K, dOmega, dK)
        below = K @ dX if dK is None else add_product(dK @ X, K, dX)
        return torch.cat([2 * dX, below], -2), dX


class _ThinLower:
    @staticmethod
    def forward(X: Tensor) -> tuple[Tensor, Tensor]:
        k = X.shape[-1]
        K = X[..., k:, :]
        R = _resolvent(difference(X[..., :k, :].tril()), K)
        return stacked_product(K, R), R

    @staticmethod
    def keep(inputs: tuple[Tensor], outputs: tuple[Tensor, Tensor]) -> Tensors:
        return *inputs, outputs[1]

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor],
        needs: Any,  # noqa: ANN401
        G: Tensor,
        gR: Tensor | None,
    ) -> Tensors:
        X, R = kept
        n, k = X.shape[-2:]
        K = X.split([k, n - k], -2)[1]
        upper, lower = G.split([k, n - k], -2)
        half = _resolvent_gradient(R, K, upper, lower, gR)
        # Its first rows are of no use, but save a copy of the others.
        gX = scaled_product(X, half + half.mH, -0.5)
        gX = accumulate_product(gX, G, R.mH)
        return (replace_rows(gX, difference(half).tril()),)

    @staticmethod
    def jvp(kept: tuple[Tensor, Tensor], dX: Tensor) -> Tensors:
        X, R = kept
        n, k = X.shape[-2:]
        K = X.split([k, n - k], -2)[1]
        upper, dK = dX.split([k, n - k], -2)
        return _Thin.jvp((R, K), difference(upper.tril()), dK)


class _ThinAt:
    @staticmethod
    def forward(Z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        C = base.mH @ Z
        K = add_product(Z, base, C, alpha=-1)
        X = _resolvent(C - C.mH, K)
        Q = accumulate_product(K @ X, base, _minus_identity(X))
        return Q, X, K

    @staticmethod
    def keep(inputs: tuple[Tensor, Tensor], outputs: Any) -> Tensors:  # noqa: ANN401
        return *inputs, *outputs[1:]

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor, Tensor, Tensor],
        needs: tuple[bool, bool],
        G: Tensor,
        gX: Tensor | None,
        gK: Tensor | None,
    ) -> Tensors:
        Z, base, X, K = kept
        inside = base.mH @ G
        half = _resolvent_gradient(X, K, inside, G, gX)
        through = scaled_product(K, half + half.mH, -0.5)
        through = accumulate_product(through, G, X.mH)
        gC = half - half.mH
        if gK is None and not needs[1]:  # K is orthogonal to a base that stays
            gC = add_product(gC, inside, X.mH, alpha=-1)
            return accumulate_product(through, base, gC), None
        if gK is not None:
            through = through + gK
        gC = add_product(gC, base.mH, through, alpha=-1)
        gbase = None
        if needs[1]:
            C = base.mH @ Z
            gbase = add_product(Z @ gC.mH, through, C.mH, alpha=-1)
            gbase = add_product(gbase, G, _minus_identity(X).mH)
        return add_product(through, base, gC), gbase

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor, Tensor, Tensor],
        dZ: Tensor | None,
        dbase: Tensor | None,
    ) -> Tensors:
        Z, base, X, K = kept
        dC = torch.zeros_like(X) if dZ is None else base.mH @ dZ
        if dbase is not None:
            dC = dC + dbase.mH @ Z
        dK = scaled_product(base, dC, -1)
        if dZ is not None:
            dK = dK + dZ
        if dbase is not None:
            dK = dK - dbase @ (base.mH @ Z)
        dX = _resolvent_tangent(X, K, dC - dC.mH, dK)
        dQ = 2 * base @ dX + dK @ X + K @ dX
        if dbase is not None:
            dQ = dQ + dbase @ _minus_identity(X)
        return dQ, dX, dK


_thin, _thin_at = closed_form(_Thin), closed_form(_ThinAt)
_thin_lower = closed_form(_ThinLower)


def thin_cayley(Omega: Tensor, K: Tensor) -> Tensor:
    r"""Return the first k columns of the Cayley transform of [[Omega, -K^H], [K, 0]].

    They are orthonormal for a skew ``Omega``. No n x n matrix is made: it costs about
    4nk² operations and an inverse of size k, and its gradient 6nk². See Note [Thin].

    Shape: ``(*batch, k, k), (*batch, n - k, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> thin_cayley(torch.zeros(1, 1), torch.tensor([[2.0], [0.0]]))
        tensor([[0.],
                [1.],
                [0.]])
    """
    require_square(Omega)
    require_columns(K, Omega)
    return _thin(Omega, K)


def thin_cayley_lower(X: Tensor) -> Tensor:
    r"""Return ``thin_cayley(lower_skew(X[:k]), X[k:])``, in fewer passes.

    What ``X`` has above its diagonal is not read.

    Shape: ``(*batch, n, k) -> (*batch, n, k)`` for n >= k.

    Example:
        >>> import torch
        >>> thin_cayley_lower(torch.tensor([[5.0], [2.0], [0.0]]))
        tensor([[0.],
                [1.],
                [0.]])
    """
    require_columns(X, X)
    return _thin_lower(X)


def thin_cayley_at(Z: Tensor, base: Tensor) -> Tensor:
    r"""Return the point of coordinates ``Z`` around one with orthonormal columns.

    Zero coordinates are the base point, and the derivative there is
    :math:`dZ \mapsto dZ - B\, dZ^H B`. Only Z counts up to the Hermitian part of
    :math:`B^H Z`. Costs 10nk² operations and an inverse of size k, and as much again
    for the gradient. See Note [Thin].

    Shape: ``(*batch, n, k), (*batch, n, k) -> (*batch, n, k)``; the base may lack
        leading dimensions.

    Example:
        >>> import torch
        >>> thin_cayley_at(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [0.0]]))
        tensor([[0.],
                [1.]])
    """
    require_columns(Z, Z)
    return _thin_at(Z, base.expand_as(Z))


def require_columns(X: Tensor, Omega: Tensor) -> None:
    """Raise unless ``X`` is tall, or the part below a matrix of as many columns."""
    if X.ndim < 2 or X.shape[-1] != Omega.shape[-1] or X.ndim != Omega.ndim:
        raise InvalidTensorError(
            f"Expected as many columns in shape {tuple(X.shape)} as in "
            f"shape {tuple(Omega.shape)}."
        )
    if X is Omega and X.shape[-2] < X.shape[-1]:
        raise InvalidTensorError(
            f"Expected at least as many rows as columns. Got shape {tuple(X.shape)}."
        )
