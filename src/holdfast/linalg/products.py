"""Fused products: what is scaled and added costs no pass of its own."""

from __future__ import annotations

import torch
from torch import Tensor


def add_product(
    C: Tensor, A: Tensor, B: Tensor, *, alpha: float = 1, beta: float = 1
) -> Tensor:
    r"""Return :math:`\beta C + \alpha A B`, in one pass; C is not read for beta = 0.

    Shape: ``(*batch, n, m), (*batch, n, k), (*batch, k, m) -> (*batch, n, m)``.

    Example:
        >>> import torch
        >>> add_product(torch.eye(2), torch.ones(2, 1), torch.ones(1, 2), alpha=2)
        tensor([[3., 2.],
                [2., 3.]])
    """
    if A.ndim == 2:
        return torch.addmm(C, A, B, alpha=alpha, beta=beta)
    if A.ndim == 3:
        return torch.baddbmm(C, A, B, alpha=alpha, beta=beta)
    flat = [x.flatten(0, -3) for x in (C, A, B)]
    return torch.baddbmm(*flat, alpha=alpha, beta=beta).unflatten(0, A.shape[:-2])


def scaled_product(A: Tensor, B: Tensor, alpha: float) -> Tensor:
    r"""Return :math:`\alpha A B`, in one pass.

    Example:
        >>> import torch
        >>> scaled_product(torch.eye(2), torch.eye(2), -1.0)
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """
    nothing = A.new_empty(()).expand(*A.shape[:-1], B.shape[-1])
    return add_product(nothing, A, B, alpha=alpha, beta=0)
