"""Writes to computed values (W1), which change nothing.

A plain read hands out a value that nobody holds but the reader, so that what becomes of
it cannot be known. The memo keeps what it has handed out, and looks at its version
before it does so again: there a write is seen, and costs nothing to see.
"""

from __future__ import annotations

import sys
import warnings
from weakref import ReferenceType

from torch import nn

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
        stacklevel=_depth(),
    )


def _depth() -> int:
    """Return how many frames up the first one is that is not ours, nor torch's."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        (_OURS, "torch.", "contextlib")
    ):
        depth, frame = depth + 1, frame.f_back
    return depth
