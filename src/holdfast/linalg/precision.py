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

    So it is under autocast, and where products of single precision may be rounded
    (`torch.set_float32_matmul_precision`): to TF32 on CUDA, to bfloat16 on processors
    that have tiles for it. No orthogonal matrix would keep the three digits of these.
    What a compiler makes follows that setting.

    Example:
        >>> import torch
        >>> with torch.autocast("cpu"):
        ...     print(coarse(torch.zeros(2)))
        True
    """
    return autocasts(X) or _rounding(X) is not None


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
    rounding = _rounding(X)
    return cast_by_none if rounding is None else rounding.unused(cast_by_none)


class _Rounding:
    """Torch's setting for products of single precision: one for all threads.

    The first thread that comes switches it, and the last one that leaves switches back.

    Args:
        backend: what has the setting, as `torch.backends.cuda.matmul`.
    """

    def __init__(self, backend: Any) -> None:  # noqa: ANN401
        self._backend = backend
        # since torch 2.9; before, there was one for all devices
        self._exact = "ieee" if hasattr(backend, "fp32_precision") else "highest"
        self._lock, self._inside, self._before = Lock(), 0, self._exact

    def used(self) -> bool:
        """Tell whether products may be rounded."""
        return self._setting() not in (self._exact, "none")

    @contextmanager
    def unused(self, inside: AbstractContextManager[object]) -> Generator[None]:
        """Let no product be rounded, in another context."""
        with self._lock:
            if self._inside == 0:
                self._before = self._setting()
                self._set(self._exact)
            self._inside += 1
        try:
            with inside:
                yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._restore()

    def _restore(self) -> None:
        """Leave it to the setting above, `torch.backends.fp32_precision`, if that does.

        What was in force may be from there, and would not follow it any more if it were
        set here.
        """
        if self._exact == "ieee":
            self._set("none")
        if self._setting() != self._before:
            self._set(self._before)

    def _setting(self) -> str:
        if self._exact == "ieee":
            return str(self._backend.fp32_precision)
        return torch.get_float32_matmul_precision()

    def _set(self, precision: str) -> None:
        if self._exact == "ieee":
            self._backend.fp32_precision = precision
        else:
            torch.set_float32_matmul_precision(precision)


_tensor_cores = _Rounding(torch.backends.cuda.matmul)
_of_cpu: Any = getattr(torch.backends.mkldnn, "matmul", None)
_tiles = _tensor_cores if _of_cpu is None else _Rounding(_of_cpu)

# What the processor can do; torch 2.6 does not tell.
PROCESSOR: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()

# Other architectures may round without tiles.
_HAS_TILES = bool(PROCESSOR.get("amx_bf16", True))


def _rounding(X: Tensor) -> _Rounding | None:
    """Return what rounds products of the tensor, if anything does."""
    if torch.compiler.is_compiling():
        return None
    if X.is_cuda:
        return _tensor_cores if _tensor_cores.used() else None
    return _tiles if _HAS_TILES and X.is_cpu and _tiles.used() else None


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
        widened: Any = [cast_all(x, _HALF_TYPES, torch.float32) for x in args]
        return cast_all(function(*widened, **kwargs), (torch.float32,), first.dtype)

    return computed


def cast_all(value: Any, before: tuple[torch.dtype, ...], after: torch.dtype) -> Any:  # noqa: ANN401
    """Cast a tensor, or those of a tuple or list, that have one of the given types.

    Example:
        >>> import torch
        >>> X, Y = torch.zeros(2), torch.zeros(2, dtype=torch.int8)
        >>> X, Y = cast_all((X, Y), (torch.float32,), torch.float64)
        >>> X.dtype, Y.dtype
        (torch.float64, torch.int8)
    """
    if isinstance(value, list):
        return [cast_all(x, before, after) for x in value]
    if isinstance(value, tuple):
        return tuple(cast_all(x, before, after) for x in value)
    if isinstance(value, Tensor) and value.dtype in before:
        return value.to(after)
    return value
