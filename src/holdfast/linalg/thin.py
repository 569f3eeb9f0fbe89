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

    Fixed signs D of the columns go into the small factor: with :math:`Y = X D` the
    columns are :math:`[2Y - D;\ K Y]`, and :math:`P = X^H (2G + K^H H) Y^H`.

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
from .products import (
    accumulate_product,
    add_product,
    add_to_diagonal,
    product,
    product_into,
    scaled_product,
)
from .resolvent import resolvent, resolvent_gradient, resolvent_tangent
from .structure import require_square
from .tracing import recorded, traced
from .unitarity import settled


def _minus_identity(X: Tensor) -> Tensor:
    """Return 2X - I."""
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return torch.sub(2 * X, identity)


def _parts(X: Tensor) -> tuple[Tensor, ...]:
    """Return the first k rows, and the others."""
    n, k = X.shape[-2:]
    return X.split([k, n - k], -2)


def _signed(X: Tensor, signs: Tensor | None) -> Tensor:
    """Return X with its columns times the signs."""
    return X if signs is None else X * signs.unsqueeze(-2)


def _stacked(K: Tensor, X: Tensor, signs: Tensor | None = None) -> Tensor:
    """Return 2Y - D with K Y below it, for Y = X D, without derivatives."""
    Y, ones = _signed(X, signs), 1 if signs is None else signs
    if recorded(Y) or Y.ndim > 3:
        return add_to_diagonal(torch.cat([2 * Y, K @ Y], -2), ones, alpha=-1)
    Q = Y.new_empty(*Y.shape[:-2], X.shape[-1] + K.shape[-2], X.shape[-1])
    first, others = _parts(Q)
    add_to_diagonal(torch.mul(Y, 2, out=first), ones, alpha=-1)
    product_into(others, K, Y)
    return Q


class _Thin:
    @staticmethod
    @settled
    def forward(Omega: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        X = resolvent(Omega, K)
        return _stacked(K, X), X

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
        upper, lower = _parts(product(G, X.mH))
        half = resolvent_gradient(X, K, upper, lower, gX)
        return half, add_product(lower, K, half + half.mH, alpha=-0.5)

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor], dOmega: Tensor | None, dK: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        X, K = kept
        dX = resolvent_tangent(X, K, dOmega, dK)
        below = K @ dX if dK is None else add_product(dK @ X, K, dX)
        return torch.cat([2 * dX, below], -2), dX


class _ThinLower:
    @staticmethod
    @settled
    def forward(X: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor]:
        upper, K = _parts(X)
        L = upper.tril()
        R = resolvent(L - L.mH, K)
        return _stacked(K, R, signs), R

    @staticmethod
    def keep(
        inputs: tuple[Tensor, Tensor | None], outputs: tuple[Tensor, Tensor]
    ) -> Tensors:
        return *inputs, outputs[1]

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor | None, Tensor],
        needs: Any,  # noqa: ANN401
        G: Tensor,
        gR: Tensor | None,
    ) -> Tensors:
        X, signs, R = kept
        K, gX = _parts(X)[1], product(G, _signed(R, signs).mH)
        upper, lower = _parts(gX)
        half = resolvent_gradient(R, K, upper, lower, gR)
        L = (half - half.mH).tril()
        # with gR, the sums may have a batch that the products of G lack
        if torch.is_grad_enabled() or traced(gX) or gR is not None or gX.ndim > 3:
            lower = add_product(lower, K, half + half.mH, alpha=-0.5)
            return torch.cat([L, lower], -2), None
        product_into(lower, K, half + half.mH, alpha=-0.5, beta=1)
        upper.copy_(L)
        return gX, None

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor | None, Tensor], dX: Tensor, dsigns: None
    ) -> Tensors:
        X, signs, R = kept
        K, (upper, dK) = _parts(X)[1], _parts(dX)
        L = upper.tril()
        dQ, dR = _Thin.jvp((R, K), L - L.mH, dK)
        return _signed(dQ, signs), dR


class _ThinAt:
    @staticmethod
    @settled
    def forward(Z: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        C = product(base.mH, Z)
        K = add_product(Z, base, C, alpha=-1)
        X = resolvent(C - C.mH, K)
        Q = accumulate_product(product(K, X), base, add_to_diagonal(2 * X, -1))
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
        through = product(G, X.mH)
        inside = product(base.mH, through)
        half = resolvent_gradient(X, K, inside, through, gX)
        add = accumulate_product if gX is None else add_product
        through = add(through, K, half + half.mH, alpha=-0.5)
        gC = half - half.mH
        if gK is None and not needs[1]:  # K is orthogonal to a base that stays
            gC = gC - inside
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
        dX = resolvent_tangent(X, K, dC - dC.mH, dK)
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


def thin_cayley_lower(X: Tensor, signs: Tensor | None = None) -> Tensor:
    r"""Return ``thin_cayley(lower_skew(X[:k]), X[k:]) * signs``, in fewer passes.

    What ``X`` has above its diagonal is not read.

    Shape: ``(*batch, n, k), (*batch, k) -> (*batch, n, k)`` for n >= k.

    Example:
        >>> import torch
        >>> thin_cayley_lower(torch.tensor([[5.0], [2.0], [0.0]]))
        tensor([[0.],
                [1.],
                [0.]])
    """
    require_columns(X, X)
    return _thin_lower(X, signs)


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
