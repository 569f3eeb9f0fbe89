"""The matrix exponential, and its inverses on O(n) and on the definite matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from .cayley import cayley_inverse
from .precision import double
from .structure import require_square


def matrix_exponential(A: Tensor) -> Tensor:
    r"""Return :math:`\exp(A) = \sum_j A^j / j!`.

    Note [A batch of two]
        For a single matrix of norm about 0.05 to 0.6 (0.0003 to 0.05 in double
        precision), `torch.matrix_exp` evaluates a polynomial of degree 8 with a wrong
        coefficient, which is right to order 4 only (pytorch #196592). Batches always
        take another polynomial, so a single matrix goes there as a batch of two.

        Single precision is computed in double, which costs as much: the rounding of
        some squarings would show in the fifth digit for n = 64, whereas the wrong
        coefficient is off by at most 3e-10, and vanishes in the cast.

    Example:
        >>> import torch
        >>> matrix_exponential(torch.zeros(2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    require_square(A)
    wide = double(A)
    if wide.dtype != A.dtype:
        return torch.matrix_exp(wide).to(A.dtype)
    if A.numel() == A.shape[-1] ** 2:
        return torch.matrix_exp(torch.stack([A, A]))[0]
    return torch.matrix_exp(A)


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
