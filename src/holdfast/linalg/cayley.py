r"""The Cayley transform, and its inverse on all of O(n).

Note [Signs]
    The transform reaches no orthogonal matrix with an eigenvalue -1, so none of
    determinant -1. But every orthogonal W is U D, with D diagonal of entries +-1 and
    U + I well conditioned (Kahan 2006). D is found while W is eliminated: d_j gets the
    sign of the j-th pivot and is added to it, as LAPACK's `orhr_col` does, so that
    every pivot has modulus >= 1. What is eliminated is W + D = (U + I) D.

Note [Two products]
    With :math:`M = (I - A/2)^{-1}` the transform is :math:`Q = 2M - I`, an inverse and
    no solve, and :math:`dQ = M\, dA\, M`. So the gradient is :math:`M^H G M^H` with
    :math:`M = (I + Q)/2`: two products, and nothing is kept but the value. With a base
    B the value is :math:`Q = BC` for :math:`C = 2M - I`, and :math:`BM = (B + Q)/2`, so
    that the gradient of A is :math:`(BM)^H G M^H`: the base costs nothing on the way
    back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .closed_form import Rule, Tensors, closed_form
from .inverse import halved, invert_accretive, invert_skew_part
from .near_identity import may_be_short, near_identity
from .precision import full_precision
from .products import add_product, add_to_diagonal, product
from .structure import (
    difference,
    difference_,
    lower,
    require_square,
    skew_of_lower,
)
from .tracing import recorded
from .unitarity import settled

Unary = Callable[[Tensor], Tensor]

# Half coordinates above this size cost digits in float32; fresh signs make them small.
_LARGEST = 4.0

# So many columns are eliminated one by one before the rest is told.
_BLOCK = 16


@settled
def _transform(A: Tensor) -> Tensor:
    """Return 2M - I. See Note [Two products]."""
    E = A * -0.5
    M = near_identity(E)
    M = invert_accretive(add_to_diagonal(E, 1)) if M is None else M
    return add_to_diagonal(M.mul_(2), -1)


def _transform_of_lower(X: Tensor) -> Tensor:
    """Return that of the skew matrix of a lower triangle."""
    if X.device.type != "cpu" or recorded(X) or X.ndim > 3 or not halved(X):
        return _transform(skew_of_lower(X))
    L = X.clone(memory_format=torch.contiguous_format)
    L = lower(L, 0 if X.is_complex() else -1)
    return _transform(difference_(L)) if may_be_short(L) else _by_halves(L)


@settled
def _by_halves(L: Tensor) -> Tensor:
    """Return the same, without making the skew matrix."""
    return add_to_diagonal(invert_skew_part(L).mul_(4), -1)


class _Cayley:
    @staticmethod
    def forward(A: Tensor, *, transform: Unary = _transform) -> tuple[Tensor]:
        return (transform(A),)

    @staticmethod
    def keep(inputs: Any, outputs: tuple[Tensor]) -> Tensors:  # noqa: ANN401
        return outputs

    @staticmethod
    def vjp(kept: tuple[Tensor], needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        (Q,) = kept
        half = add_product(G, Q.mH, G)
        return (add_product(half, half, Q.mH).mul_(0.25),)

    @staticmethod
    def jvp(kept: tuple[Tensor], dA: Tensor) -> Tensors:
        return (_tangent(kept[0], dA),)


class _CayleyAt:
    @staticmethod
    def forward(
        A: Tensor, base: Tensor, *, transform: Unary = _transform
    ) -> tuple[Tensor, Tensor]:
        # not 2BM - B: the product would be twice as large, and so its rounding
        C = transform(A)
        return product(base, C), C

    @staticmethod
    def keep(inputs: tuple[Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> Tensors:
        return (*outputs, inputs[1])

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor, Tensor],
        needs: tuple[bool, bool],
        G: Tensor,
        gC: Tensor | None,
    ) -> Tensors:
        Q, C, base = kept
        gA = gbase = None
        if needs[0]:
            left = product((Q + base).mH, G)
            if gC is not None:
                left = left + add_product(gC, C.mH, gC)
            gA = add_product(left, left, C.mH).mul_(0.25)
        if needs[1]:
            gbase = product(G, C.mH)
        return gA, gbase

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor, Tensor], dA: Tensor | None, dbase: Tensor | None
    ) -> Tensors:
        _, C, base = kept
        dC = torch.zeros_like(C) if dA is None else _tangent(C, dA)
        dQ = base @ dC
        if dbase is not None:
            dQ = add_product(dQ, dbase, C)
        return dQ, dC


def _tangent(Q: Tensor, dA: Tensor) -> Tensor:
    """Return M dA M for M = (I + Q)/2."""
    half = add_product(dA, Q, dA, alpha=0.25, beta=0.25)
    return add_product(half, half, Q)


def _of_lower(rule: Rule) -> Rule:
    """Return the rule of the lower triangle of which the skew matrix is made."""

    class Lower:
        @staticmethod
        def forward(X: Tensor, *base: Tensor) -> tuple[Tensor, ...]:
            return rule.forward(X, *base, transform=_transform_of_lower)

        keep = staticmethod(rule.keep)  # torch 2.6 compiles no other

        @staticmethod
        def vjp(kept: Any, needs: Any, *grads: Tensor | None) -> Tensors:  # noqa: ANN401
            gA, *gbase = rule.vjp(kept, needs, *grads)
            return None if gA is None else lower(difference_(gA)), *gbase

        @staticmethod
        def jvp(kept: Any, dX: Tensor | None, *dbase: Tensor | None) -> Tensors:  # noqa: ANN401
            dA = None if dX is None else difference(dX.tril())
            return rule.jvp(kept, dA, *dbase)

    return Lower  # pyright: ignore[reportReturnType]


_cayley, _cayley_at = closed_form(_Cayley), closed_form(_CayleyAt)
_lower, _lower_at = closed_form(_of_lower(_Cayley)), closed_form(_of_lower(_CayleyAt))


def cayley_transform(A: Tensor, base: Tensor | None = None) -> Tensor:
    r"""Return :math:`B (I - A/2)^{-1} (I + A/2)`, orthogonal for a skew ``A``.

    It is unitary for a skew-Hermitian one. Without a base, B is the identity. The
    Hermitian part of ``A`` has to be negative, as that of a skew matrix is, or the
    inverse lacks the pivots it would need. Costs about 2 products for large n and one
    for a base; the gradient costs 2. See Note [Two products].

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``; the base may lack leading dimensions.

    Example:
        >>> import torch
        >>> cayley_transform(torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
        tensor([[ 0.,  1.],
                [-1.,  0.]])

    References:
        Cayley, Sur quelques propriétés des déterminants gauches, 1846,
        https://doi.org/10.1515/crll.1846.32.119
    """
    require_square(A)
    if base is None:
        return _cayley(A)
    return _cayley_at(A, base.expand_as(A))


def cayley_transform_lower(X: Tensor, base: Tensor | None = None) -> Tensor:
    r"""Return ``cayley_transform(lower_skew(X), base)``, in fewer passes.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``; the base may lack leading dimensions.

    Example:
        >>> import torch
        >>> cayley_transform_lower(torch.tensor([[5.0, 5.0], [-2.0, 5.0]]))
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    require_square(X)
    if base is None:
        return _lower(X)
    return _lower_at(X, base.expand_as(X))


def cayley_signs(W: Tensor) -> Tensor:
    """Return the entries +-1 of a D such that W D has no eigenvalue near -1.

    Columns are eliminated one by one within blocks, and the blocks by products.

    Shape: ``(*batch, n, n) -> (*batch, n)``, int8. See Note [Signs].

    Example:
        >>> import torch
        >>> cayley_signs(-torch.eye(3))
        tensor([-1, -1, -1], dtype=torch.int8)
    """
    require_square(W)
    rest, signs = W, [W.new_zeros(*W.shape[:-2], 0, dtype=torch.int8)]
    while (n := rest.shape[-1]) > 0:
        b = min(_BLOCK, n)
        corner = rest[..., :b, :b]
        found = _signs_one_by_one(corner)
        signs.append(found)
        if b < n:
            pivots = corner + torch.diag_embed(found.to(W.dtype))
            row = torch.linalg.solve_ex(pivots, rest[..., :b, b:])[0]
            rest = add_product(rest[..., b:, b:], rest[..., b:, :b], row, alpha=-1)
        else:
            rest = rest[..., b:, b:]
    return torch.cat(signs, -1)


def _signs_one_by_one(rest: Tensor) -> Tensor:
    signs: list[Tensor] = []
    for _ in range(rest.shape[-1]):
        sign = torch.where(rest[..., :1, :1].real < 0, -1, 1)
        column = rest[..., 1:, :1] / (rest[..., :1, :1] + sign)
        rest = rest[..., 1:, 1:] - column * rest[..., :1, 1:]
        signs.append(sign[..., 0, 0])
    return torch.stack(signs, -1).to(torch.int8)


@full_precision
def cayley_inverse(W: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return a skew A and signs D with ``cayley_transform(A) * D == W``.

    They exist for every orthogonal W. The given signs are kept wherever W can be
    reached comfortably with them.

    Shape: ``(*batch, n, n), (*batch, n) -> (*batch, n, n), (*batch, n)``.

    Example:
        >>> import torch
        >>> A, signs = cayley_inverse(torch.diag(torch.tensor([1.0, -1.0])))
        >>> signs
        tensor([ 1, -1], dtype=torch.int8)
    """
    fresh = cayley_signs(W)
    if signs is None:
        signs = fresh
    else:
        size = _half_coordinates(W, signs).abs().amax((-2, -1))
        keep = size <= _LARGEST  # False for NaN
        signs = torch.where(keep.unsqueeze(-1), signs, fresh)
    half = _half_coordinates(W, signs)
    return half - half.mH, signs


def _half_coordinates(W: Tensor, signs: Tensor) -> Tensor:
    """Return (U + I)^{-1} (U - I) for U = W D; huge or NaN where U + I is singular."""
    U = W * signs.unsqueeze(-2)
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    return torch.linalg.solve_ex(U + identity, U - identity)[0]
