r"""Invertible matrices as products of factors whose determinants are plain.

Note [Sizes]
    A pivot or singular value :math:`\sigma > 0` has the coordinate
    :math:`s = \sigma - 1/\sigma`, so that :math:`\sigma = e^{\ell}` with
    :math:`\ell = \mathrm{arsinh}(s/2)`, which is :math:`(s + \sqrt{s^2 + 4})/2`, a
    softplus function with algebraic tails. It is positive and finite for every finite
    s, as is its logarithm, and the logarithm of the determinant is a sum of these.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .cayley import cayley_transform
from .gram_matrix import permutation_of, permuted_rows
from .structure import lower_skew


def log_size(s: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{arsinh}(s/2)`. See Note [Sizes].

    Example:
        >>> import torch
        >>> log_size(torch.tensor([0.0, 1.5]))
        tensor([0.0000, 0.6931])
    """
    return torch.asinh(s / 2)


def size_coordinate(size: Tensor) -> Tensor:
    r"""Return :math:`s = \sigma - 1/\sigma`.

    Example:
        >>> import torch
        >>> size_coordinate(torch.tensor([1.0, 2.0]))
        tensor([0.0000, 1.5000])
    """
    return size - size.reciprocal()


def with_unit_product(size: Tensor) -> Tensor:
    """Return sizes with the smallest one changed so that their product is one.

    That changes a matrix the least: it may have lost the determinant to rounding.

    Example:
        >>> import torch
        >>> with_unit_product(torch.tensor([4.0, 0.5]))
        tensor([4.0000, 0.2500])
    """
    logs = size.log()
    place = torch.arange(size.shape[-1], device=size.device)
    smallest = place == logs.argmin(-1, keepdim=True)
    return torch.where(smallest, logs - logs.sum(-1, keepdim=True), logs).exp()


def _centered(x: Tensor, unit: bool) -> Tensor:  # noqa: FBT001
    return x - x.mean(-1, keepdim=True) if unit else x


def pivots(s: Tensor, signs: Tensor, *, unit: bool) -> Tensor:
    """Return the pivots with coordinates s: sizes by real parts, phases by imaginary.

    Args:
        s: the coordinates, ``(*batch, n)``.
        signs: what the pivots are multiplied with.
        unit: divide by the geometric mean, so that the product is that of the signs.

    Example:
        >>> import torch
        >>> pivots(torch.tensor([0.0, 1.5]), torch.tensor([1, -1]), unit=False)
        tensor([ 1., -2.])
    """
    size = _centered(log_size(s.real), unit).exp()
    if s.is_complex():
        phase = _centered(s.imag, unit)
        size = torch.complex(size * phase.cos(), size * phase.sin())
    return size * signs


def plu(X: Tensor, permutation: Tensor, signs: Tensor, *, unit: bool) -> Tensor:
    r"""Return P L U for a permutation P, unit lower L and upper U.

    L is below the diagonal of X, and U above it, with `pivots` of its diagonal.

    Shape: ``(*batch, n, n), (*batch, n), (*batch, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> X = torch.tensor([[0.0, 5.0], [2.0, 0.0]])
        >>> plu(X, torch.tensor([1, 0]), torch.tensor([1, 1]), unit=False)
        tensor([[ 2., 11.],
                [ 1.,  5.]])
    """
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    d = pivots(X.diagonal(dim1=-2, dim2=-1), signs, unit=unit)
    L, U = X.tril(-1) + identity, X.triu(1) + torch.diag_embed(d)
    return permuted_rows(L, permutation) @ U


def plu_inverse(W: Tensor, *, unit: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates, the permutation and the signs of `plu`.

    Example:
        >>> import torch
        >>> W = torch.tensor([[2.0, 11.0], [1.0, 5.0]])
        >>> X, *buffers = plu_inverse(W, unit=False)
        >>> torch.dist(plu(X, *buffers, unit=False), W) < 1e-6
        tensor(True)
    """
    P, L, U = torch.linalg.lu(W)
    d = U.diagonal(dim1=-2, dim2=-1)
    size = d.abs().clamp_min(torch.finfo(W.dtype).tiny)
    signs = torch.ones_like(size, dtype=torch.int8)
    s = size_coordinate(with_unit_product(size) if unit else size)
    if W.is_complex():
        if unit:
            signs[..., 0] = torch.linalg.det(P).real.round().to(torch.int8)
        phase = (d * signs).angle()
        if unit:  # their sum has to be zero, not just a multiple of a full turn
            turns = (phase.sum(-1) / (2 * math.pi)).round() * 2 * math.pi
            first, rest = phase.split([1, phase.shape[-1] - 1], -1)
            phase = torch.cat([first - turns.unsqueeze(-1), rest], -1)
        s = torch.complex(s, phase)
    else:
        signs = torch.where(d < 0, -signs, signs)
    X = L.tril(-1) + U.triu(1) + torch.diag_embed(s)
    return X, permutation_of(P), signs


def singular_factors(X: Tensor, left: Tensor, right: Tensor, *, unit: bool) -> Tensor:
    r"""Return :math:`U \Sigma V^H` with U and V around base points.

    U has its Cayley coordinates below the diagonal of X, and V above it; the diagonal
    has the coordinates of the singular values. A complex diagonal turns U as well.

    Shape: ``(*batch, n, n), (*batch, n, n), (*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> X, I = torch.diag(torch.tensor([0.0, 1.5])), torch.eye(2)
        >>> singular_factors(X, I, I, unit=False)
        tensor([[1., 0.],
                [0., 2.]])
    """
    U = cayley_transform(lower_skew(X), left)
    V = cayley_transform(lower_skew(X.triu(1).mH), right)
    s = X.diagonal(dim1=-2, dim2=-1).real
    size = _centered(log_size(s), unit).exp()
    return (U * size.unsqueeze(-2)) @ V.mH
