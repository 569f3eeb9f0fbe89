r"""Blocks of Householder reflections: their product, and its derivatives.

Note [Blocks of reflections]
    Let V have the vectors of b reflections as columns, and S the upper triangle of
    :math:`V^T V` with half the diagonal. Their product is :math:`I - V S^{-1} V^T`.
    It is applied to :math:`\mathrm{diag}(I_b, Y)`, where Y is what the reflections
    further right have made, in one go: with F the product of that and
    :math:`V^T`, and :math:`W = S^{-1} F`, the value is :math:`\mathrm{diag}(I_b, Y) -
    V W`. For a cotangent G of it,

    .. math::
        g_F = -S^{-T} V^T G, \qquad g_S = -g_F W^T,

    and the rest are the derivatives of products. Halves of many columns are cheaper
    than all at once, since their vectors are shorter and their triangles smaller.

    With a base B the last value is :math:`B\, \mathrm{diag}(I_b, Y) - U W` for
    :math:`U = B V`, and the gradient of U is :math:`-G W^T`. That is less than the
    product with B, as half of its columns meet nothing but Y.

Note [The triangle]
    The value is orthonormal as far as :math:`S + S^T = V^T V`, to an error that the
    inverse of S multiplies: for nearly parallel vectors by hundreds. So in single
    precision S is made in double. In double, the error of the squared lengths would be
    most of that of the value: next to the identity :math:`V S^{-1} V^T` is 2 on the
    diagonal, and a product adds the squares of small entries to the one on the
    diagonal, one by one. So the squares below the diagonal are summed first.

    What single precision rounds after that is multiplied too. So it is looked for
    nearly parallel vectors: if there are many, all is done in double, or the value is
    polished where it is double already. So it is on CUDA, where nobody may look.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .inverse import random_signs
from .portable import portable_upper_inverse
from .precision import double
from .products import add_product, add_to_diagonal, scaled_product
from .tracing import exported_to_onnx, recorded

# Larger triangles are inverted by halves.
_TRIANGLE = 64

# What `parallel` says of 3 at most for random vectors, and of 6 at least if the value
# is off by more than 25 roundings; and the vectors of signs that it takes.
_PARALLEL, _PROBES = 5.0, 8

# A vector of this length has a square that single precision can still divide by.
_LONG = 1e15


class Block(NamedTuple):
    """Some reflections, what they are applied to, and what their derivatives reuse."""

    V: Tensor
    Y: Tensor | None
    base: Tensor | None
    T: Tensor
    W: Tensor
    U: Tensor  # V, if there is no base


def apply_block(V: Tensor, Y: Tensor | None, base: Tensor | None) -> tuple[Tensor, ...]:
    """Return the product, T, W and U, without derivatives.

    See Note [Blocks of reflections]. Without a base, U is V.

    Args:
        V: unit lower triangular, ``(*batch, n, b)``.
        Y: what the reflections are applied to, ``(*batch, n - b, m)``, or nothing.
        base: what all that is applied to, ``(*batch, n, n)``.
    """
    b = V.shape[-1]
    T = _triangle_inverse(V).to(V.dtype)
    first, below = _parts(V, -2, b)
    F = first.mT if Y is None else torch.cat([first.mT, below.mT @ Y], -1)
    W = T @ F
    if base is not None:
        U = base @ V
        return add_product(_through(base, Y, b), U, W, alpha=-1), T, W, U
    Q = scaled_product(V, W, -1)
    if Y is None:
        return add_to_diagonal(Q, 1), T, W, V
    Q[..., b:, b:].add_(Y)
    places = torch.arange(Q.shape[-1], device=Q.device) < b
    return add_to_diagonal(Q, places.to(Q.dtype)), T, W, V


def block_gradient(
    block: Block, G: Tensor, gT: Tensor | None, gW: Tensor | None, gU: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of V and Y, for cotangents of all results."""
    V, Y, base, T, W, U = block
    n, b = V.shape[-2:]
    total = scaled_product(U.mT, G, -1)
    if gW is not None:
        total = total + gW
    gF = T.mT @ total
    gS = scaled_product(gF, W.mT, -1)
    if gT is not None:
        gS = add_product(gS, T.mT @ gT, T.mT, alpha=-1)
    gV = V @ (gS.triu() + gS.triu(1).mT)  # of the Gram matrix, and its transpose
    if base is None:
        gV = add_product(gV, G, W.mT, alpha=-1)
    else:
        gV = add_product(gV, base.mT, _turned_gradient(W, G, gU))
    if Y is None:
        return gV + pad(gF.mT, (0, 0, 0, n - b)), None
    left, right = _parts(gF, -1, b)
    above = torch.cat([left.mT, Y @ right.mT], -2)
    last = _parts(G, -1, b)[1]
    gY = _parts(last, -2, b)[1] if base is None else _parts(base, -1, b)[1].mT @ last
    return gV + above, add_product(gY, _parts(V, -2, b)[1], right)


def base_gradient(block: Block, G: Tensor, gU: Tensor | None) -> Tensor:
    """Return the gradient of the base."""
    V, Y, _, _, W, _ = block
    n, b = V.shape[-2:]
    left, right = _parts(G, -1, b)
    right = pad(right, (0, n - b)) if Y is None else right @ Y.mT
    D = torch.cat([left, right], -1)
    return add_product(D, _turned_gradient(W, G, gU), V.mT)


def _turned_gradient(W: Tensor, G: Tensor, gU: Tensor | None) -> Tensor:
    """Return the gradient of U."""
    direct = scaled_product(G, W.mT, -1)
    return direct if gU is None else direct + gU


def block_tangent(
    block: Block, dV: Tensor, dY: Tensor | None, dbase: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the tangents of the product, T, W and U."""
    V, Y, base, T, W, U = block
    b = V.shape[-1]
    half = V.mT @ dV
    dS = (half + half.mT).triu(1) + torch.diag_embed(half.diagonal(dim1=-2, dim2=-1))
    above, below = _parts(dV, -2, b)
    dF = above.mT
    if Y is not None:
        right = below.mT @ Y
        if dY is not None:
            right = add_product(right, _parts(V, -2, b)[1].mT, dY)
        dF = torch.cat([dF, right], -1)
    dW = T @ add_product(dF, dS, W, alpha=-1)
    dU = dV if base is None else base @ dV
    if dbase is not None:
        dU = add_product(dU, dbase, V)
    dQ = -add_product(dU @ W, U, dW)
    if dY is not None:
        right = pad(dY, (0, 0, b, 0)) if base is None else _parts(base, -1, b)[1] @ dY
        dQ = dQ + pad(right, (b, 0))
    if dbase is not None:
        dQ = dQ + _through(dbase, Y, b)
    return dQ, scaled_product(T @ dS, T, -1), dW, dU


def parallel(V: Tensor) -> bool:
    """Tell whether some vectors are nearly parallel, where a look is cheap.

    See Note [The triangle]. For vectors of length one, the mean sum of the squares of a
    column of the Gram matrix is that of its products with vectors of signs. Very long
    ones are as parallel: one over their squares is nothing in single precision.
    """
    if V.device.type not in ("cpu", "cuda") or recorded(V):
        return False
    if V.is_cuda:  # where nobody may look
        return True
    lengths = V.square().sum(-2, keepdim=True).sqrt()
    rows = random_signs(_PROBES, V.shape[-1], V.dtype) / lengths  # quicker than columns
    sums = (rows @ V.mT) @ V / lengths
    mean = sums.square().mean((-2, -1))
    return bool((mean > _PARALLEL).any()) or bool((lengths > _LONG).any())


def _parts(X: Tensor, dim: int, b: int) -> tuple[Tensor, ...]:
    """Return the first b rows or columns, and the others."""
    return X.split([b, X.shape[dim] - b], dim)


def _through(base: Tensor, Y: Tensor | None, b: int) -> Tensor:
    """Return B diag(I, Y)."""
    left, right = _parts(base, -1, b)
    return left if Y is None else torch.cat([left, right @ Y], -1)


def _triangle_inverse(V: Tensor) -> Tensor:
    """Return the inverse of S, in double precision. See Note [The triangle]."""
    wide = double(V)
    return _inverse(wide, exact=wide.dtype == V.dtype)


def _inverse(V: Tensor, *, exact: bool) -> Tensor:
    b = V.shape[-1]
    if exported_to_onnx():
        return portable_upper_inverse(_triangle(V, exact=exact))
    if b <= _TRIANGLE:
        identity = torch.eye(b, dtype=V.dtype, device=V.device)
        S = _triangle(V, exact=exact)
        return torch.linalg.solve_triangular(S, identity, upper=True)
    h = b // 2
    left, right = _parts(V, -1, h)
    right = _parts(right, -2, h)[1]  # below zeros
    P, T = _inverse(left, exact=exact), _inverse(right, exact=exact)
    corner = scaled_product(P, _parts(left, -2, h)[1].mT @ right @ T, -1)
    upper = torch.cat([P, corner], -1)
    lower = pad(T, (h, 0))
    return torch.cat([upper, lower], -2)


def _triangle(V: Tensor, *, exact: bool) -> Tensor:
    gram = V.mT @ V
    if exact:
        lengths = (add_to_diagonal(V * V, -1).sum(-2) + 1) / 2
    else:
        lengths = gram.diagonal(dim1=-2, dim2=-1) / 2
    return add_to_diagonal(gram.triu_(1), lengths)
