"""Writes to computed values (W1), which change nothing.

A plain read hands out a value that nobody holds but the reader, so that what becomes of
it cannot be known. The memo keeps what it has handed out, and looks at its version
before it does so again: there a write is seen, and costs nothing to see. A slice of
joined parameters is kept too: writing to it arrives, all but a new ``.data``.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any
from weakref import ReferenceType

from torch import Tensor, nn

from ..errors import path_of

_OURS = __name__.partition(".")[0]


def warn_of_lost_write(host: ReferenceType[nn.Module], name: str) -> None:
    """Say that a value was written to, and how to write to the weight."""
    module = host()
    path = name if module is None else path_of(module, name)
    warnings.warn(
        f"`{path}` was written to in place, which does not change it: what is read is "
        "computed. Write inside `with holdfast.writable(module):`, or assign a tensor; "
        "to go on with a copy, `.clone()` it first.",
        UserWarning,
        stacklevel=callers_depth(),
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
