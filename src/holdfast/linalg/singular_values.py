"""The largest singular value, and matrices with singular values in an interval."""

from __future__ import annotations

import torch
from torch import Tensor

from .cayley import cayley_transform_lower
from .precision import double
from .structure import tall
from .thin import thin_cayley_lower


def largest_singular_value(X: Tensor) -> Tensor:
    r"""Return the spectral norm of each matrix, from an eigenvalue of the smaller Gram.

    The largest is as exact there as by a decomposition of X, and its derivative finite
    where it is multiple, and zero at zero; the second one is not finite where singular
    values meet. Without entries it is zero. Computed in double precision.

    Shape: ``(*batch, n, k) -> (*batch)``, real.

    Example:
        >>> import torch
        >>> largest_singular_value(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
        tensor(4.)
    """
    if 0 in X.shape[-2:]:
        return X.real.new_zeros(X.shape[:-2])
    W = double(tall(X))
    # the unit of measurement is a constant: so that no square over- or underflows
    unit = W.detach().abs().amax((-2, -1), keepdim=True)
    W = W / torch.where(unit > 0, unit, 1)
    # with the vectors, which the gradient needs, so that reads without one are the same
    square = torch.linalg.eigh(W.mH @ W)[0][..., -1]
    norm = torch.where(square > 0, square, 1).sqrt()
    norm = torch.where(square > 0, norm, 0) * unit.squeeze(-1).squeeze(-1)
    return norm.to(X.real.dtype)


def interval_factors(
    X: Tensor, signs: Tensor, right: Tensor, *, low: float, high: float
) -> Tensor:
    r"""Return :math:`U \,\mathrm{diag}(s)\, V^H` with s between ``low`` and ``high``.

    U has its thin Cayley coordinates below the diagonal of X, with the signs of its
    columns given, and V its Cayley coordinates above it, around a base point. Of a real
    diagonal x, or the real part of a complex one, :math:`s = m + r \sin(x / r)` with m
    the middle of the interval and r half its length.

    Shape: ``(*batch, n, k), (*batch, k), (*batch, k, k) -> (*batch, n, k)``, n >= k.

    Example:
        >>> import torch
        >>> interval_factors(
        ...     torch.zeros(2, 2), torch.ones(2), torch.eye(2), low=1.0, high=3.0
        ... )
        tensor([[2., 0.],
                [0., 2.]])
    """
    k = X.shape[-1]
    U = thin_cayley_lower(X, signs)
    above = X[..., :k, :]
    # the imaginary part of a complex diagonal has turned U already
    V = cayley_transform_lower((above.triu(1) if X.is_complex() else above).mH, right)
    middle, radius = (low + high) / 2, (high - low) / 2
    x = X.diagonal(dim1=-2, dim2=-1).real
    s = middle + radius * torch.sin(x / radius) if radius else torch.full_like(x, low)
    return (U * s.unsqueeze(-2)) @ V.mH


def interval_coordinate(s: Tensor, eps: float, *, low: float, high: float) -> Tensor:
    r"""Return :math:`r \arcsin((s - m) / r)`, inside of the ends by ``eps`` of r.

    Example:
        >>> import torch
        >>> interval_coordinate(torch.tensor([2.0, 3.0]), 1e-7, low=1.0, high=3.0)
        tensor([0.0000, 1.5703])
    """
    middle, radius = (low + high) / 2, (high - low) / 2
    if not radius:
        return torch.zeros_like(s)
    place = ((s - middle) / radius).clamp(eps - 1, 1 - eps)
    return radius * torch.asin(place)
