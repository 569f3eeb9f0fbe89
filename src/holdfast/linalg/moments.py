r"""Upper bounds on the norm of skew matrices, from traces of their powers.

Note [Bounds]
    Let x be the squared singular values of a skew A, each pair of a real one counted
    once, and :math:`S_k = \sum x^k`. Inner products of powers of A give them at the
    price of a pass. If M is one of the x, the others have the sums
    :math:`S_k - M^k`, to which Cauchy's inequality applies:

    .. math::
        M^k (S_{k+2} - 2 M S_{k+1} + M^2 S_k) \le S_k S_{k+2} - S_{k+1}^2.

    The left side grows from the mean :math:`S_{k+1} / S_k` on, below which the largest
    x cannot be. So if it is too large for some M there, all x are less. For a random
    matrix of size 512 this bound is 1.4 times the norm for k = 1 and 1.2 times for
    k = 2, where the roots of :math:`S_2`, :math:`S_3` and :math:`S_4` are 2.1, 1.6 and
    1.4 times as large. The root of :math:`S_2` takes the fewest operations, and is
    enough for the small norms that coordinates around a base have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# What rounding may do to the differences of products of moments, and more than that.
_SLACK = 1e-4

Number = float | Tensor


class Moments(NamedTuple):
    """Three moments; numbers for one matrix, tensors for batches. See Note [Bounds]."""

    k: int
    sums: tuple[Number, Number, Number]


def second_moment(square: Tensor) -> Number:
    """Return what no fourth power of a singular value is above, from A²."""
    return _inner(square, square) / _pair(square)


def moments(square: Tensor, second: Number) -> Moments:
    """Return the moments that A² gives, one of which is known."""
    pair = _pair(square)
    trace = square.detach().diagonal(dim1=-2, dim2=-1).sum(-1).real  # of -A^H A
    return Moments(0, (square.shape[-1] / pair, -_number(trace) / pair, second))


def higher(known: Moments, basis: Sequence[Tensor], row: Sequence[float]) -> Moments:
    """Return the highest moments that a larger basis gives.

    Args:
        known: those of the first two.
        basis: A and A², then A³ and maybe A⁶, or else a combination of A³ and A⁴.
        row: the coefficients of that.
    """
    (_, first, second), pair = known.sums, _pair(basis[0])
    third = _inner(basis[2], basis[2]) / pair
    if len(basis) == 4:
        return Moments(2, (second, third, _inner(basis[1], basis[3]) / pair))
    if len(row) == 1:
        return Moments(1, (first, second, third))
    mixed, (c, d) = third, row
    third = -_inner(basis[1], basis[2]) / (d * pair)
    return Moments(2, (second, third, (mixed - c * c * third) / (d * d)))


def _pair(A: Tensor) -> int:
    """Return how often each singular value counts."""
    return 1 if A.is_complex() else 2


def within(moments: Moments, limit: Number) -> Tensor | bool:
    """Tell for which matrices the norm is surely no larger; not for NaN."""
    k, (low, middle, high) = moments
    M = limit * limit
    far = M**k * (high - 2 * M * middle + M * M * low)
    spread = (1 + _SLACK) * low * high - middle * middle
    return (low * M >= middle) & (far >= spread)  # pyright: ignore


def bound(power: Tensor, degree: int) -> Tensor:
    """Return an upper bound on the spectral norm of a skew A, from a power of it.

    The singular values of a real A come in pairs, so that ``2 s^(2k) <= ||A^k||_F^2``.
    """
    norm = torch.linalg.vector_norm(power.detach(), dim=(-2, -1))
    if not power.is_complex():
        norm = norm / math.sqrt(2)
    return norm.sqrt() if degree == 2 else norm.pow(1 / degree)


def _inner(X: Tensor, Y: Tensor) -> Number:
    """Return the real part of the inner product."""
    if X.ndim > 2 and X is Y:  # in one pass
        return _number(torch.linalg.vector_norm(X.detach(), dim=(-2, -1))) ** 2
    X, Y = X.detach().flatten(-2), Y.detach().flatten(-2)
    return _number(torch.linalg.vecdot(X, Y).real)


def _number(x: Tensor) -> Number:
    return x.item() if x.ndim == 0 else x.double()
