"""What the header of a checkpoint says: which maps parametrize which tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..core.parametrization import Parametrization
from ..errors import CheckpointError, HoldfastError
from ..maps.specs import from_spec
from .rules import specs
from .stored import Stored

VERSION = 1
_POLICIES = (None, "error", "warn", "project")


@dataclass(frozen=True)
class ChainData:
    """What a file says of a tensor."""

    path: str
    maps: list[Parametrization]
    unsafe: bool
    outside: Any


def described(chain: nn.ModuleList, path: str) -> dict[str, object]:
    """Return what `load` needs to make a chain again."""
    try:
        maps = specs([*chain._modules.values()])  # type: ignore[list-item]
    except HoldfastError as error:
        raise CheckpointError(f"`{path}` cannot be saved: {error}") from error
    unsafe, outside = getattr(chain, "unsafe", False), getattr(chain, "outside", None)
    return {"tensor": path, "maps": maps, "unsafe": unsafe, "outside": outside}


def read_header(
    file: Stored, also: tuple[type[Parametrization], ...]
) -> tuple[list[ChainData], dict[str, str]]:
    """Return the chains that a header describes, and the names of tied tensors."""
    if file.header is None:
        raise CheckpointError(
            f"{file.path} was not written by `holdfast.save`: its header has no specs. "
            "Load the tensors and give them to `model.load_state_dict`."
        )
    try:
        header: Any = json.loads(file.header)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file.path}: the header is no JSON: {error}."
        ) from error
    if not isinstance(header, dict) or header.get("version") != VERSION:
        raise CheckpointError(
            f"{file.path}: expected a header of version {VERSION}, which a newer "
            "holdfast may have changed."
        )
    chains, tied = header.get("chains"), header.get("tied")
    if not isinstance(chains, list) or not isinstance(tied, dict):
        raise CheckpointError(f'{file.path}: the header lacks "chains" or "tied".')
    for key, kept in tied.items():
        if not isinstance(kept, str) or kept not in file.keys() or key in file.keys():  # noqa: SIM118
            raise CheckpointError(f"{file.path}: `{key:.200}` is tied to no tensor.")
    read = [_chain_of_data(file, data, also) for data in chains]
    if len({chain.path for chain in read}) < len(read):
        raise CheckpointError(f"{file.path}: the header describes a tensor twice.")
    return read, tied


def _chain_of_data(
    file: Stored,
    data: Any,  # noqa: ANN401
    also: tuple[type[Parametrization], ...],
) -> ChainData:
    fields = cast("Mapping[str, Any]", data) if isinstance(data, dict) else {}
    path, maps = fields.get("tensor"), fields.get("maps")
    unsafe, outside = fields.get("unsafe"), fields.get("outside")
    if not isinstance(path, str) or not isinstance(maps, list) or not maps:
        raise CheckpointError(f"{file.path}: the header has a chain without maps.")
    if not isinstance(unsafe, bool) or outside not in _POLICIES:
        raise CheckpointError(f"{file.path}: `{path:.200}` has a wrong policy.")
    try:
        return ChainData(path, [from_spec(m, also=also) for m in maps], unsafe, outside)
    except HoldfastError as error:
        raise CheckpointError(f"{file.path}: `{path:.200}`: {error}") from error
