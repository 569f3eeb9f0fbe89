"""Writes to computed values (W1), which change nothing.

A plain read hands out a value that nobody holds but the reader, so that what becomes of
it cannot be known. The memo keeps what it has handed out, and looks at its version
before it does so again: there a write is seen, and costs nothing to see. A slice of
joined parameters is kept too: writing to it arrives, all but a new ``.data``. A scope
keeps what it has handed out, and looks when it closes. Torch refuses writes to the
slices of a batch, all but those through ``.data``.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ReferenceType, ref

from torch import Tensor, nn

from ..errors import path_of

if TYPE_CHECKING:
    from .chain import ParametrizationList
    from .entry import Entry

_OURS = __name__.partition(".")[0]
_WAY_OUT = (
    "what is read is computed. Write inside `with holdfast.writable(module):`, or "
    "assign a tensor; to go on with a copy, `.clone()` it first."
)

# What torch's error on writing to a slice of a batch calls the function it is from
BATCH_NAME = "a batch of weights that `holdfast` computes (see `holdfast.writable`)"


def warn_of_lost_write(host: ReferenceType[nn.Module], name: str) -> None:
    """Say that a value was written to, and how to write to the weight."""
    module = host()
    path = name if module is None else path_of(module, name)
    warnings.warn(
        f"`{path}` was written to in place, which does not change it: {_WAY_OUT}",
        UserWarning,
        stacklevel=callers_depth(),
    )


class Handed(NamedTuple):
    """A value that a scope has handed out, as it was then."""

    value: ReferenceType[Tensor]
    version: int
    host: ReferenceType[nn.Module]
    name: str

    @classmethod
    def of(cls, value: Tensor, host: nn.Module, name: str) -> Handed:
        """Note what is handed out."""
        return cls(ref(value), value._version, ref(host), name)

    def is_written(self, entry: Entry | None, chain: ParametrizationList) -> bool:
        """Tell whether it was written to, and nothing that it is computed from."""
        return (
            entry is not None
            and entry.value is self.value()
            and entry.value._version != self.version
            and entry.is_current(chain)
        )


def note_of_write(
    error: BaseException | None, values: Mapping[ParametrizationList, Entry]
) -> None:
    """Add to torch's error on writing to a slice of a batch what to do instead."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    if error is None or "function that returns multiple views" not in text:
        return
    slices = {c: entry.value for c, entry in values.items() if entry.value._is_view()}
    found = re.match(r"Output (\d+) of " + re.escape(BATCH_NAME), text)
    paths = [
        f"`{path_of(chain)}`"
        for chain, value in slices.items()
        if found and value.output_nr == int(found[1])
    ]
    if not slices:
        return  # it is of something else
    what = " or ".join(paths) or "If it was a weight, it"
    if "another view of its base" in text:
        what += ", or another weight of its batch,"
    error.add_note(
        f"{what} was written to in place, which does not change it: {_WAY_OUT}"
    )


class Slice:
    """A slice of joined parameters as it was handed out; no part of a copy or file."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.storage = tensor, tensor.untyped_storage()._cdata

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def is_elsewhere(self) -> bool:
        """Tell whether it was given other memory, by ``.data = ...``."""
        return self.tensor.untyped_storage()._cdata != self.storage


def hand_out(module: nn.Module, name: str, tensor: Tensor | None) -> None:
    """Keep a slice until the next is asked for, and look what became of the last."""
    slot = f"{name} (handed out)"  # no attribute's name
    last: Slice | None = module.__dict__.pop(slot, None)
    if tensor is not None:
        module.__dict__[slot] = Slice(tensor)
    if last is not None and last.is_elsewhere():
        warnings.warn(
            f"`{path_of(module, name)}` was given another `.data`, which does not "
            "change it: it is a slice of joined parameters. Assign the tensor to it, "
            "or copy into it: `.data.copy_(...)`.",
            UserWarning,
            stacklevel=callers_depth(),
        )


def callers_depth() -> int:
    """Return how many frames up the first one is that is not ours, nor torch's."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        (_OURS, "torch.", "contextlib")
    ):
        depth, frame = depth + 1, frame.f_back
    return depth
