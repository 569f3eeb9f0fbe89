"""Files of tensors, written as a whole or not at all.

Note [A crash while a checkpoint is written]
    A file is written in another folder first, is flushed to the disk, and then takes
    its place in one step. A checkpoint of several files has an index, and its files
    have names that no earlier save has used: they are written first, the index last,
    and what the old index named goes when the new one is there. Where there are both,
    an index and a single file, the index counts, so that going over from one to the
    other happens in one moment too: the index comes, or goes. What a crash leaves
    behind, the next save to the same path removes (`model/workplace.py`).
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, describe
from .stored import index_of, read_index, safetensors
from .workplace import SHARD, followed, place, workplace

_UNKNOWN_TYPES = (torch.complex32, torch.complex128)
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def bytes_of(size: int | str | None) -> float:
    """Return the limit for a file: a number, or one with a unit, as ``"5GB"``."""
    if size is None:
        return float("inf")
    digits, unit = size, 1
    if isinstance(size, str):
        digits, unit = size[:-2].strip(), _UNITS.get(size[-2:].upper(), 0)
    try:
        limit = 0 if isinstance(size, bool) else float(digits) * unit
    except (TypeError, ValueError):
        limit = 0
    if not limit >= 1:
        raise CheckpointError(
            f'Expected max_shard_size as bytes, or as "500MB" or "5GB". Got {size!r}.'
        )
    return limit


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: str | None, limit: float
) -> list[Path]:
    """Write tensors and a header as one file, or as several with an index."""
    _check_types(tensors)
    path = followed(path)
    shards, index = _shards(tensors, limit), index_of(path)
    with workplace(path) as work:
        if len(shards) < 2:
            about = {"holdfast": header} if header else {}
            part = work.prepare(path, lambda part: _save(tensors, part, about))
            with work.alone():
                old = _named_by(path)
                place(part, path)
                index.unlink(missing_ok=True)
                _remove([*old, *_unnamed(work.shards(), path)])
            return [path]
        stem, tag = path.name.removesuffix(".safetensors"), secrets.token_hex(4)
        names = [
            f"{stem}-{tag}-{i:05}-of-{len(shards):05}.safetensors"
            for i in range(1, len(shards) + 1)
        ]
        for name, shard in zip(names, shards, strict=True):
            work.put(path.with_name(name), lambda part, shard=shard: _save(shard, part))
        text = json.dumps(_table(tensors, header, names, shards), indent=1)
        part = work.prepare(index, lambda part: part.write_text(text, "utf-8"))
        with work.alone():
            old = _named_by(path)
            place(part, index)
            _remove([path, *old, *_unnamed(work.shards(), path)])
    return [*map(path.with_name, names), index]


def _check_types(tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if tensor.dtype in _UNKNOWN_TYPES:
            raise CheckpointError(
                f"`{key}` is {tensor.dtype}, which safetensors files do not have. Save "
                "it in complex64, or the state dict by `torch.save`, which has all "
                "types, and parametrize the model before you load that."
            )


def _table(
    tensors: Mapping[str, Tensor],
    header: str | None,
    names: Sequence[str],
    shards: Sequence[Mapping[str, Tensor]],
) -> dict[str, Any]:
    """Return what the index of several files says."""
    places = zip(names, shards, strict=True)
    return {
        "metadata": {
            "total_size": sum(tensor.nbytes for tensor in tensors.values()),
            "holdfast": header,
        },
        "weight_map": {key: name for name, shard in places for key in shard},
    }


def _shards(tensors: Mapping[str, Tensor], limit: float) -> list[dict[str, Tensor]]:
    shards, size = [dict[str, Tensor]()], 0
    for key, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][key] = tensor
        size += tensor.nbytes
    return shards


def _save(
    tensors: Mapping[str, Tensor], part: Path, header: dict[str, str] | None = None
) -> None:
    save_file: Any = safetensors().torch.save_file
    save_file(dict(tensors), str(part), {"format": "pt", **(header or {})})


def _named_by(path: Path) -> list[Path]:
    """Return the files that an index there names, as far as it can be read."""
    with contextlib.suppress(CheckpointError):
        named = {*read_index(index_of(path))[1].values()}
        return [place for place in named if SHARD.search(place.name)]  # only ours
    return []


def _unnamed(shards: Sequence[Path], path: Path) -> list[Path]:
    """Return the shards that the index does not name, perhaps that of another save."""
    named = {*_named_by(path)}
    return [shard for shard in shards if shard not in named]


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def unshared(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors with memory of their own, and which names are for the same one."""
    kept, tied, seen = dict[str, Tensor](), dict[str, str](), dict[object, str]()
    owners = set[int]()
    alive: list[Tensor] = []  # or another tensor would get the same memory
    for key, lazy in state.items():
        if lazy.layout != torch.strided or lazy.is_meta:
            raise CheckpointError(
                f"`{key:.200}` cannot be saved: expected a dense tensor with values. "
                f"Got {describe(lazy)}."
            )
        tensor = lazy.resolve_conj().resolve_neg()  # whose memory holds other values
        alive.append(tensor)
        view = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and view in seen:
            tied[key] = seen[view]
            continue
        seen[view] = key
        memory = tensor.untyped_storage().data_ptr()
        alone = memory not in owners and tensor.is_contiguous()
        owners.add(memory)
        kept[key] = (
            tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
        )
    return kept, tied
