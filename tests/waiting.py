"""What makes the host wait for a CUDA device, and what does not, with the reasons.

The names are those of torch's operations, as a dispatch mode sees them. An example
takes a square symmetric matrix on the device. `test_no_host_sync.py` runs the examples,
on a real device where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Operation(NamedTuple):
    """Why an operation waits, or why not; and an example."""

    reason: str
    example: Callable[[Tensor], object]


# The shape of the result depends on values, and memory is the host's to give.
_SIZE = "How large the result is depends on the values."
_INFO = "Whether it failed stands on the device, and the host asks."

WAITING = {
    "_local_scalar_dense": Operation(
        "A number is read: item(), float(), bool(), `if` and `while`.",
        lambda X: X.sum().item(),
    ),
    "equal": Operation("A truth value is read.", lambda X: torch.equal(X, X)),
    "nonzero": Operation(_SIZE, lambda X: X.nonzero()),
    "masked_select": Operation(_SIZE, lambda X: X.masked_select(X > 0)),
    "_unique2": Operation(_SIZE, torch.unique),
    "unique_dim": Operation(_SIZE, lambda X: torch.unique(X, dim=0)),
    "unique_consecutive": Operation(_SIZE, torch.unique_consecutive),
    "repeat_interleave": Operation(
        _SIZE, lambda X: torch.repeat_interleave((X[0] > 0).long())
    ),
    "bincount": Operation(_SIZE, lambda X: torch.bincount((X[0] > 0).long())),
    "_linalg_check_errors": Operation(_INFO, torch.linalg.inv),
    "_linalg_eigh": Operation(_INFO, torch.linalg.eigh),
    "_linalg_svd": Operation(_INFO, torch.linalg.svd),
    "linalg_eig": Operation(_INFO, torch.linalg.eig),
    "linalg_matrix_exp": Operation(
        "The host reads the norm and chooses a polynomial.", torch.linalg.matrix_exp
    ),
}

# With a mask in the place of an index: `X[X > 0]`
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")

# Torch asks nothing after these, but cuSOLVER and MAGMA, which compute them, may wait
# inside, and nobody promises that they can be captured.
UNCERTAIN = (
    "linalg_inv_ex",
    "_linalg_solve_ex",
    "linalg_lu",
    "linalg_lu_factor_ex",
    "linalg_lu_solve",
    "_linalg_det",
    "_linalg_slogdet",
    "linalg_cholesky_ex",
    "cholesky_inverse",
    "cholesky_solve",
    "linalg_ldl_factor_ex",
    "linalg_ldl_solve",
    "linalg_lstsq",
    "geqrf",
    "linalg_qr",
    "linalg_householder_product",
    "ormqr",
)

FREE = {
    "products": Operation("cuBLAS only enqueues.", lambda X: torch.addmm(X, X, X.mH)),
    "batched": Operation("The same.", lambda X: torch.baddbmm(X[None], *[X[None]] * 2)),
    "triangular": Operation(
        "cuBLAS has it, and nothing can fail.",
        lambda X: torch.linalg.solve_triangular(X.triu(), X, upper=True),
    ),
    "norms": Operation("A reduction.", lambda X: torch.linalg.matrix_norm(X)),
    "largest": Operation("A reduction.", lambda X: X.abs().amax((-2, -1))),
    "selection": Operation("As many as asked for.", lambda X: X.topk(2).indices),
    "sorting": Operation("As many as there are.", lambda X: X.argsort(-1)),
    "where": Operation(
        "The number is made on the device.", lambda X: torch.where(X > 0, X, 0)
    ),
    "filling": Operation(
        "The number goes along with the call.", lambda X: X.masked_fill(X > 0, 0)
    ),
    "numbers": Operation("The same.", lambda X: 0.5 ** (2 * X - 1).clamp(-1, 1)),
    "new ones": Operation(
        "Made on the device.",
        lambda X: X + torch.eye(len(X), device=X.device) + X.new_zeros(()),
    ),
    "ranges": Operation(
        "Made on the device.", lambda X: torch.arange(len(X), device=X.device) < 2
    ),
    "diagonals": Operation("A view.", lambda X: X.clone().diagonal().add_(1.0)),
    "copies": Operation("From there to there.", lambda X: X.clone().copy_(X.mT)),
}
