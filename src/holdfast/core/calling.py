"""Calling a map, without the detour through ``nn.Module.__call__`` where there is none.

That detour looks for hooks in eight places and costs more than many maps do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

if TYPE_CHECKING:
    from .chain import ParametrizationList

GLOBAL_PRE_HOOKS = torch_module._global_forward_pre_hooks
GLOBAL_HOOKS = torch_module._global_forward_hooks


def evaluate(chain: ParametrizationList, state: dict[str, Any]) -> Tensor:
    """Compute the value of a chain; ``state`` is its ``__dict__``.

    This runs on every read, and reading the attributes of a module is slow: hence the
    dictionaries.
    """
    value = state["_parameters"].get("original")
    if value is None or GLOBAL_PRE_HOOKS or GLOBAL_HOOKS:
        return chain.compute(*chain.originals())
    for map_ in state["_modules"].values():
        hooks = map_.__dict__
        if (
            hooks["_forward_hooks"]
            or hooks["_forward_pre_hooks"]
            or hooks["_backward_hooks"]
            or hooks["_backward_pre_hooks"]
        ):
            value = map_(value)
        else:
            value = map_.forward(value)
    return value


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
