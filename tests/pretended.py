"""A CUDA device that is only pretended, on a machine that has none.

Its tensors lie in the memory of the processor, which computes with them, but say that
they are on ``cuda:0``. So the library goes the ways that it goes on a device, with
numbers, and what would make the host wait (see `waiting.py`) is an error if it is asked
to be one. A captured graph is a list of the operations that have run, and a replay runs
them again, in the same memory, without any Python in between.

Note [How it is pretended]
    `_Naming` sees the functions that Python calls, and `_Watching` the operations of
    which they, and the backward passes of torch's own, are made. The first answers for
    the device of a tensor, sends what is asked of the device to the processor, marked
    by an index, and turns transfers into copies. The second notes what lies on the
    device, by its storage. What torch makes for its own use, such as the zeros in a
    backward pass, would be made where it is needed, and counts as both.

    The library must not see that operations are watched, or it would go the ways of a
    compiler.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.core import batching, cache, memo, scope
from replays import Graph, tensors
from waiting import INDEXING, UNCERTAIN, WAITING

_CUDA = torch.device("cuda", 0)
_MARK = torch.device("cpu", 0)  # without an index it is the processor

_PRODUCTS = ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_")
_LISTS = ("tensor", "as_tensor", "asarray", "new_tensor")
_READS = ("tolist", "numpy", "__array__", "__dlpack__")

# Where torch asks whether a function written in Python was overridden. These run as
# they are: what they call is seen.
_PYTHON = (torch.autograd, torch.functional, torch.nn.functional, torch._tensor)
_OVERRIDDEN = ("", "_unary", "_variadic")

Storages = dict[int, torch.UntypedStorage]


class Device:
    """What lies on the device, and how it takes waits."""

    def __init__(self) -> None:
        # by address, and alive: so no other one ever gets the address
        self.storages: Storages = {}
        self.anywhere: Storages = {}
        self.mode = "default"
        self.graph: Graph | None = None
        self.calling = ""

    def has(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is here for sure."""
        return _storage(tensor)._cdata in self.storages

    def serves(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is here, or as good as here."""
        return self.has(tensor) or _storage(tensor)._cdata in self.anywhere

    def take(self, tensor: Tensor) -> Tensor:
        """Note that a tensor is here."""
        storage = _storage(tensor)
        self.storages[storage._cdata] = storage
        return tensor

    def give(self, tensor: Tensor) -> Tensor:
        """Note that a tensor is not here."""
        self.storages.pop(_storage(tensor)._cdata, None)
        return tensor

    def wait(self, what: str, reason: str) -> None:
        """Let the host wait, if it may."""
        if self.mode == "error" or self.graph is not None:
            raise RuntimeError(
                f"called a synchronizing CUDA operation: {what}, {reason}"
            )
        if self.mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    with torch._C.DisableTorchFunction():
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
        return tensor.untyped_storage()


class _Naming(TorchFunctionMode):
    """What Python calls. See Note [How it is pretended]."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        mine = bool(args) and isinstance(args[0], Tensor)
        here = mine and self.device.serves(args[0])
        if name == "__get__" and func.__self__.__name__ in (
            "device",
            "is_cuda",
            "is_cpu",
        ):
            asked = func.__self__.__name__
            if asked == "device":
                return _CUDA if here else torch.device("cpu")
            return here == (asked == "is_cuda")
        if here and name in _READS:
            self.device.wait(name, "the host reads a tensor")
        if mine and name in ("cuda", "cpu"):
            return self._moved(args[0], name)
        target, args, kwargs = _aimed(name, args, kwargs or {})
        if name == "to" and target:
            args = [self._moved(args[0], target), *args[1:]]
        outer, self.device.calling = self.device.calling, name
        try:
            found = func(*args, **kwargs)
        finally:
            self.device.calling = outer
        if target == "cuda":
            if name in _LISTS:
                self.device.wait(name, "numbers of the host go to the device")
            self.device.take(found)
        return found

    def _moved(self, tensor: Tensor, target: str) -> Tensor:
        if self.device.serves(tensor) == (target == "cuda"):
            return tensor
        self.device.wait(target, "a tensor goes from one to the other")
        move = self.device.take if target == "cuda" else self.device.give
        return move(tensor.clone())


def _aimed(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the device that a call names, and the call for the processor."""
    target = None

    def served(x: Any) -> Any:
        nonlocal target
        named = isinstance(x, str) and x.partition(":")[0] in ("cuda", "cpu")
        if named or isinstance(x, torch.device):
            target = torch.device(x).type
            return _MARK if target == "cuda" else torch.device("cpu")
        return x

    if name == "to":
        args = [served(x) for x in args]
    if "device" in kwargs:
        kwargs = {**kwargs, "device": served(kwargs["device"])}
    return target, args, kwargs


class _Watching(TorchDispatchMode):
    """The operations that run. See Note [How it is pretended]."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            name = func.overloadpacket.__name__
            given = tensors([args, *kwargs.values()])
            here = any(self.device.has(x) for x in given)
            if here:
                self._look(name, given, args)
            out = func(
                *(_rounded(args) if here and name in _PRODUCTS else args), **kwargs
            )
            if here or kwargs.get("device") == _MARK:
                for x in tensors(out):
                    self.device.take(x)
            elif all(self.device.serves(x) for x in given) and (
                given or name != self.device.calling
            ):
                for x in tensors(out):
                    self.device.anywhere[x.untyped_storage()._cdata] = (
                        x.untyped_storage()
                    )
            if self.device.graph is not None:
                self.device.graph.note(func, args, kwargs, out)
            return out

    def _look(self, name: str, given: list[Tensor], args: Any) -> None:
        """Take note of what waits, and of what is not on the device."""
        wait = self.device.wait
        if not all(self.device.serves(x) for x in given):
            wait(name, "of tensors on the device and on the host")
        if name in WAITING:
            wait(name, WAITING[name].reason)
        if name in UNCERTAIN and self.device.graph is not None:
            wait(name, "of which nobody promises that it can be captured")
        if name in INDEXING and any(x.dtype is torch.bool for x in tensors(args[1])):
            wait(name, "what a mask selects has to be counted")


def _rounded(args: Any) -> Any:
    """Return the factors of a product, of three digits where TF32 is allowed."""
    setting = torch.backends.cuda.matmul
    new = hasattr(setting, "fp32_precision")  # since torch 2.9
    if not (setting.fp32_precision == "tf32" if new else setting.allow_tf32):
        return args
    *others, A, B = args
    return [*others, _tf32(A), _tf32(B)]


def _tf32(X: Tensor) -> Tensor:
    if X.dtype is torch.complex64:
        return torch.view_as_complex(_tf32(torch.view_as_real(X.resolve_conj())))
    if X.dtype is not torch.float32:
        return X
    bits = X.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class Stream:
    """A stream, of which here all are the same."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def wait_stream(self, stream: Stream) -> None:
        """Do nothing."""

    def is_capturing(self) -> bool:
        return self.device.graph is not None


def _stubs(device: Device) -> dict[str, Any]:
    """Return what takes the places of functions in `torch.cuda`."""

    @contextlib.contextmanager
    def graph(captured: Graph) -> Iterator[None]:
        device.graph = captured
        try:
            yield
        finally:
            device.graph = None
        captured.end()

    def set_mode(mode: str) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)
        device.mode = mode

    def synchronize(*_: object) -> None:
        if device.graph is not None:
            device.wait("synchronize", "by name")

    return {
        "set_sync_debug_mode": set_mode,
        "synchronize": synchronize,
        "Stream": lambda: Stream(device),
        "current_stream": lambda: Stream(device),
        "stream": lambda stream: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": graph,
        "is_current_stream_capturing": lambda: device.graph is not None,
        "is_available": lambda: True,
        "memory_allocated": lambda: 0,
        "max_memory_allocated": lambda: 0,
        "reset_peak_memory_stats": lambda: None,
        "get_device_name": lambda: "pretended",
        "get_device_capability": lambda: (8, 0),
    }


@contextlib.contextmanager
def pretended_device(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be a device, until the end of the test."""
    device = Device()
    for name, stub in _stubs(device).items():
        patch.setattr(torch.cuda, name, stub)
    for name, found in (("accelerator", _CUDA), ("stream", Stream(device))):
        stub = lambda *_, found=found, **__: found  # noqa: E731
        patch.setattr(torch.accelerator, f"current_{name}", stub)
    for module in _PYTHON:
        for end in _OVERRIDDEN:
            name = f"has_torch_function{end}"
            patch.setattr(module, name, lambda *_: False, raising=False)
    for module in (batching, cache, memo, scope):
        patch.setattr(module, "dispatch_modes", lambda: 0)
    patch.setattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
    with _Naming(device), _Watching(device):
        yield
