"""The folder that a demo writes to, tried before the work starts."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HoldfastError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150


class OutputError(HoldfastError, OSError):
    """A folder or picture cannot be written."""


@contextmanager
def output_folder(path: Path) -> Generator[Path]:
    """Make a folder and prove that it can be written to; leave no empty one behind."""
    path = path.absolute()
    created = list[Path]()
    try:
        try:
            created += (p for p in (path, *path.parents) if not p.exists())
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            found = isinstance(error, FileExistsError)
            reason = "it is a file" if found else error.strerror
            message = f"cannot write to the folder {path}: {reason}"
            raise OutputError(message) from error
        yield path
    finally:
        for folder in created:
            with suppress(OSError):  # it is not empty, and stays
                folder.rmdir()


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a picture as a whole: under its own name it is complete or not there."""
    part = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(part, format="png", dpi=DOTS_PER_INCH)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path
