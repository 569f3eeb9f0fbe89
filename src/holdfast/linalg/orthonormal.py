"""Orthonormal columns: how far from it, the cheap, and the missing ones.

All functions take tall or square matrices, ``(*batch, n, k)`` with n >= k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import full_precision
from .products import add_product


def orthogonality(Q: Tensor) -> Tensor:
    r"""Return :math:`\|Q^H Q - I\|_F / \sqrt{k}`, 0 for orthonormal columns.

    Example:
        >>> import torch
        >>> orthogonality(torch.eye(3, 2) * 2)
        tensor(3.)
    """
    k = Q.shape[-1]
    identity = torch.eye(k, dtype=Q.dtype, device=Q.device)
    return torch.linalg.matrix_norm(Q.mH @ Q - identity) / max(1, k) ** 0.5


@full_precision
def positive_qr(W: Tensor) -> Tensor:
    """Return the factor Q of W = Q R with a positive diagonal of R.

    It is W itself if the columns are orthonormal, and Haar distributed if the entries
    are independent and normal.

    Example:
        >>> import torch
        >>> positive_qr(torch.tensor([[0.0, -2.0], [3.0, 1.0]]))
        tensor([[ 0., -1.],
                [ 1.,  0.]])
    """
    Q, R = torch.linalg.qr(W)
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    phases = torch.where(diagonal == 0, 1, diagonal.sgn())  # rank deficient: keep Q
    return Q * phases.unsqueeze(-2) + 0.0  # no negative zeros


def polish(Q: Tensor, steps: int = 2) -> Tensor:
    """Return the nearest matrix with orthonormal columns, for a Q that almost is one.

    A step of Newton and Schulz makes a residual r its square; it takes two products.
    Written as a correction, its rounding errors are as small as that.

    Example:
        >>> import torch
        >>> Q = torch.eye(2, dtype=torch.float64) * 1.001
        >>> bool(orthogonality(polish(Q)) < 1e-10)
        True
    """
    identity = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    identity = identity.expand(*Q.shape[:-2], -1, -1)
    for _ in range(steps):
        Q = add_product(Q, Q, add_product(identity, Q.mH, Q, alpha=-1), alpha=0.5)
    return Q


def complete(Q: Tensor) -> Tensor:
    """Add columns to orthonormal ones until the matrix is square and orthogonal.

    The same Q always gets the same columns; no random numbers are drawn.

    Shape: ``(*batch, n, k) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> complete(torch.eye(3, 2)).abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    n, k = Q.shape[-2:]
    if n == k:
        return Q
    full = torch.linalg.qr(Q, mode="complete").Q
    return torch.cat([Q, full[..., k:]], -1)
