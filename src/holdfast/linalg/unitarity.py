"""What rounding leaves of unitary matrices, given as I + D."""

from __future__ import annotations

import torch
from torch import Tensor

from .products import add_product

# From this size on a value is looked at, and may be off by so many roundings.
_SIZE, _ROUNDINGS = 64, 25.0


def repaired(D: Tensor) -> Tensor:
    """Return D such that I + D is unitary to rounding again, by a step of Newton's."""
    off = add_product(D + D.mH, D.mH, D)  # of (I + D)^H (I + D) from I
    return add_product(D.sub(off, alpha=0.5), D, off, alpha=-0.5)


def rounded_alike(D: Tensor, A: Tensor) -> bool:
    """Tell whether equal entries of A were rounded alike, and the errors added up.

    They do in the directions of its long rows. For other matrices it is a tenth.
    """
    if A.shape[-1] < _SIZE:
        return False
    u = torch.linalg.vector_norm(A, dim=-1, keepdim=True).to(A.dtype)
    moved = add_product(u, D, u)
    off = add_product(moved - u, D.mH, moved)  # of (I + D)^H (I + D) u from u
    sizes = torch.linalg.vector_norm(off, dim=-2)
    limit = _ROUNDINGS * torch.finfo(A.dtype).eps
    return bool((sizes > limit * torch.linalg.vector_norm(u, dim=-2)).any())
