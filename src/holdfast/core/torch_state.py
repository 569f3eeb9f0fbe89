"""What torch knows about the moment of a read, most of it without a public name.

Every private function of torch's that holdfast calls stands here. They are bound once,
because each is called on the way of every read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

_C = cast("Any", torch._C)


class _HookStack(threading.local):
    """The hooks on saved tensors that are active in a thread, outermost first."""

    def __init__(self) -> None:
        self.hooks: list[object] = []


def watched_saved_tensor_hooks(autograd: Any) -> Callable[[bool], object]:
    """Return a stand-in for what torch before 2.7 does not have.

    It cannot tell which hooks are active, so it has to be noted as they come and go.
    """
    stack = _HookStack()
    push, pop = (
        autograd._push_saved_tensors_default_hooks,
        autograd._pop_saved_tensors_default_hooks,
    )

    def noted_push(pack: object, unpack: object) -> None:
        push(pack, unpack)
        stack.hooks.append((pack, unpack))

    def noted_pop() -> None:
        pop()
        stack.hooks.pop()

    def top(_: bool) -> object:  # noqa: FBT001  # torch's signature
        return stack.hooks[-1] if stack.hooks else None

    autograd._push_saved_tensors_default_hooks = noted_push
    autograd._pop_saved_tensors_default_hooks = noted_pop
    return top


is_traced: Callable[[], bool] = torch.compiler.is_dynamo_compiling
#: What compiles the functions that run now, each on its own, or ``None``.
frame_compiler: Callable[[], object] = getattr(
    _C._dynamo.eval_frame, "get_eval_frame_callback", lambda: None
)
is_grad_enabled: Callable[[], bool] = torch.is_grad_enabled
is_any_autocast_enabled: Callable[[], bool] = _C._is_any_autocast_enabled
#: The hooks that a checkpoint or an offload has put on saved tensors, or ``None``.
saved_tensor_hooks: Callable[[bool], object] = getattr(
    _C._autograd, "_top_saved_tensors_default_hooks", None
) or watched_saved_tensor_hooks(_C._autograd)
#: The number of the backward pass that is running, or -1.
backward_pass: Callable[[], int] = _C._current_graph_task_id
#: Whether a function transform (``vmap``, ``grad``) is at work. To ask for its level
#: would give the thread a stack of them, which every node of every backward pass of the
#: process then copies.
transforming: Callable[[], bool] = _C._are_functorch_transforms_active
is_transformed: Callable[[Tensor], bool] = _C._functorch.is_functorch_wrapped_tensor
#: How many dispatch modes (fake tensors, proxies, counters) are active.
dispatch_modes: Callable[[], int] = _C._len_torch_dispatch_stack
#: What ``torch.jit.trace`` is recording, or ``None``.
tracing_state: Callable[[], object] = _C._get_tracing_state
is_copy_on_write: Callable[[Tensor], bool] = _C._is_cow_tensor
copy_on_write: Callable[[Tensor], Tensor] = cast("Any", torch)._lazy_clone
#: Write values into tensors, as optimizers do.
write_all: Callable[[Sequence[Tensor], Sequence[Tensor]], None] = cast(
    "Any", torch
)._foreach_copy_

_run_backward = cast("Any", torch.autograd.graph)._engine_run_backward


class no_gradients:
    """What `torch.no_grad` does, in a third of the time, for each tensor loaded."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        """Record nothing from here on."""
        self._before = is_grad_enabled()
        _C._set_grad_enabled(False)

    def __exit__(self, *_: object) -> None:
        """Record as before."""
        _C._set_grad_enabled(self._before)


def in_backward_pass() -> bool:
    """Tell whether autograd is running, as in the recomputation of a checkpoint."""
    return backward_pass() != -1


def storage_owners(tensor: Tensor) -> int:
    """Return how many tensors share the memory of this one, counting the asking."""
    return _C._storage_Use_Count(tensor.untyped_storage()._cdata)


def gradients(
    value: Tensor, inputs: list[Tensor], grad: Tensor, *, create_graph: bool
) -> tuple[Tensor | None, ...]:
    """Return `torch.autograd.grad` of a graph that stays, without its checks."""
    return _run_backward(
        (value,),
        (grad,),
        True,  # the graph stays
        create_graph,
        tuple(inputs),
        True,  # some may not be used
        accumulate_grad=False,
    )
