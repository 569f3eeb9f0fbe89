"""Fused products: what is scaled and added costs no pass of its own, or a cheap one.

Large matrices go through oneDNN where that is quicker. See Note [Registers] in
`linalg/onednn.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .onednn import quicker, sum_of_products

# Below this size a batch is multiplied faster beside a part of a tensor than in it.
_APART = 128


def product(A: Tensor, B: Tensor) -> Tensor:
    r"""Return :math:`A B`.

    Shape: ``(*batch, n, k), (*batch, k, m) -> (*batch, n, m)``.

    Example:
        >>> import torch
        >>> product(torch.eye(2), torch.ones(2, 1))
        tensor([[1.],
                [1.]])
    """
    return sum_of_products(None, A, B) if quicker(A, B) else A @ B


def add_product(
    C: Tensor, A: Tensor, B: Tensor, *, alpha: float = 1, beta: float = 1
) -> Tensor:
    r"""Return :math:`\beta C + \alpha A B`, in one pass.

    C has to be finite for beta = 0 as well: `vmap` reads it.

    Shape: ``(*batch, n, m), (*batch, n, k), (*batch, k, m) -> (*batch, n, m)``.

    Example:
        >>> import torch
        >>> add_product(torch.eye(2), torch.ones(2, 1), torch.ones(1, 2), alpha=2)
        tensor([[3., 2.],
                [2., 3.]])
    """
    if quicker(A, B):
        if alpha == beta == 1:
            return sum_of_products(C, A, B)
        P = sum_of_products(None, A, B).mul_(alpha)
        return P if beta == 0 else P.add_(C, alpha=beta)
    if A.ndim == 2:
        return torch.addmm(C, A, B, alpha=alpha, beta=beta)
    if A.ndim == 3:
        return torch.baddbmm(C, A, B, alpha=alpha, beta=beta)
    # not flattened: torch lacks batches of that, and forward derivatives if conjugated
    P = alpha * (A @ B)
    return P if beta == 0 else P + beta * C


def scaled_product(A: Tensor, B: Tensor, alpha: float) -> Tensor:
    r"""Return :math:`\alpha A B`, in one pass.

    Example:
        >>> import torch
        >>> scaled_product(torch.eye(2), torch.eye(2), -1.0)
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """
    # not empty: `vmap` reads it, and 0 times what is left in memory may be NaN
    nothing = A.new_zeros(()).expand(*A.shape[:-1], B.shape[-1])
    return add_product(nothing, A, B, alpha=alpha, beta=0)


def accumulate_product(
    C: Tensor, A: Tensor, B: Tensor, *, alpha: float = 1, beta: float = 1
) -> Tensor:
    r"""Return :math:`\beta C + \alpha A B`, over C itself where no graph is recorded.

    For a C that the caller has just made, of which every batch of A and B is a batch.

    Example:
        >>> import torch
        >>> accumulate_product(torch.eye(2), torch.ones(2, 1), torch.ones(1, 2))
        tensor([[2., 1.],
                [1., 2.]])
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or C.ndim > 3:
        return add_product(C, A, B, alpha=alpha, beta=beta)
    if alpha == beta == 1 and quicker(A, B):
        return sum_of_products(C, A, B)
    product_into(C, A, B, alpha=alpha, beta=beta)
    return C


def product_into(
    C: Tensor, A: Tensor, B: Tensor, *, alpha: float = 1, beta: float = 0
) -> None:
    r"""Write :math:`\beta C + \alpha A B` into C, which may be a part of a tensor.

    Without derivatives, for no more than one batch dimension.

    Example:
        >>> import torch
        >>> C = torch.zeros(2, 2)
        >>> product_into(C[:, :1], torch.ones(2, 1), torch.ones(1, 1))
        >>> C
        tensor([[1., 0.],
                [1., 0.]])
    """
    # rows that are apart torch multiplies one by one, and oneDNN takes a pass over
    beside = quicker(A, B) if C.is_contiguous() else C.ndim > 2 and C.shape[-1] < _APART
    if beside:
        C.copy_(add_product(C, A, B, alpha=alpha, beta=beta))
        return
    into = C.addmm_ if C.ndim == 2 else C.baddbmm_
    into(A, B, alpha=alpha, beta=beta)


def add_to_diagonal(X: Tensor, values: Tensor | float, alpha: float = 1) -> Tensor:
    """Return X with alpha times the values added to its diagonal, over X itself.

    Without derivatives.

    Example:
        >>> import torch
        >>> add_to_diagonal(torch.zeros(2, 2), 1.0)
        tensor([[1., 0.],
                [0., 1.]])
    """
    if not torch.compiler.is_compiling():
        X.diagonal(dim1=-2, dim2=-1).add_(values, alpha=alpha)
        return X
    # the compiler warns of its own code for diagonals
    identity = torch.eye(*X.shape[-2:], dtype=X.dtype, device=X.device)
    return X + alpha * identity * (
        values.unsqueeze(-2) if isinstance(values, Tensor) else values
    )
