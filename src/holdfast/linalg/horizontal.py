r"""Subspaces around a base point, without a square matrix of that size.

Note [Horizontal]
    Let B have orthonormal columns. The subspace that they span does not change along
    directions B C, to first order; the other ones are :math:`K = Z - B B^H Z`. For
    :math:`A = K B^H - B K^H` and the Cayley transform or the exponential,

    .. math::
        \varphi(A)\, B = B\, f(G) + K\, g(G), \qquad G = K^H K,

    with :math:`f(G) = 2 (I + G/4)^{-1} - I` and :math:`g(G) = (I + G/4)^{-1}` for the
    one, and :math:`f(G) = \cos \sqrt G` and :math:`g(G) = \sin \sqrt G / \sqrt G` for
    the other, which are power series in G: no singular vectors are computed, and all
    derivatives are those of smooth functions, whatever the rank of K. This is the
    geodesic that starts in the direction K. The two reach the same subspaces in the
    same direction, at angles that are the singular values s of K for the exponential,
    and :math:`2 \arctan (s/2)` for the Cayley transform.

Note [Cosines]
    No two subspaces are at a larger angle than :math:`\pi/2`. For those the series are
    cut after twelve terms, evaluated in double precision: what is left out is below
    rounding. A larger G is divided by :math:`4^s`, and s times follow
    :math:`\cos 2x = 2 \cos^2 x - 1` and :math:`\sin 2x / 2x = \cos x \sin x / x`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .gram_matrix import gram
from .inverse import accretive_inverse
from .precision import double
from .products import add_product
from .resolvent import is_long
from .thin import require_columns
from .tracing import traced

# Doublings where the host may not look at the angles: these may be 700 there.
_FIXED = 10

_COSINE = [(-1) ** j / math.factorial(2 * j) for j in range(12)]
_SINE = [(-1) ** j / math.factorial(2 * j + 1) for j in range(12)]


def horizontal_cayley_at(Z: Tensor, base: Tensor) -> Tensor:
    r"""Return :math:`\varphi(K B^H - B K^H) B` for the Cayley transform.

    Zero coordinates are the base point B. What Z has in the span of B does not count:
    :math:`K = Z - B B^H Z`. Every subspace is the span of a value, with singular values
    of K of at most 2. Costs 10nk² operations and an inverse of size k, and 12nk² for
    the gradient. See Note [Horizontal].

    Shape: ``(*batch, n, k), (*batch, n, k) -> (*batch, n, k)`` for n >= k; the base may
        lack leading dimensions.

    Example:
        >>> import torch
        >>> base = torch.tensor([[1.0], [0.0]])
        >>> horizontal_cayley_at(torch.tensor([[5.0], [2.0]]), base)
        tensor([[0.],
                [1.]])

    References:
        Absil, Mahony and Sepulchre, Optimization Algorithms on Matrix Manifolds, 2008,
        https://press.princeton.edu/absil
    """
    return _around(Z, base, _cayley)


def horizontal_exponential_at(Z: Tensor, base: Tensor) -> Tensor:
    r"""Return :math:`\exp(K B^H - B K^H) B`: the end of a geodesic of subspaces.

    The coordinates are those of `horizontal_cayley_at`, and the singular values of K
    are the angles between the two subspaces. Costs 10nk² operations and seven
    products of size k in double precision, two more for each doubling of an angle of
    :math:`\pi/2`, and twice that for the gradient. Where the host may not look at the
    angles (on another device than the CPU, and while tracing) there are always 20
    more, and angles above 700 may give NaN. See Note [Cosines].

    Shape: ``(*batch, n, k), (*batch, n, k) -> (*batch, n, k)`` for n >= k; the base may
        lack leading dimensions.

    Example:
        >>> import torch
        >>> Z, base = torch.tensor([[5.0], [torch.pi]]), torch.tensor([[1.0], [0.0]])
        >>> horizontal_exponential_at(Z, base).round()
        tensor([[-1.],
                [-0.]])

    References:
        Edelman, Arias and Smith, The Geometry of Algorithms with Orthogonality
        Constraints, 1998, https://arxiv.org/abs/physics/9806030
    """
    return _around(Z, base, _cosine)


def horizontal_slope(G: Tensor, base: Tensor) -> Tensor:
    r"""Return :math:`G - B B^H G`, the gradient of both maps at zero.

    Example:
        >>> import torch
        >>> horizontal_slope(torch.ones(2, 1), torch.eye(2, 1))
        tensor([[0.],
                [1.]])
    """
    # not base.mH: torch has no batches of forward derivatives for a conjugated view
    return add_product(G, base, base.conj_physical().mT @ G, alpha=-1)


def _around(
    Z: Tensor, base: Tensor, functions: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    require_columns(Z, Z)
    base = base.expand_as(Z)
    if Z.shape[-2] == Z.shape[-1]:  # the whole space is its only subspace
        return base + 0 * Z
    K = horizontal_slope(Z, base)
    F, S = functions(_gram(K))
    return add_product(base @ F.to(K.dtype), K, S.to(K.dtype))


def _gram(K: Tensor) -> Tensor:
    """Return K^H K, in double precision if that of K rounds an identity beside it.

    On CUDA nobody may look, and it always is.
    """
    G = K if K.is_cuda else gram(K.conj_physical().mT)
    if K.is_cuda or (not traced(G) and is_long(G.detach() / 4)):
        return gram(double(K).conj_physical().mT)
    return G


def _cayley(G: Tensor) -> tuple[Tensor, Tensor]:
    """Return f and g of the Cayley transform."""
    identity = _identity(G)
    X = accretive_inverse(identity + G / 4)
    return 2 * X - identity, X


def _cosine(G: Tensor) -> tuple[Tensor, Tensor]:
    """Return f and g of the exponential. See Note [Cosines]."""
    wide = double(G)
    square = wide @ wide
    halvings = _halvings(square.detach())
    look = G.device.type == "cpu" and not traced(G)
    finite = halvings.nan_to_num(0, 0)  # others give NaN, of themselves
    count = int(finite.max()) if look and halvings.numel() else _FIXED
    scale = 0.25 ** halvings.masked_fill(halvings > count, torch.nan)  # only if unseen
    small, square = wide * scale, square * scale**2
    powers = [_identity(wide), small, square, square @ small]
    fourth = square @ square
    F, S = (_polynomial(row, powers, fourth) for row in (_COSINE, _SINE))
    for step in range(count):
        again = halvings > step
        S = torch.where(again, F @ S, S)
        F = torch.where(again, 2 * (F @ F) - powers[0], F)
    return F, S


def _halvings(square: Tensor) -> Tensor:
    r"""Return how often the angles have to be halved to be at most :math:`\pi/2`.

    Shape: ``(*batch, k, k) -> (*batch, 1, 1)``, from the square of G.
    """
    angle = torch.linalg.matrix_norm(square, keepdim=True) ** 0.25  # a bound
    return (angle / (math.pi / 2)).clamp_min(1).log2().ceil()


def _polynomial(
    row: Sequence[float], powers: Sequence[Tensor], fourth: Tensor
) -> Tensor:
    """Return the polynomial of twelve coefficients, by two products."""
    low, middle, high = (
        _combined(part, powers) for part in (row[:4], row[4:8], row[8:])
    )
    return low + fourth @ (middle + fourth @ high)


def _combined(row: Sequence[float], powers: Sequence[Tensor]) -> Tensor:
    total = row[0] * powers[0]
    for c, P in zip(row[1:], powers[1:], strict=True):
        total = torch.add(total, P, alpha=c)
    return total


def _identity(G: Tensor) -> Tensor:
    return torch.eye(G.shape[-1], dtype=G.dtype, device=G.device).expand_as(G)
