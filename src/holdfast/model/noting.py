"""What maps note of their weight when they are bound, which no state dict has."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..core.sharing import notes_of, parts_of
from ..errors import CheckpointError, InvalidTensorError
from .allowance import limit_for


class UnknownShapeError(CheckpointError):
    """A file of before does not say what its maps have to know."""


def note(
    maps: Sequence[Parametrization],
    shape: tuple[int, ...] | None,
    originals: Sequence[Tensor],
) -> None:
    """Let maps note what they do of a weight of some shape: sizes and counts.

    Copies of them are bound to a weight of random values, so that none of their
    tensors is made anew.

    Raises:
        UnknownShapeError: the shape is not known, and counts.
        InvalidTensorError: it is absurd.
    """
    like = originals[-1]
    if shape is None:
        if not _ignore_shapes(maps, like):
            raise UnknownShapeError(
                "The file does not say of which shape the weight is, and its maps have "
                "to know it. Load it into its model, and save that again."
            )
        return
    limit = limit_for(originals)
    if math.prod(shape) * like.element_size() > limit:
        raise InvalidTensorError(
            f"The file asks for a weight of shape {shape}, and no more than {limit} "
            "bytes are made of tensors of this size without the model."
        )
    for map_, bound in _pairs(maps, _bound(maps, shape, like)):
        for name, value in notes_of(bound).items():
            setattr(map_, name, value)


def _ignore_shapes(maps: Sequence[Parametrization], like: Tensor) -> bool:
    """Tell whether maps note nothing of a weight like their original."""
    try:
        pairs = _pairs(maps, _bound(maps, like.shape, like))
    except Exception:  # the weight is another one
        return False
    return all(notes_of(map_) == notes_of(bound) for map_, bound in pairs)


def _bound(
    maps: Sequence[Parametrization], shape: Sequence[int], like: Tensor
) -> list[Parametrization]:
    number = like.is_floating_point() or like.is_complex()
    weight = torch.randn(shape, dtype=like.dtype if number else None)
    twins = copy.deepcopy([*maps])
    for twin in twins:
        twin.bind(weight)
    return twins


def _pairs(
    maps: Sequence[Parametrization], twins: Sequence[Parametrization]
) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    return [
        pair
        for map_, twin in zip(maps, twins, strict=True)
        for pair in zip(parts_of(map_), parts_of(twin), strict=True)
    ]
