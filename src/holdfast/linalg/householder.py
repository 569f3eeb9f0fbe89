r"""Products of Householder reflections, in the convention of LAPACK.

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

Note [The triangle]
    The value is orthonormal as far as :math:`S + S^T = V^T V`, to an error that the
    inverse of S multiplies: for nearly parallel vectors by hundreds. So in single
    precision S is made in double. In double, the error of the squared lengths would be
    most of that of the value: next to the identity :math:`V S^{-1} V^T` is 2 on the
    diagonal, and a product adds the squares of small entries to the one on the
    diagonal, one by one. So the squares below the diagonal are summed first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .orthonormal import polish
from .portable import portable_upper_inverse
from .precision import double, full_precision
from .products import add_product, add_to_diagonal, scaled_product
from .tracing import dual, exported_to_onnx, traced

# More reflections than this are halved; larger triangles are inverted by halves.
_REFLECTIONS, _TRIANGLE = 96, 64


# Rounding leaves up to ten roundings of most vectors, of 512 reflections.
_ALLOWED = 16.0


class _Reflect:
    @staticmethod
    def forward(V: Tensor, Y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        b = V.shape[-1]
        T = _upper_inverse(_triangle(V)).to(V.dtype)
        F = V[..., :b, :].mT
        if Y is not None:
            F = torch.cat([F, V[..., b:, :].mT @ Y], -1)
        W = T @ F
        Q = scaled_product(V, W, -1)
        if Y is None:
            return add_to_diagonal(Q, 1), T, W
        Q[..., b:, b:].add_(Y)
        first = torch.arange(Q.shape[-1], device=Q.device) < b
        return add_to_diagonal(Q, first.to(Q.dtype)), T, W

    @staticmethod
    def keep(inputs: tuple[Tensor, Tensor | None], outputs: Any) -> Tensors:  # noqa: ANN401
        return *inputs, *outputs[1:]

    @staticmethod
    def vjp(
        kept: tuple[Tensor, Tensor | None, Tensor, Tensor],
        needs: Any,  # noqa: ANN401
        G: Tensor,
        gT: Tensor | None,
        gW: Tensor | None,
    ) -> Tensors:
        V, Y, T, W = kept
        n, b = V.shape[-2:]
        total = scaled_product(V.mT, G, -1)
        if gW is not None:
            total = total + gW
        gF = T.mT @ total
        gS = scaled_product(gF, W.mT, -1)
        if gT is not None:
            gS = add_product(gS, T.mT @ gT, T.mT, alpha=-1)
        twice = gS.triu() + gS.triu(1).mT  # of the Gram matrix, and its transpose
        gV = add_product(V @ twice, G, W.mT, alpha=-1)
        if Y is None:
            above, gY = torch.nn.functional.pad(gF.mT, (0, 0, 0, n - b)), None
        else:
            left, right = gF.split([b, gF.shape[-1] - b], -1)
            above = torch.cat([left.mT, Y @ right.mT], -2)
            gY = add_product(G[..., b:, b:], V[..., b:, :], right)
        return gV + above, gY

    @staticmethod
    def jvp(
        kept: tuple[Tensor, Tensor | None, Tensor, Tensor],
        dV: Tensor | None,
        dY: Tensor | None,
    ) -> Tensors:
        V, Y, T, W = kept
        n, b = V.shape[-2:]
        dV = torch.zeros_like(V) if dV is None else dV
        half = V.mT @ dV
        dS = (half + half.mT).triu(1) + torch.diag_embed(
            half.diagonal(dim1=-2, dim2=-1)
        )
        above, below = dV.split([b, n - b], -2)
        dF = above.mT
        if Y is not None:
            right = below.mT @ Y
            if dY is not None:
                right = add_product(right, V[..., b:, :].mT, dY)
            dF = torch.cat([dF, right], -1)
        dW = T @ add_product(dF, dS, W, alpha=-1)
        dQ = -add_product(dV @ W, V, dW)
        if dY is not None:
            dQ = dQ + torch.nn.functional.pad(dY, (b, 0, b, 0))
        return dQ, scaled_product(T @ dS, T, -1), dW


_reflect = closed_form(_Reflect)


def reflections(X: Tensor) -> Tensor:
    r"""Return the first k columns of :math:`H_1 \cdots H_k`.

    The reflection :math:`H_j = I - 2 v_j v_j^T / \|v_j\|^2` has the entries of column
    j of ``X`` below the diagonal, a one on it and zeros above. What ``X`` has on and
    above its diagonal is not read. With :math:`V = [v_1 \cdots v_k]`, its upper square
    block :math:`V_1`, and :math:`S` the upper triangle of :math:`V^T V` with half the
    diagonal,

    .. math::
        H_1 \cdots H_k E = E - V S^{-1} V_1^T.

    Costs about 4nk² operations, and 6nk² for the gradient, on CUDA 4nk² more; see
    Note [Blocks of reflections].

    Shape: ``(*batch, n, k) -> (*batch, n, k)`` for n >= k, real.

    Example:
        >>> import torch
        >>> reflections(torch.zeros(3, 2))
        tensor([[-1.,  0.],
                [ 0., -1.],
                [ 0.,  0.]])

    References:
        Joffrain et al., Accumulating Householder Transformations, Revisited, 2006,
        https://doi.org/10.1145/1141885.1141886
    """
    identity = torch.eye(*X.shape[-2:], dtype=X.dtype, device=X.device)
    V = X.tril(-1) + identity
    Q = _by_halves(V)
    if X.device.type not in ("cpu", "cuda") or traced(Q) or dual():
        return Q
    mended = _mended(Q.detach(), V.detach())
    return Q if mended is None else Q + (mended - Q.detach())


def _mended(Q: Tensor, V: Tensor) -> Tensor | None:
    """Return the value made orthonormal, if the reflections have left it too far off.

    Where vectors are nearly parallel, their large entries lie in a few rows, and so do
    the errors: a vector of the lengths of the rows meets them. On CUDA, where nobody
    may look, two products more are always spent.
    """
    if Q.is_cuda:
        return polish(Q, 1)
    u = torch.linalg.vector_norm(V, dim=-1, keepdim=True)
    inside = Q.mT @ u
    off = add_product(inside, Q.mT, Q @ inside, beta=-1)
    size = torch.linalg.vector_norm(inside) * torch.finfo(Q.dtype).eps
    return (
        polish(Q, 1) if bool(torch.linalg.vector_norm(off) > _ALLOWED * size) else None
    )


def _triangle(V: Tensor) -> Tensor:
    """Return S, in double precision. See Note [The triangle]."""
    wide = double(V)
    gram = wide.mT @ wide
    if wide.dtype != V.dtype:
        lengths = gram.diagonal(dim1=-2, dim2=-1) / 2
    else:
        lengths = (add_to_diagonal(V * V, -1).sum(-2) + 1) / 2
    return add_to_diagonal(gram.triu_(1), lengths)


def _by_halves(V: Tensor) -> Tensor:
    """Return the product of the reflections of some unit lower triangular vectors."""
    k = V.shape[-1]
    if k <= _REFLECTIONS:
        return _reflect(V, None)
    left, right = V.split([k // 2, k - k // 2], -1)
    return _reflect(left, _by_halves(right[..., k // 2 :, :]))


def _upper_inverse(S: Tensor) -> Tensor:
    """Return the inverse of an upper triangular matrix, without derivatives."""
    n = S.shape[-1]
    if exported_to_onnx():
        return portable_upper_inverse(S)
    if n <= _TRIANGLE:
        wide = double(S)
        identity = torch.eye(n, dtype=wide.dtype, device=S.device)
        return torch.linalg.solve_triangular(wide, identity, upper=True).to(S.dtype)
    h = n // 2
    P, T = _upper_inverse(S[..., :h, :h]), _upper_inverse(S[..., h:, h:])
    right = scaled_product(P, S[..., :h, h:] @ T, -1)
    upper = torch.cat([P, right], -1)
    lower = torch.cat([torch.zeros_like(S[..., h:, :h]), T], -1)
    return torch.cat([upper, lower], -2)


@full_precision
def reflectors(W: Tensor) -> tuple[Tensor, Tensor]:
    """Return X and signs such that ``reflections(X) * signs`` is W made orthonormal.

    That is W itself if its columns are orthonormal, and otherwise the factor Q of
    W = Q R with a positive diagonal of R. The signs are on the diagonal of X as well,
    where torch looks for them; above it there are zeros.

    Shape: ``(*batch, n, k) -> (*batch, n, k), (*batch, k)`` for n >= k, real.

    Example:
        >>> import torch
        >>> X, signs = reflectors(torch.eye(3, 2))
        >>> signs
        tensor([-1, -1], dtype=torch.int8)
    """
    # `geqrf` refuses tensors without values
    factored, tau = (W, W[..., 0, :]) if W.is_meta else torch.geqrf(W)
    signs = diagonal_signs(factored)
    # LAPACK's tau = 0 is no reflection at all; here a zero column reflects one axis.
    signs = torch.where(tau == 0, -signs, signs)
    identity = torch.eye(*W.shape[-2:], dtype=W.dtype, device=W.device)
    return factored.tril(-1) + identity * signs.unsqueeze(-2), signs


def diagonal_signs(X: Tensor) -> Tensor:
    """Return the signs of the diagonal, +1 for a zero, as int8.

    Example:
        >>> import torch
        >>> diagonal_signs(torch.diag(torch.tensor([0.5, -0.5])))
        tensor([ 1, -1], dtype=torch.int8)
    """
    signs = torch.where(X.diagonal(dim1=-2, dim2=-1) < 0, -1, 1)
    return signs.to(torch.int8)
