"""Files of tensors, read without trust, also while another process writes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..errors import CheckpointError
from .workplace import followed

_INDEX = ".index.json"
_ATTEMPTS = 10
_LARGEST_INDEX = 2**28  # bytes of JSON


def index_of(path: Path) -> Path:
    """Return where the index of a checkpoint of several files is."""
    return path if path.name.endswith(_INDEX) else path.with_name(path.name + _INDEX)


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
    """Open a checkpoint of one file or several.

    What another process saves over it meanwhile takes away files that an index has
    just named; then the index is read again. Files that are open stay readable.
    """
    path = path if path.name.endswith(_INDEX) else followed(path)
    with contextlib.ExitStack() as stack:
        yield _found(path, stack)


def _found(path: Path, stack: contextlib.ExitStack) -> Stored:
    for attempt in range(_ATTEMPTS):
        before = _mark_of(path)
        try:
            return _stored(path, stack)
        except _MissingFileError as error:
            if attempt and before == _mark_of(path):  # nobody has saved meanwhile
                raise CheckpointError(str(error)) from None
    raise CheckpointError(
        f"{path} was saved over {_ATTEMPTS} times while it was read. Load it when no "
        "save runs."
    )


class _MissingFileError(CheckpointError):
    """There is no such file, at this moment."""


def _mark_of(path: Path) -> object:
    """Return what is another one after a save of several files."""
    try:
        found = index_of(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _stored(path: Path, stack: contextlib.ExitStack) -> Stored:
    index = index_of(path)
    if not index.exists():
        file = _opened(path, stack)
        header = (file.metadata() or {}).get("holdfast")
        return Stored(path, header, dict.fromkeys(file.keys(), file))
    header, places = read_index(index)
    files = {place: _opened(place, stack, index) for place in {*places.values()}}
    held = {place: {*file.keys()} for place, file in files.items()}
    for key, place in places.items():
        if key not in held[place]:
            raise CheckpointError(f"{place} has no `{key:.200}`, which {index} names.")
    return Stored(path, header, {key: files[place] for key, place in places.items()})


def _opened(path: Path, stack: contextlib.ExitStack, index: Path | None = None) -> Any:  # noqa: ANN401
    opened: Any = safetensors().safe_open
    try:
        return stack.enter_context(opened(str(path), framework="pt", device="cpu"))
    except Exception as error:
        if not path.exists():  # it may go between two looks of the package at it
            named = f", which {index} names: a part is lost" if index else ""
            raise _MissingFileError(f"There is no file {path}{named}.") from None
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder. Name the file in it.") from None
        hint = ""
        if path.suffix in (".pt", ".pth", ".bin"):
            hint = " `holdfast convert` makes one of a file of `torch.save`."
        raise CheckpointError(
            f"{path} is no safetensors file: {error}.{hint}"
        ) from error


def read_index(path: Path) -> tuple[str | None, dict[str, Path]]:
    """Return the header, and where each tensor is."""
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise CheckpointError(f"{path} is larger than an index may be.")
        table: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _MissingFileError(f"There is no index {path}.") from None
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


def safetensors() -> Any:  # noqa: ANN401
    """Return the package that reads and writes the files."""
    try:
        package: Any = import_module("safetensors")
        import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        raise CheckpointError(
            "Checkpoints are safetensors files, which needs a package that is not "
            "installed. Install it with `python -m pip install 'holdfast[save]'`."
        ) from error
    return package
