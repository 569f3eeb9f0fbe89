"""What torch knows about the moment of a read, most of it without a public name.

Every private function of torch's that holdfast calls stands here. They are bound once,
because each is called on the way of every read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

_C = cast("Any", torch._C)

is_traced: Callable[[], bool] = torch.compiler.is_dynamo_compiling
is_grad_enabled: Callable[[], bool] = torch.is_grad_enabled
is_any_autocast_enabled: Callable[[], bool] = _C._is_any_autocast_enabled
#: The hooks that a checkpoint or an offload has put on saved tensors, or ``None``.
saved_tensor_hooks: Callable[[bool], object] = (
    _C._autograd._top_saved_tensors_default_hooks
)
#: The number of the backward pass that is running, or -1.
backward_pass: Callable[[], int] = _C._current_graph_task_id
#: The level of the innermost function transform (``vmap``, ``grad``), or ``None``.
transform_level: Callable[[], int | None] = _C._functorch.maybe_current_level
is_transformed: Callable[[Tensor], bool] = _C._functorch.is_functorch_wrapped_tensor
#: How many dispatch modes (fake tensors, proxies, counters) are active.
dispatch_modes: Callable[[], int] = _C._len_torch_dispatch_stack
#: What ``torch.jit.trace`` is recording, or ``None``.
tracing_state: Callable[[], object] = _C._get_tracing_state
is_copy_on_write: Callable[[Tensor], bool] = _C._is_cow_tensor
copy_on_write: Callable[[Tensor], Tensor] = cast("Any", torch)._lazy_clone


def in_backward_pass() -> bool:
    """Tell whether autograd is running, as in the recomputation of a checkpoint."""
    return backward_pass() != -1


def storage_owners(tensor: Tensor) -> int:
    """Return how many tensors share the memory of this one, counting the asking."""
    return _C._storage_Use_Count(tensor.untyped_storage()._cdata)
