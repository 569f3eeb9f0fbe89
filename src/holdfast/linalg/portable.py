"""What torch or LAPACK is asked for otherwise, by products alone.

They are the same for all values. ONNX has no inverse, no triangular solve and no
exponential of matrices: while a model is exported to it (`tracing.exported_to_onnx`)
these take their places. On an accelerator torch's exponential makes the host wait,
which looks at the norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .precision import double
from .products import scaled_product

# exp(A) = exp(A / 2^s)^(2^s), by the Taylor polynomial of degree 16, in blocks of four
_SQUARINGS, _BLOCK, _BLOCKS = 11, 4, 4


def portable_exponential(A: Tensor) -> Tensor:
    r"""Return :math:`\exp(A)` for norms up to 1000, by 17 products in double precision.

    The polynomial is right to :math:`2 \cdot 10^{-17}` there, and to
    :math:`6 \cdot 10^{-12}` up to :math:`2^{11}`; what is larger gives NaN. As a norm
    counts the larger one of :math:`\|A^3\|^{1/3}` and :math:`\|A^4\|^{1/4}`, which for
    powers from the sixth on is as good as one.

    Example:
        >>> import torch
        >>> portable_exponential(torch.tensor([[0.0, torch.pi], [0.0, 0.0]]))
        tensor([[1.0000, 3.1416],
                [0.0000, 1.0000]])

    References:
        Paterson and Stockmeyer, On the Number of Nonscalar Multiplications Necessary
        to Evaluate Polynomials, 1973, https://doi.org/10.1137/0202007

        Al-Mohy and Higham, A New Scaling and Squaring Algorithm for the Matrix
        Exponential, 2009, https://doi.org/10.1137/09074721X
    """
    powers = [double(A) / 2**_SQUARINGS]
    for _ in range(1, _BLOCK):
        powers.append(powers[-1] @ powers[0])
    E = _block(powers, _BLOCKS - 1)  # exp - I, whose squares keep small entries' digits
    for place in range(_BLOCKS - 2, -1, -1):
        E = _block(powers, place) + powers[-1] @ E
    E = E.masked_fill(_size(powers) > 1, math.nan)
    for _ in range(_SQUARINGS):
        E = E @ E + 2 * E
    identity = torch.eye(A.shape[-1], dtype=E.dtype, device=A.device)
    return (identity + E).to(A.dtype)


def _block(powers: list[Tensor], place: int) -> Tensor:
    """Return the terms of four degrees, divided by the powers in front of them."""
    first = place * _BLOCK + 1
    total = powers[0] / math.factorial(first)
    for degree, power in enumerate(powers[1:], first + 1):
        total = total + power / math.factorial(degree)
    return total


def _size(powers: list[Tensor]) -> Tensor:
    third, fourth = (
        torch.linalg.matrix_norm(power.detach(), keepdim=True) for power in powers[2:]
    )
    return torch.maximum(third ** (1 / 3), fourth ** (1 / 4))


def portable_upper_inverse(S: Tensor) -> Tensor:
    """Return the inverse of an upper triangular matrix, by halves down to its entries.

    Example:
        >>> import torch
        >>> portable_upper_inverse(torch.tensor([[1.0, 2.0], [0.0, 4.0]]))
        tensor([[ 1.0000, -0.5000],
                [ 0.0000,  0.2500]])
    """
    return _upper_inverse(double(S)).to(S.dtype)


def _upper_inverse(S: Tensor) -> Tensor:
    n = S.shape[-1]
    if n < 2:
        return 1 / S
    h = n // 2
    P, T = _upper_inverse(S[..., :h, :h]), _upper_inverse(S[..., h:, h:])
    right = scaled_product(P, S[..., :h, h:] @ T, -1)
    lower = torch.zeros_like(S[..., h:, :h])
    return torch.cat([torch.cat([P, right], -1), torch.cat([lower, T], -1)], -2)
