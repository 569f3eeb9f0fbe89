r"""Products by oneDNN, where those of torch leave half of the processor idle.

Note [Registers]
    Torch multiplies matrices in float32 with MKL, which computes with 256 bits on the
    processors of AMD, also where they have 512. oneDNN, which is in torch as well, for
    compiled linear layers, uses all of them: on a Zen 5 it takes 0.6 of MKL's time from
    192 x 192 on, and half from 384 x 384 on. Smaller products gain less than the change
    from one library to the other costs.

    It would add along the whole of the inner dimension, and its rounding errors exceed
    MKL's by 1.7 at length 512. So it gets pieces of the length that MKL adds at once,
    each added to the sum of those before: then the errors are the same.

    The right factor has to be dense, or the transpose of what is: for a part of a
    matrix oneDNN has but a loop, which takes a thousand times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .memory import keep_freed_memory
from .precision import PROCESSOR
from .tracing import linear_pointwise, traced

# As far along the inner dimension as MKL adds at once.
_PIECE = 192

# So many multiplications are worth it, in a piece.
_LEAST = 8 * 10**6


def _half_idle() -> bool:
    """Tell whether the processor has registers that MKL does not use."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    name = str(PROCESSOR.get("cpu_name", ""))
    return name.startswith("AMD") and bool(PROCESSOR.get("avx512_f"))


_HALF_IDLE = _half_idle()


def quicker(A: Tensor, B: Tensor) -> bool:
    """Tell whether oneDNN is to multiply matrices. See Note [Registers].

    It records no derivatives.

    Example:
        >>> import torch
        >>> quicker(torch.ones(2, 2), torch.ones(2, 2))
        False
    """
    if not _HALF_IDLE or A.numel() * B.shape[-1] < _LEAST:  # small ones pay for this
        return False
    if A.ndim != B.ndim or A.ndim not in (2, 3):
        return False
    *batch, rows, inner = A.shape
    return (
        rows * min(inner, _PIECE) * B.shape[-1] >= _LEAST
        and A.dtype == B.dtype == torch.float32
        and A.device.type == "cpu"
        and batch == [*B.shape[:-2]] != [0]
        and torch.backends.mkldnn.enabled
        and not torch.is_grad_enabled()
        and not (traced(A) or traced(B))
    )


def sum_of_products(C: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
    """Return C + A B in new memory.

    Shape: ``(*batch, n, m), (*batch, n, k), (*batch, k, m) -> (*batch, n, m)``, for one
    batch dimension at most.

    Example:
        >>> import torch
        >>> torch.backends.mkldnn.is_available()
        True
        >>> sum_of_products(None, torch.eye(2), torch.ones(2, 2))
        tensor([[1., 1.],
                [1., 1.]])
    """
    C = None if C is None else C.expand(*A.shape[:-1], B.shape[-1])
    if A.ndim == 3:
        Cs = [None] * len(A) if C is None else C
        each = zip(Cs, A, B, strict=True)
        return torch.stack([sum_of_products(*matrices) for matrices in each])
    keep_freed_memory()  # every piece has a sum of its own
    total, inner = C, A.shape[-1]
    length = -(-inner // -(-inner // _PIECE))
    for start in range(0, inner, length):
        piece = slice(start, start + length)
        right = B[piece].mT
        if not (right.is_contiguous() or right.mT.is_contiguous()):
            right = right.contiguous()
        total = linear_pointwise(A[:, piece], right, total)
    assert total is not None
    return total
