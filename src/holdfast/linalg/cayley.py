r"""The Cayley transform, and its inverse on all of O(n).

Note [Signs]
    The transform reaches no orthogonal matrix with an eigenvalue -1, so none of
    determinant -1. But every orthogonal W is U D, with D diagonal of entries +-1 and
    U + I well conditioned (Kahan 2006). D is found while W is eliminated: d_j gets the
    sign of the j-th pivot and is added to it, as LAPACK's `orhr_col` does, so that
    every pivot has modulus >= 1. What is eliminated is W + D = (U + I) D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .structure import require_square

# Half coordinates above this size cost digits in float32; fresh signs make them small.
_LARGEST = 4.0


def cayley_transform(A: Tensor) -> Tensor:
    r"""Return :math:`(I - A/2)^{-1} (I + A/2)`, orthogonal for a skew ``A``.

    It is unitary for a skew-Hermitian one.

    Example:
        >>> import torch
        >>> cayley_transform(torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    require_square(A)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.linalg.solve(identity - A / 2, identity + A / 2)


def cayley_signs(W: Tensor) -> Tensor:
    """Return the entries +-1 of a D such that W D has no eigenvalue near -1.

    Shape: ``(*batch, n, n) -> (*batch, n)``, int8. See Note [Signs].

    Example:
        >>> import torch
        >>> cayley_signs(-torch.eye(3))
        tensor([-1, -1, -1], dtype=torch.int8)
    """
    require_square(W)
    rest, signs = W, []
    for _ in range(W.shape[-1]):
        sign = torch.where(rest[..., 0, 0].real < 0, -1, 1)
        pivot = rest[..., 0, 0] + sign
        row, column = rest[..., 0, 1:], rest[..., 1:, 0] / pivot.unsqueeze(-1)
        rest = rest[..., 1:, 1:] - column.unsqueeze(-1) * row.unsqueeze(-2)
        signs.append(sign)
    return torch.stack(signs, -1).to(torch.int8)


def cayley_inverse(W: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return a skew A and signs D with ``cayley_transform(A) * D == W``.

    They exist for every orthogonal W. The given signs are kept wherever W can be
    reached comfortably with them.

    Shape: ``(*batch, n, n), (*batch, n) -> (*batch, n, n), (*batch, n)``.

    Example:
        >>> import torch
        >>> A, signs = cayley_inverse(torch.diag(torch.tensor([1.0, -1.0])))
        >>> signs
        tensor([ 1, -1], dtype=torch.int8)
    """
    fresh = cayley_signs(W)
    if signs is None:
        signs = fresh
    else:
        size = _half_coordinates(W, signs).abs().amax((-2, -1))
        keep = size <= _LARGEST  # False for NaN
        signs = torch.where(keep.unsqueeze(-1), signs, fresh)
    half = _half_coordinates(W, signs)
    return half - half.mH, signs


def _half_coordinates(W: Tensor, signs: Tensor) -> Tensor:
    """Return (U + I)^{-1} (U - I) for U = W D; huge or NaN where U + I is singular."""
    U = W * signs.unsqueeze(-2)
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    return torch.linalg.solve_ex(U + identity, U - identity)[0]
