"""Where a file is written before it takes its place, and what crashes leave there.

Each save has a folder of its own beside its target, and holds a lock on it. A folder
that nobody holds was left by a process that is no more.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

SHARD = re.compile(r"-[0-9a-f]{8}-\d{5}-of-\d{5}\.safetensors$")


class Workplace:
    """A folder for the files of one save."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target, self._folder = target, folder

    def put(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file here, flush it, and put it in its place in one step."""
        part = self.prepare(path, write)
        place(part, path)

    def prepare(self, path: Path, write: Callable[[Path], object]) -> Path:
        """Write a file here and flush it; `place` puts it where it belongs."""
        part = self._folder / path.name
        write(part)
        _flush(part)
        return part

    @contextmanager
    def alone(self) -> Generator[None]:
        """Let no other save to this folder change what counts there.

        It is for a moment: what takes time, writing, is done before.
        """
        lock = _locked(self._target.parent, wait=True)
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def shards(self) -> list[Path]:
        """Return the shards of this target, and none while another save runs.

        Listed before the look for others: of a save that begins later none is there,
        and the index already names those of one that has ended.
        """
        stem = self._target.name.removesuffix(".safetensors")
        found = [
            path
            for path in self._target.parent.iterdir()
            if SHARD.sub("", path.name) == stem != path.name
        ]
        return found if _clear(self._target, but=self._folder) else []


@contextmanager
def workplace(target: Path) -> Generator[Workplace]:
    """Make a folder to write files of a target in; remove those of crashed saves."""
    lock = None
    folder = target
    try:
        _clear(target)
        folder, lock = _make(target)
        yield Workplace(target, folder)
    except CheckpointError:
        raise
    except Exception as error:  # safetensors has its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"Cannot write {target}: {reason}.") from error
    finally:
        if folder != target:
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file elsewhere, flush it, and put it in its place."""
    path = followed(path)
    with workplace(path) as work:
        work.put(path, write)


def place(part: Path, path: Path) -> None:
    """Put a file that is written in its place, in one step."""
    part.replace(path)
    with contextlib.suppress(OSError):  # a system that opens no folders
        _flush(path.parent)


def file_at(path: object, function: str) -> Path:
    """Return a path that somebody has given a function; refuse what names no file."""
    if not isinstance(path, str | os.PathLike):
        kind = f"`{path}`" if path is None else f"an object of {type(path).__name__}"
        raise TypeError(f"`{function}` takes the path of a file. Got {kind}.")
    text: object = os.fspath(path)
    if not isinstance(text, str) or not Path(text).name:
        raise CheckpointError(f"Expected the path of a file. Got {text!r:.200}.")
    return Path(text)


def followed(path: Path) -> Path:
    """Return what a link stands for, as when a file is opened to be written."""
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} is a link that leads nowhere: {error}") from None


def _make(target: Path) -> tuple[Path, int | None]:
    """Make a folder and lock it, before another save takes it for left over."""
    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        folder.mkdir()
        lock = _locked(folder, wait=True)
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _clear(target: Path, but: Path | None = None) -> bool:
    """Remove the folders of saves that crashed; tell whether no other one runs."""
    mine = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.part")
    alone = True
    for folder in [*target.parent.iterdir()]:
        if mine.fullmatch(folder.name) and folder != but and folder.is_dir():
            lock = _locked(folder, wait=False)
            if lock is None:
                alone = False
            else:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
    return alone


def _locked(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder; ``None`` if somebody has it, or if the system knows no locks."""
    try:
        fcntl: Any = import_module("fcntl")
        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
