"""Tensors that are split over processes, by FSDP or otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidTensorError


def is_sharded(tensor: object) -> bool:
    """Tell whether a process has but a part of a tensor."""
    module: Any = sys.modules.get("torch.distributed.tensor")  # else there are none
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Any) -> Tensor:
    """Return a tensor with all its parts, for which every process has to ask."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def refuse_sharded(model: nn.Module, why: str) -> None:
    """Refuse a model that FSDP shards, which holds its parameters by itself."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return
    kinds = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    for path, module in model.named_modules():
        if isinstance(module, kinds):
            raise InvalidTensorError(
                f"`{path or type(model).__name__}` is sharded by FSDP, {why}"
            )


def note_sharded(error: Exception, originals: Iterable[object]) -> None:
    """Say in an error how to compute from originals that are sharded."""
    if any(map(is_sharded, originals)):
        error.add_note(
            "Its originals are sharded, and maps compute from whole ones: read the "
            "weight inside a forward or between `unshard()` and `reshard()` of the "
            "module that shards it, or take `holdfast.plain_state_dict(model)`."
        )
