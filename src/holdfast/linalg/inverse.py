r"""Inverses without pivoting, and without a factorization where the device wants none.

Note [Accretive]
    A matrix whose Hermitian part is at least I needs no pivots: its leading blocks and
    their Schur complements are of the same kind, so that the norm of an inverse is at
    most one. This is :math:`I - A/2` for a skew A, and whatever else Cayley transforms
    invert. It is inverted by halves,

    .. math::
        \begin{pmatrix} P & B \\ C & D \end{pmatrix}^{-1} = \begin{pmatrix}
        P^{-1} + V T^{-1} W & -V T^{-1} \\ -T^{-1} W & T^{-1} \end{pmatrix}, \quad
        W = C P^{-1}, \; V = P^{-1} B, \; T = D - W B,

    which takes one product of the full size in all, and the blocks at the bottom by LU.
    On an accelerator a factorization makes the host wait. There the blocks at the
    bottom are larger and inverted by products alone, the same for all values:
    :math:`N = S^H S` has its spectrum in :math:`[1, \rho]`, and the steps
    :math:`Z \leftarrow c Z ((1 + l) I - N Z)` take the spectrum of :math:`NZ` from
    [l, 1] to [4 l / (1 + l)^2, 1]. They take 1 to the lower end, so that for a tiny l
    nothing but rounding errors would be left of it. As long as l is below 1/8 the steps
    are those for 1/8: what is less grows by a factor of 3.2 to 3.6, instead of 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from .closed_form import closed_form
from .near_identity import largest_norm
from .precision import double
from .products import add_product, add_to_diagonal, product_into, scaled_product
from .structure import require_square
from .tracing import exported_to_onnx, recorded

# The largest blocks that are not halved: of single matrices, of batches of less than
# eight and of more, in a traced graph (which should stay small), and where products
# alone are used.
_SINGLE, _FEW, _MANY, _TRACED, _PRODUCTS = 64, 32, 16, 128, 512

# The schedule of `inverse_by_products` converges for norms of N = S^H S up to these, in
# single and in double precision, and is never for a share of less than 1/8.
_LARGEST, _LARGEST_DOUBLE, _SHARE = 1e7, 1e10, 1 / 8

# Without pivots the error grows faster with the norm than LAPACK's. So it is looked at,
# where a look is cheap, and steps of Newton are added while it is this many roundings.
# Such a step squares the error, but the residual that is seen stays at some roundings
# times the norm of S: none follows one from below this fraction of a rounding's root.
# From 1e4 on in single precision the steps may lead away: then there are pivots.
_ROUNDINGS, _REFINEMENTS, _FRACTION = 16.0, 3, 1 / 8

# Up to this length of its lower triangle no skew matrix needs the look. Errors are two
# roundings at most, but for large structured ones, at which `settled` looks later.
_TAME = 16.0


class _Inverse:
    @staticmethod
    def forward(S: Tensor) -> tuple[Tensor]:
        return (invert_accretive(S),)

    @staticmethod
    def keep(inputs: Any, outputs: tuple[Tensor]) -> tuple[Tensor]:  # noqa: ANN401
        return outputs

    @staticmethod
    def vjp(kept: tuple[Tensor], needs: Any, G: Tensor) -> tuple[Tensor]:  # noqa: ANN401
        (M,) = kept
        return (scaled_product(M.mH @ G, M.mH, -1),)

    @staticmethod
    def jvp(kept: tuple[Tensor], dS: Tensor) -> tuple[Tensor]:
        (M,) = kept
        return (scaled_product(M @ dS, M, -1),)


_inverse = closed_form(_Inverse)


def accretive_inverse(S: Tensor) -> Tensor:
    r"""Return the inverse of a matrix whose Hermitian part is at least I.

    The derivative is :math:`-M^H G M^H` for the inverse M: two products. For other
    matrices the result may be inaccurate, since there are no pivots. On CUDA it costs
    38 products up to size 512 (52 in double precision), but no wait of the host, for
    :math:`\|S\|` up to 500, 150 beyond that size, or 1e4 in double precision. See
    Note [Accretive].

    Shape: ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> accretive_inverse(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
        tensor([[ 0.5000, -0.5000],
                [ 0.5000,  0.5000]])
    """
    require_square(S)
    return _inverse(S)


def invert_accretive(S: Tensor) -> Tensor:
    """Return the inverse by halves, without derivatives. See Note [Accretive]."""
    if S.ndim > 3:
        flat = invert_accretive(S.flatten(0, -3))
        return flat.unflatten(0, S.shape[:-2]).clone()  # a view has no forward mode
    if S.is_cuda:
        M = _by_halves(S, _PRODUCTS)
        return _corrected(S, M, 1) if S.shape[-1] > _PRODUCTS else M
    if exported_to_onnx():
        return inverse_by_products(double(S)).to(S.dtype)
    if recorded(S):  # where nobody looks, but two products more are cheap
        M = _by_halves(S, _TRACED)
        return _corrected(S, M, 1) if S.shape[-1] > _TRACED else M
    leaf = _leaf(S)
    if S.shape[-1] <= leaf:
        return _by_lu(S).contiguous()
    M = torch.empty_like(S, memory_format=torch.contiguous_format)
    _invert_into(S, M, leaf)
    if S.device.type == "cpu":
        M = _refined(M, lambda x: S @ x, lambda: _by_lu(S))
    return M


def invert_skew_part(L: Tensor) -> Tensor:
    """Return the inverse of 2I - (L - L^H) for a lower triangle, without derivatives.

    Of a matrix that is not traced, on the CPU. What is above is read from below.
    """
    leaf, M = _leaf(L), torch.empty_like(L)
    _invert_into(L, M, leaf, skew=True)
    if L.shape[-1] > leaf and not largest_norm(L) <= _TAME:
        M = _refined(
            M, lambda x: 2 * x - L @ x + L.mH @ x, lambda: _by_lu(_two_less(L))
        )
    return M


def halved(S: Tensor) -> bool:
    """Tell whether the inverse on the CPU is made of inverses of halves.

    Example:
        >>> import torch
        >>> halved(torch.zeros(64, 64)), halved(torch.zeros(9, 64, 64))
        (False, True)
    """
    return S.shape[-1] > _leaf(S)


def _leaf(S: Tensor) -> int:
    """Return up to which size blocks are inverted as a whole."""
    count = 1 if S.ndim == 2 else S.shape[0]
    return _SINGLE if count == 1 else _FEW if count < 8 else _MANY


def _refined(
    M: Tensor, times: Callable[[Tensor], Tensor], exact: Callable[[], Tensor]
) -> Tensor:
    """Return an inverse that is right to rounding, for one that almost is.

    Args:
        M: the inverse of S.
        times: takes X to S X.
        exact: computes the inverse with pivots, for norms that steps do not cope with.
    """
    eps = torch.finfo(M.dtype).eps
    for _ in range(_REFINEMENTS):
        off = float(_residual(M, times))
        if off <= _ROUNDINGS * eps:
            return M
        M = add_product(M, M, times(M), alpha=-1, beta=2)
        if off <= _FRACTION * eps**0.5:
            return M
    return exact()


def _residual(M: Tensor, times: Callable[[Tensor], Tensor]) -> Tensor:
    """Return how far M S x is from a fixed x of unit entries, in root mean square.

    Of a batch, that of the worst matrix: the sum over many would always be large.
    """
    x = random_signs(M.shape[-1], 1, M.dtype)
    off = add_product(x.expand(*M.shape[:-1], 1), M, times(x), beta=-1)
    sizes = torch.linalg.vector_norm(off, dim=(-2, -1)) / M.shape[-1] ** 0.5
    return sizes.max() if sizes.numel() else sizes.sum()


@functools.lru_cache(maxsize=64)
def random_signs(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Return signs without a pattern, the same ones always.

    Example:
        >>> import torch
        >>> random_signs(2, 3, torch.float32)
        tensor([[ 1.,  1., -1.],
                [-1.,  1., -1.]])
    """
    signs = Random(0).choices((-1.0, 1.0), k=rows * columns)
    return torch.tensor(signs, dtype=dtype, device="cpu").view(rows, columns)


def _invert_into(S: Tensor, M: Tensor, leaf: int, *, skew: bool = False) -> None:
    """Write the inverse into M: memory that is in use already is quicker.

    With `skew`, S is the lower triangle L, and the inverse is that of 2I - (L - L^H).
    """
    n = S.shape[-1]
    if n <= leaf:
        M.copy_(_by_lu(_two_less(S) if skew else S))
        return
    h = n // 2
    P, V, W, T = M[..., :h, :h], M[..., :h, h:], M[..., h:, :h], M[..., h:, h:]
    C, D = S[..., h:, :h], S[..., h:, h:]
    B, D, sign = (C.mH, _two_less(D), -1) if skew else (S[..., :h, h:], D.clone(), 1)
    _invert_into(S[..., :h, :h], P, leaf, skew=skew)
    left, right = C @ P, P @ B
    product_into(D, left, B, alpha=-sign, beta=1)
    _invert_into(D, T, leaf)
    product_into(W, T, left, alpha=-sign)
    product_into(V, right, T, alpha=-1)
    product_into(P, right, W, alpha=-1, beta=1)


def _two_less(L: Tensor) -> Tensor:
    """Return 2I - (L - L^H)."""
    return add_to_diagonal(L.mH.clone(memory_format=torch.contiguous_format).sub_(L), 2)


def _by_halves(S: Tensor, leaf: int) -> Tensor:
    n = S.shape[-1]
    if n <= leaf:
        return inverse_by_products(S) if S.is_cuda else _by_lu(S)
    h = n // 2
    P = _by_halves(S[..., :h, :h], leaf)
    B, C, D = S[..., :h, h:], S[..., h:, :h], S[..., h:, h:]
    W, V = C @ P, P @ B
    T = _by_halves(add_product(D, W, B, alpha=-1), leaf)
    minus = -T
    below = minus @ W
    upper = torch.cat([add_product(P, V, below, alpha=-1), V @ minus], -1)
    return torch.cat([upper, torch.cat([below, T], -1)], -2)


def _by_lu(S: Tensor) -> Tensor:
    """Return LAPACK's inverse; of this size, double precision is no slower there."""
    if S.device.type == "mps":
        return torch.linalg.inv_ex(S)[0]
    # turned, since LAPACK goes by columns: else it is copied into them, and out again
    return torch.linalg.inv_ex(double(S).mT)[0].mT.to(S.dtype)


def inverse_by_products(S: Tensor) -> Tensor:
    """Return the inverse of an accretive matrix by products alone, without derivatives.

    Example:
        >>> import torch
        >>> inverse_by_products(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
        tensor([[ 0.5000, -0.5000],
                [ 0.5000,  0.5000]])
    """
    N = S.mH @ S
    largest = torch.minimum(
        torch.linalg.matrix_norm(N), torch.linalg.matrix_norm(N, torch.inf)
    )
    identity = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device).expand_as(S)
    Z = identity / largest[..., None, None]
    wide = S.dtype in (torch.float64, torch.complex128)
    low = 1 / (_LARGEST_DOUBLE if wide else _LARGEST)
    while 1 - low > torch.finfo(S.dtype).eps:
        share = max(low, _SHARE)
        c = 4 / (1 + share) ** 2
        Z = add_product(Z, Z, N @ Z, alpha=-c, beta=c * (1 + share))
        low = min(c * share, c * low * (1 + share - low))
    return _corrected(S, Z @ S.mH, 2)


def _corrected(S: Tensor, M: Tensor, steps: int) -> Tensor:
    """Return the inverse after steps of Newton's, without a look at the residual.

    The ones of S and of S M, to which small products would be added, are left out.
    """
    identity = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device).expand_as(S)
    for _ in range(steps):
        R = add_product(identity - M, S - identity, M, alpha=-1)
        M = add_product(M, M, R)
    return M
