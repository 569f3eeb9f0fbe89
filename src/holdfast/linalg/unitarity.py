"""What rounding leaves of unitary matrices, some of them given as I + D."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .inverse import random_signs
from .precision import cast_all
from .products import add_product
from .tracing import recorded

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# From this size on a value is looked at, and may be off by so many roundings.
_SIZE, _ROUNDINGS = 64, 25.0

# That many show after two steps of the power method, or three for more than so many
# columns, of which a start has less.
_SEEN, _MORE = 18.0, 128


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


def settled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a function do it again in double precision where rounding errors added up.

    They do where a matrix has structure, as blocks of equal entries, in a few
    directions, which the power method finds from any start.

    Args:
        function: its first result is unitary, or its columns are.
    """

    @functools.wraps(function)
    def computed(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        found = function(*args, **kwargs)
        Q = _first(found)
        if not _far_from_unitary(Q):
            return found
        wide = torch.complex128 if Q.is_complex() else torch.float64
        again = function(*cast_all(args, (Q.dtype,), wide), **kwargs)
        return cast_all(again, (wide,), Q.dtype)

    return computed


def _first(found: Any) -> Tensor:  # noqa: ANN401
    return found[0] if isinstance(found, tuple) else found


def _far_from_unitary(Q: Tensor) -> bool:
    """Tell it of a large matrix in single precision, where a look is cheap."""
    if Q.shape[-1] <= _SIZE or Q.dtype not in (torch.float32, torch.complex64):
        return False
    if Q.device.type != "cpu" or recorded(Q):
        return False
    x = before = random_signs(Q.shape[-1], 1, Q.dtype).expand(*Q.shape[:-2], -1, -1)
    for _ in range(2 if Q.shape[-1] <= _MORE else 3):
        before, x = x, add_product(x, Q.mH, Q @ x, beta=-1)
    limit = _SEEN * torch.finfo(Q.dtype).eps * torch.linalg.vector_norm(before, dim=-2)
    return bool((torch.linalg.vector_norm(x, dim=-2) > limit).any())
