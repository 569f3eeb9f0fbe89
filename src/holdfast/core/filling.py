"""Copying a state dict's tensors into a module's own, where nothing is special.

What torch does for each tensor takes ten times as long as copying a small one, and a
chain has more tensors than a plain weight, in more modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .entry import PLAIN
from .torch_state import no_gradients

_torchs = nn.Module._load_from_state_dict


def is_ordinary(module: nn.Module) -> bool:
    """Tell whether loading a module copies into its tensors, and does nothing else."""
    return not (
        module._load_state_dict_pre_hooks
        or module._non_persistent_buffers_set
        or torch.__future__.get_swap_module_params_on_conversion()
        or type(module).set_extra_state is not nn.Module.set_extra_state
        or nn.Module._load_from_state_dict is not _torchs
    )


def filled(
    module: nn.Module, state: Mapping[str, Any], prefix: str, metadata: Any
) -> bool:
    """Copy what a state dict has for a module, and tell whether that was all to do.

    If not, nothing was reported, and torch has to load: its hooks, its conversions and
    its reports of what is missing, unexpected or of another shape are needed.
    """
    if metadata.get("assign_to_params_buffers") or not is_ordinary(module):
        return False
    own: list[str] = []
    copies: list[tuple[Any, Any]] = []
    for registry in (module._parameters, module._buffers):
        for name, tensor in registry.items():
            key = prefix + name
            value = state.get(key)
            own.append(key)
            if value is tensor is not None:
                continue  # who has loaded so far has written it
            if not _are_alike(tensor, value):
                return False
            copies.append((tensor, value))
    if len(state) != len(own) and not _is_below(module, state, own, len(prefix)):
        return False
    return not copies or copied(copies)


def _is_below(
    module: nn.Module, state: Mapping[str, Any], own: list[str], start: int
) -> bool:
    """Tell whether all other keys are those of modules below."""
    below = module._modules
    for key in state:
        if key not in own:
            name, dot, _ = key[start:].partition(".")
            if not dot or name not in below:
                return False
    return True


def copied(pairs: Iterable[tuple[Any, Any]]) -> bool:
    """Copy each second tensor into the first, and tell whether torch let us."""
    try:
        with no_gradients():
            for tensor, value in pairs:
                tensor.copy_(value)
    except RuntimeError:  # of an inference tensor, say: torch names the key
        return False
    return True


def are_ordinary(tensors: Iterable[Any]) -> bool:
    """Tell whether these are torch's own tensors, with values."""
    return all(type(tensor) in PLAIN and not tensor.is_meta for tensor in tensors)


def _are_alike(tensor: Any, value: Any) -> bool:
    return (
        type(tensor) in PLAIN
        and type(value) in PLAIN
        and tensor.shape == value.shape
        and tensor.dtype is value.dtype
        and tensor.device == value.device
        and not tensor.is_meta
    )
