"""Nearest points and random points of balls of p-norms, along the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from .rays import normalized, slice_norm
from .simplex import simplex_projection


def ball_projection(W: Tensor, p: float, radius: float) -> Tensor:
    r"""Return slices of p-norm at most ``radius``: the nearest for p = 1, 2, inf.

    For p = 1 what is outside is soft-thresholded, for p = inf clipped, and for all
    other p rescaled, which is the nearest one for p = 2 only.

    Example:
        >>> import torch
        >>> ball_projection(torch.tensor([3.0, -2.0]), 1.0, 2.0)
        tensor([ 1.5000, -0.5000])

    References:
        Duchi et al., Efficient Projections onto the l1-Ball, 2008,
        https://doi.org/10.1145/1390156.1390191
    """
    norm = slice_norm(W, p).to(W.real.dtype)
    outside = norm > radius
    if p == 1:
        moduli = radius * simplex_projection(W.abs() / radius)
        return torch.where(outside, torch.sgn(W) * moduli, W)
    if p == torch.inf:
        sizes = W.abs()
        return W * torch.where(sizes > radius, radius / sizes, 1)
    return W * torch.where(outside, radius / norm, 1)


def uniform_share(Z: Tensor) -> Tensor:
    """Return numbers uniform between 0 and 1, one for each slice of normal entries.

    They are independent of the directions of the slices.

    Shape: ``(*, n) -> (*, 1)``, in double precision.

    Example:
        >>> import torch
        >>> uniform_share(torch.ones(2))
        tensor([0.6321], dtype=torch.float64)
    """
    norm = slice_norm(Z)
    half = norm.new_full((), Z.shape[-1] / (1 if Z.is_complex() else 2))
    square = norm.square() if Z.is_complex() else norm.square() / 2
    return torch.special.gammainc(half, square)


def ball_sample(Z: Tensor, p: float, radius: float) -> Tensor:
    """Return random slices in a ball made of normal entries; uniform for p = 2.

    Example:
        >>> import torch
        >>> float(ball_sample(torch.randn(5), 1.0, 3.0).abs().sum()) <= 3
        True
    """
    entries = Z.shape[-1] * (2 if Z.is_complex() else 1)
    length = radius * uniform_share(Z).pow(1 / entries)
    direction = normalized(Z)
    return direction * (length / slice_norm(direction, p)).to(Z.real.dtype)
