"""Files of tensors: read without trust, written as a whole or not at all.

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
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import CheckpointError
from .workplace import SHARD, workplace

_INDEX = ".index.json"
_LARGEST_INDEX = 2**28  # bytes of JSON
_UNKNOWN_TYPES = (torch.complex32, torch.complex128)
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def index_of(path: Path) -> Path:
    """Return where the index of a checkpoint of several files is."""
    if not path.name:
        raise CheckpointError(f'Expected the path of a file. Got "{path}".')
    return path if path.name.endswith(_INDEX) else path.with_name(path.name + _INDEX)


def bytes_of(size: int | str | None) -> float:
    """Return the limit for a file: a number, or one with a unit, as ``"5GB"``."""
    if size is None:
        return float("inf")
    digits, unit = size, 1
    if isinstance(size, str):
        digits, unit = size[:-2].strip(), _UNITS.get(size[-2:].upper(), 0)
    try:
        limit = float(digits) * unit
    except ValueError:
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
    shards, index, old = _shards(tensors, limit), index_of(path), _named_by(path)
    with workplace(path) as place:
        if len(shards) < 2:
            about = {"holdfast": header} if header else {}
            place.put(path, lambda part: _save(tensors, part, about))
            index.unlink(missing_ok=True)
            _remove([*old, *_unnamed(place.shards(), path)])
            return [path]
        stem, tag = path.name.removesuffix(".safetensors"), secrets.token_hex(4)
        names = [
            f"{stem}-{tag}-{i:05}-of-{len(shards):05}.safetensors"
            for i in range(1, len(shards) + 1)
        ]
        for name, shard in zip(names, shards, strict=True):
            place.put(
                path.with_name(name), lambda part, shard=shard: _save(shard, part)
            )
        text = json.dumps(_table(tensors, header, names, shards), indent=1)
        place.put(index, lambda part: part.write_text(text, "utf-8"))
        _remove([path, *old, *_unnamed(place.shards(), path)])
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
    save_file: Any = _safetensors().torch.save_file
    save_file(dict(tensors), str(part), {"format": "pt", **(header or {})})


def _named_by(path: Path) -> list[Path]:
    """Return the files that an index there names, as far as it can be read."""
    with contextlib.suppress(CheckpointError):
        named = {*_read_index(index_of(path))[1].values()}
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


class Stored:
    """The tensors of a checkpoint, read one by one."""

    def __init__(
        self, path: Path, header: str | None, files: Mapping[str, Any]
    ) -> None:
        self.path = path
        self.header = header
        self._files = files

    def keys(self) -> set[str]:
        """Return the names of all tensors."""
        return {*self._files}

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a shape, without reading the tensor."""
        return tuple(self._files[key].get_slice(key).get_shape())

    def tensor(self, key: str) -> Tensor:
        """Return a tensor in memory of its own: the file may change afterwards."""
        try:
            return self._files[key].get_tensor(key).clone()
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: `{key}` cannot be read: {error}"
            ) from error


@contextmanager
def stored(path: Path) -> Generator[Stored]:
    """Open a checkpoint of one file or several."""
    index = index_of(path)
    with contextlib.ExitStack() as stack:
        if not index.exists():
            file = _opened(path, stack)
            header = (file.metadata() or {}).get("holdfast")
            yield Stored(path, header, dict.fromkeys(file.keys(), file))
            return
        header, places = _read_index(index)
        files = {place: _opened(place, stack) for place in {*places.values()}}
        held = {place: {*file.keys()} for place, file in files.items()}
        for key, place in places.items():
            if key not in held[place]:
                raise CheckpointError(
                    f"{place} has no `{key:.200}`, which {index} names."
                )
        yield Stored(path, header, {key: files[place] for key, place in places.items()})


def _opened(path: Path, stack: contextlib.ExitStack) -> Any:  # noqa: ANN401
    opened: Any = _safetensors().safe_open
    try:
        return stack.enter_context(opened(str(path), framework="pt", device="cpu"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except Exception as error:
        hint = ""
        if path.suffix in (".pt", ".pth", ".bin"):
            hint = " `holdfast convert` makes one of a file of `torch.save`."
        raise CheckpointError(
            f"{path} is no safetensors file: {error}.{hint}"
        ) from error


def _read_index(path: Path) -> tuple[str | None, dict[str, Path]]:
    """Return the header, and where each tensor is."""
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise CheckpointError(f"{path} is larger than an index may be.")
        table: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no index: {error}.") from error
    table = cast("dict[str, Any]", table if isinstance(table, dict) else {})
    metadata, places = table.get("metadata"), table.get("weight_map")
    if not isinstance(places, dict) or not isinstance(metadata, dict | None):
        raise CheckpointError(f'{path} is no index: it has no "weight_map".')
    for key, name in places.items():
        if not isinstance(name, str) or not _is_file_name(name):
            raise CheckpointError(
                f"{path}: `{key:.200}` is said to be in {name!r:.200}, which is no "
                "file beside it."
            )
    found = {key: path.with_name(name) for key, name in places.items()}
    header = metadata.get("holdfast") if metadata else None
    return header if isinstance(header, str) else None, found


def _is_file_name(name: str) -> bool:
    return (
        name != ""
        and Path(name).name == name
        and not name.startswith(".")
        and "\0" not in name
    )


def _safetensors() -> Any:  # noqa: ANN401
    try:
        safetensors: Any = import_module("safetensors")
        import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "Checkpoints are safetensors files, which needs a package that is not "
            "installed. Install it with `python -m pip install 'holdfast[save]'`."
        ) from error
    return safetensors


def unshared(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors with memory of their own, and which names are for the same one."""
    kept, tied, seen = dict[str, Tensor](), dict[str, str](), dict[object, str]()
    owners = set[int]()
    for key, tensor in state.items():
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
