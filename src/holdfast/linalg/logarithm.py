"""Logarithms of orthogonal, unitary and definite matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from .cayley import cayley_inverse
from .structure import require_square


def signed_logarithm(W: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Return a skew A and signs D with ``matrix_exponential(A) * D == W``.

    They exist for every orthogonal W. The Cayley coordinates of U = W D are normal,
    :math:`V \mathrm{diag}(ia) V^H`, and an eigenvalue :math:`e^{i\theta}` of U has
    :math:`a = 2 \tan(\theta/2)` there. So

    .. math::
        \log U = V \mathrm{diag}(2i \arctan(a/2)) V^H,

    by one Hermitian eigendecomposition. The signs keep every :math:`\theta` away from
    :math:`\pi`, where the logarithm of a real matrix would not be real.

    Shape: ``(*batch, n, n), (*batch, n) -> (*batch, n, n), (*batch, n)``.

    Example:
        >>> import torch
        >>> A, signs = signed_logarithm(-torch.eye(3))
        >>> signs, float(A.norm())
        (tensor([-1, -1, -1], dtype=torch.int8), 0.0)
    """
    coordinates, signs = cayley_inverse(W, signs)
    a, V = torch.linalg.eigh(-1j * coordinates)
    A = (V * (2j * torch.atan(a / 2)).unsqueeze(-2)) @ V.mH
    A = (A - A.mH) / 2
    return (A if W.is_complex() else A.real), signs


def symmetric_logarithm(W: Tensor, floor: float = 0.0) -> Tensor:
    r"""Return the symmetric logarithm of a symmetric positive definite matrix.

    Args:
        W: the matrix, or a batch.
        floor: eigenvalues count as at least ``floor`` times the largest one.

    Example:
        >>> import torch
        >>> symmetric_logarithm(torch.eye(2))
        tensor([[0., 0.],
                [0., 0.]])
    """
    require_square(W)
    values, V = torch.linalg.eigh((W + W.mH) / 2)
    values = torch.maximum(values, floor * values[..., -1:])
    A = (V * values.log().unsqueeze(-2)) @ V.mH
    return (A + A.mH) / 2
