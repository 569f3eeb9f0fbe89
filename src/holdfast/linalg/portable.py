"""What LAPACK is asked for otherwise, by products alone.

ONNX has no inverse, no triangular solve and no exponential of matrices. While a model
is exported to it (`tracing.exported_to_onnx`) these take their places: more products,
the same for all values, in double precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import double
from .products import scaled_product

# exp(A) = exp(A / 2^s)^(2^s): for norms up to 1000, as where operations are recorded,
# the Taylor polynomial of this degree is exact in double precision.
_SQUARINGS, _DEGREE = 10, 18


def portable_exponential(A: Tensor) -> Tensor:
    r"""Return :math:`\exp(A)` for norms up to 1000, by 28 products.

    Example:
        >>> import torch
        >>> portable_exponential(torch.tensor([[0.0, torch.pi], [0.0, 0.0]]))
        tensor([[1.0000, 3.1416],
                [0.0000, 1.0000]])

    References:
        Moler and Van Loan, Nineteen Dubious Ways to Compute the Exponential of a
        Matrix, 2003, https://doi.org/10.1137/S00361445024180
    """
    small = double(A) / 2**_SQUARINGS
    identity = torch.eye(A.shape[-1], dtype=small.dtype, device=A.device)
    E = small / _DEGREE  # exp - I, whose squares keep the digits of small entries
    for j in range(_DEGREE - 1, 0, -1):
        E = small @ (identity + E) / j
    for _ in range(_SQUARINGS):
        E = E @ E + 2 * E
    return (identity + E).to(A.dtype)


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
