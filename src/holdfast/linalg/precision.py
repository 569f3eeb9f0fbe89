"""In which precision to compute, whatever the tensors are stored in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
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


def coarse(X: Tensor) -> bool:
    """Tell whether products of the tensor would have less digits than it has.

    So it is under autocast, and on CUDA where products of single precision may be
    rounded to TF32 (`torch.set_float32_matmul_precision`), whose three digits no
    orthogonal matrix would keep. What a compiler makes follows that setting.

    Example:
        >>> import torch
        >>> with torch.autocast("cpu"):
        ...     print(coarse(torch.zeros(2)))
        True
    """
    return autocasts(X) or _on_tensor_cores(X)


def exactly(X: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products have as many digits as the tensor.

    Backward passes need it as well: they may run inside autocast, which casts some of
    the operands of a product and leaves others.

    Example:
        >>> import torch
        >>> X = torch.eye(2)
        >>> with torch.autocast("cpu"), exactly(X):
        ...     print((X @ X).dtype)
        torch.float32
    """
    cast_by_none: AbstractContextManager[object] = nullcontext()
    if autocasts(X):
        cast_by_none = torch.autocast(X.device.type, enabled=False)
    if not _on_tensor_cores(X):
        return cast_by_none
    return _tensor_cores.unused(cast_by_none)


def _on_tensor_cores(X: Tensor) -> bool:
    return not torch.compiler.is_compiling() and X.is_cuda and _tensor_cores.used()


class _TensorCores:
    """Torch's setting for products of single precision on CUDA: one for all threads.

    The first thread that comes switches it, and the last one that leaves switches back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, _EXACT

    def used(self) -> bool:
        """Tell whether products may be rounded."""
        return _setting() not in (_EXACT, "none")

    @contextmanager
    def unused(self, inside: AbstractContextManager[object]) -> Generator[None]:
        """Let no product be rounded, in another context."""
        with self._lock:
            if self._inside == 0:
                self._before = _setting()
                _set(_EXACT)
            self._inside += 1
        try:
            with inside:
                yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    _set(self._before)


if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # since torch 2.9
    _EXACT = "ieee"

    def _setting() -> str:
        return str(torch.backends.cuda.matmul.fp32_precision)

    def _set(precision: str) -> None:
        torch.backends.cuda.matmul.fp32_precision = precision

else:
    _EXACT = "highest"
    _setting = torch.get_float32_matmul_precision
    _set = torch.set_float32_matmul_precision

_tensor_cores = _TensorCores()


def full_precision(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Make a function compute half-precision tensors in float32, and cast last.

    Autocast is off inside, and TF32: autocast would send the matrix products of a
    float32 weight through bfloat16, and an orthogonal matrix would miss its set by a
    percent. Kernels that half types lack, such as factorizations, are never asked for.

    Example:
        >>> import torch
        >>> full_precision(torch.linalg.inv)(torch.eye(2, dtype=torch.bfloat16))
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.bfloat16)
    """

    @functools.wraps(function)
    def computed(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        first = next(x for x in args if isinstance(x, Tensor))
        if coarse(first):
            with exactly(first):
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
