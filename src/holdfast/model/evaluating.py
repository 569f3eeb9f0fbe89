"""The weights of a checkpoint, computed without the model that they are from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.parametrization import Parametrization
from ..errors import CheckpointError
from ..linalg.precision import double
from .allowance import allowance
from .noting import note

Spelling = Literal["plain", "torch", "holdfast", "legacy"]
MARK = "parametrizations."


@dataclass
class Found:
    """A parametrized tensor of a state dict, and the keys that it stands under."""

    path: str
    spelling: Spelling
    maps: list[Parametrization]
    originals: list[Tensor]
    buffers: dict[str, Tensor]
    shape: tuple[int, ...] | None = None  # of the weight, where a header says it


class NotFiniteError(CheckpointError):
    """Originals that are not finite, and maps that cannot compute with such."""


def evaluated(found: Found) -> Tensor:
    """Return the weight: the maps are given their state, which they keep, and run.

    Raises:
        CheckpointError: the tensors are no such maps'; `UnknownShapeError` and
            `NotFiniteError` say what is lacking.
    """
    try:
        with allowance(found.maps, found.originals):
            if found.spelling == "holdfast":
                note(found.maps, found.shape, found.originals)
            value = _evaluated(found)
    except CheckpointError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if not all(bool(double(X).isfinite().all()) for X in found.originals):
            raise NotFiniteError(f"its originals are not finite: {said}") from error
        raise CheckpointError(
            f"`{found.path}` cannot be computed from what is there: {said}"
        ) from error
    if found.shape not in (None, tuple(value.shape)):
        raise CheckpointError(
            f"`{found.path}`: the maps give a weight of shape {tuple(value.shape)}, "
            f"and the file says {found.shape}."
        )
    return value


def _evaluated(found: Found) -> Tensor:
    values = tuple(found.originals)
    for i, map_ in enumerate(found.maps):
        map_.eval()
        if map_._non_persistent_buffers_set:  # made of the original, see `translate`
            map_.bind(values[0])
        for key, tensor in found.buffers.items():
            number, _, inner = key.partition(".")
            if number == str(i):
                _put(map_, inner, tensor, found.path)
        state = {f"{MARK}weight.original": values[0]}
        if map_._non_persistent_buffers_set:
            map_.translate(state, "", "weight", i)
        with torch.no_grad():
            values = (map_(*values),)
    return values[0].contiguous()


def _put(map_: nn.Module, key: str, tensor: Tensor, path: str) -> None:
    """Give a map one of its tensors."""
    inside, _, name = key.rpartition(".")
    part = map_.get_submodule(inside)
    if name in part._parameters:
        part._parameters[name] = nn.Parameter(tensor, requires_grad=False)
    elif name in part._buffers:
        part._buffers[name] = tensor
    else:
        raise CheckpointError(f"`{path}`: {type(map_).__name__} has no `{key:.200}`.")
