"""In which precision to compute, whatever the tensors are stored in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_HALF_TYPES = (torch.float16, torch.bfloat16)
# as a table: `torch.compile` does not know `torch.dtype.to_complex`
_COMPLEX_TYPES = {
    torch.float16: torch.complex32,
    torch.float32: torch.complex64,
    torch.float64: torch.complex128,
}


def double(tensor: Tensor) -> Tensor:
    """Return the tensor in the widest type that its device computes in.

    For right inverses and projections: they run once per assignment, and what they
    lose is lost for good.

    Example:
        >>> import torch
        >>> double(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float64
    """
    if tensor.device.type == "mps":  # no float64 there
        return tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def cast(tensor: Tensor, real: torch.dtype) -> Tensor:
    """Return the tensor in a precision: a complex one in the complex type of it.

    Example:
        >>> import torch
        >>> cast(torch.zeros(2, dtype=torch.complex64), torch.float64).dtype
        torch.complex128
    """
    return tensor.to(_COMPLEX_TYPES.get(real, real) if tensor.is_complex() else real)


def autocasts(X: Tensor) -> bool:
    """Tell whether autocast is on where the tensor is.

    Example:
        >>> import torch
        >>> with torch.autocast("cpu"):
        ...     print(autocasts(torch.zeros(2)))
        True
    """
    device = X.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def no_autocast(X: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast, for derivatives of what was computed so.

    A backward pass may run inside autocast, which casts some of the operands of a
    product and leaves others.

    Example:
        >>> import torch
        >>> X = torch.eye(2)
        >>> with torch.autocast("cpu"), no_autocast(X):
        ...     print((X @ X).dtype)
        torch.float32
    """
    if not autocasts(X):
        return nullcontext()
    return torch.autocast(X.device.type, enabled=False)


def full_precision(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Make a function compute half-precision tensors in float32, and cast last.

    Autocast is off inside: it would send the matrix products of a float32 weight
    through bfloat16, and an orthogonal matrix would miss its set by a percent.
    Kernels that half types lack, such as factorizations, are never asked for.

    Example:
        >>> import torch
        >>> full_precision(torch.linalg.inv)(torch.eye(2, dtype=torch.bfloat16))
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.bfloat16)
    """

    @functools.wraps(function)
    def computed(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        first = next(x for x in args if isinstance(x, Tensor))
        if autocasts(first):
            with no_autocast(first):
                return computed(*args, **kwargs)
        if first.dtype not in _HALF_TYPES:
            return function(*args, **kwargs)
        widened: Any = [_cast(x, _HALF_TYPES, torch.float32) for x in args]
        return _cast(function(*widened, **kwargs), (torch.float32,), first.dtype)

    return computed


def _cast(value: Any, before: tuple[torch.dtype, ...], after: torch.dtype) -> Any:  # noqa: ANN401
    """Cast a tensor, or those of a tuple or list, that have one of the given types."""
    if isinstance(value, list):
        return [_cast(x, before, after) for x in value]
    if isinstance(value, tuple):
        return tuple(_cast(x, before, after) for x in value)
    if isinstance(value, Tensor) and value.dtype in before:
        return value.to(after)
    return value
