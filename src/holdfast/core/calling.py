"""Calling a map, without the detour through ``nn.Module.__call__`` where there is none.

That detour looks for hooks in eight places and costs more than many maps do.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

GLOBAL_PRE_HOOKS = torch_module._global_forward_pre_hooks
GLOBAL_HOOKS = torch_module._global_forward_hooks


def call(map_: nn.Module, tensors: tuple[Any, ...]) -> Any:
    """Call a map; its ``forward`` directly when nothing else would happen."""
    if is_unhooked(map_):
        return map_.forward(*tensors)
    return map_(*tensors)


def is_unhooked(map_: nn.Module) -> bool:
    """Tell whether calling the map is calling its ``forward``."""
    state = map_.__dict__
    return not (
        state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or GLOBAL_PRE_HOOKS
        or GLOBAL_HOOKS
    )
