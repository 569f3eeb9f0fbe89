"""From which residual on a tensor counts as outside a set: one rule for everything."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# Backward-stable algorithms leave a few roundings per entry of a row, which add up like
# a random walk. The factor leaves room for exponentials of large matrices.
_ROUNDINGS = 16.0

# A small matrix may still be the exponential of a large one.
_SMALLEST = 16

# A half-precision tensor is computed in float32 and rounded once, at the end.
_HALF_ROUNDINGS = 4.0
_HALF_TYPES = (torch.float16, torch.bfloat16)

# The type that the tensors of an island are kept in, outside of it.
_KEPT = ContextVar[torch.dtype | None]("kept", default=None)


def tolerance(tensor: Tensor) -> float:
    r"""Return the relative residual up to which ``tensor`` counts as inside a set.

    .. math::
        16 \sqrt{\max(n, k, 16)}\ \varepsilon

    for an ``n x k`` matrix of single or double precision. Half-precision tensors are
    exact ones rounded once, so their threshold does not grow with the size: four
    roundings of their own, on top of the threshold of float32.

    Example:
        >>> import torch
        >>> f"{tolerance(torch.eye(64)):.1e}"
        '1.5e-05'
        >>> f"{tolerance(torch.eye(64, dtype=torch.bfloat16)):.1e}"
        '3.1e-02'
    """
    kept = _KEPT.get() or tensor.dtype
    return max(_tolerance(tensor, tensor.dtype), _tolerance(tensor, kept))


@contextmanager
def kept_in(dtype: torch.dtype) -> Generator[None]:
    """Judge tensors of a wider type as what they are: rounded to the given one.

    Example:
        >>> import torch
        >>> with kept_in(torch.float32):
        ...     print(f"{tolerance(torch.eye(2).double()):.1e}")
        7.6e-06
    """
    token = _KEPT.set(dtype)
    try:
        yield
    finally:
        _KEPT.reset(token)


def _tolerance(tensor: Tensor, dtype: torch.dtype) -> float:
    if not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    size = max((_SMALLEST, *tensor.shape[-2:]))
    if dtype in _HALF_TYPES:
        computed = _ROUNDINGS * math.sqrt(size) * torch.finfo(torch.float32).eps
        return computed + _HALF_ROUNDINGS * torch.finfo(dtype).eps
    return _ROUNDINGS * math.sqrt(size) * torch.finfo(dtype).eps
