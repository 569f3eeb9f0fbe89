"""What the header of a checkpoint says: which maps parametrize which tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..core.joints import joints_of
from ..core.parametrization import Parametrization
from ..errors import CheckpointError, HoldfastError
from ..maps.specs import from_spec
from .rules import specs
from .stored import Stored

VERSION = 1
_MOST_DIMENSIONS, _LONGEST = 64, 2**40
_POLICIES = (None, "error", "warn", "project")


@dataclass(frozen=True)
class ChainData:
    """What a file says of a tensor."""

    path: str
    maps: list[Parametrization]
    unsafe: bool
    outside: Any
    shape: tuple[int, ...] | None  # of the tensor that was parametrized

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        """The shape of the weight, if it is known."""
        return None if self.unsafe else self.shape


def described(chain: nn.ModuleList, path: str) -> dict[str, object]:
    """Return what `load` needs to make a chain again."""
    try:
        maps = specs([*chain._modules.values()])  # type: ignore[list-item]
    except HoldfastError as error:
        raise CheckpointError(f"`{path}` cannot be saved: {error}") from error
    return {"tensor": path, "maps": maps, **choices_of(chain)}


def choices_of(chain: object) -> dict[str, object]:
    """Return what is known of a chain beside its maps."""
    unsafe, outside = getattr(chain, "unsafe", False), getattr(chain, "outside", None)
    shape: Sequence[int] | None = getattr(chain, "shape", None)
    size = None if shape is None else [*shape]
    return {"unsafe": unsafe, "outside": outside, "shape": size}


Joined = dict[str, tuple[int, list[str]]]


@dataclass(frozen=True)
class Header:
    """What a file says of a model.

    Attributes:
        chains: what parametrizes it.
        tied: which tensors are the same as another one.
        joined: along which dimension a tensor joins which others, by its path.
    """

    chains: list[ChainData]
    tied: dict[str, str]
    joined: Joined


def joined_in(model: nn.Module) -> Joined:
    """Return which tensors of a model are several as one."""
    return {
        f"{prefix}{prefix and '.'}{joint.name}": (
            joint.dim,
            [name for name, _ in joint.parts],
        )
        for prefix, module in model.named_modules()
        for joint in joints_of(type(module))
    }


def read_header(file: Stored, also: tuple[type[Parametrization], ...]) -> Header:
    """Return what a header says: the chains, and which tensors belong together."""
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
    return Header(read, tied, _joined_of_data(file, header.get("joined", {})))


def _joined_of_data(file: Stored, data: Any) -> Joined:  # noqa: ANN401
    """Read which tensors are several as one, which older files do not say."""
    joined: Joined = {}
    for path, entry in data.items() if isinstance(data, dict) else [("", data)]:
        dim, names = entry if isinstance(entry, list) and len(entry) == 2 else (0, None)
        if (
            not isinstance(dim, int)
            or not isinstance(names, list)
            or not all(isinstance(name, str) and name.isidentifier() for name in names)
        ):
            raise CheckpointError(f"{file.path}: `{path:.200}` joins no tensors.")
        joined[path] = dim, names
    return joined


def _chain_of_data(
    file: Stored,
    data: Any,  # noqa: ANN401
    also: tuple[type[Parametrization], ...],
) -> ChainData:
    fields = cast("Mapping[str, Any]", data) if isinstance(data, dict) else {}
    path, maps = fields.get("tensor"), fields.get("maps")
    unsafe, outside = fields.get("unsafe"), fields.get("outside")
    shape = fields.get("shape")  # which older files do not have
    if not isinstance(path, str) or not isinstance(maps, list) or not maps:
        raise CheckpointError(f"{file.path}: the header has a chain without maps.")
    if not isinstance(unsafe, bool) or outside not in _POLICIES:
        raise CheckpointError(f"{file.path}: `{path:.200}` has a wrong policy.")
    if shape is not None and not _is_shape(shape):
        raise CheckpointError(f"{file.path}: `{path:.200}` has a wrong shape.")
    size = None if shape is None else tuple(shape)
    try:
        made = [from_spec(m, also=also) for m in maps]
        return ChainData(path, made, unsafe, outside, size)
    except HoldfastError as error:
        raise CheckpointError(f"{file.path}: `{path:.200}`: {error}") from error


def _is_shape(data: Any) -> bool:  # noqa: ANN401
    return (
        isinstance(data, list)
        and len(data) <= _MOST_DIMENSIONS
        and all(type(n) is int and 0 <= n < _LONGEST for n in data)
    )
