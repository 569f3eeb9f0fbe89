"""A plain tensor in the place of a computed one, and how to tell what became of it."""

from __future__ import annotations

from torch import Tensor

from .entry import PLAIN
from .fingerprint import fingerprint
from .sources import Source, undisturbed


class StandIn:
    """A plain tensor in the place of a computed one, and what it was at first."""

    def __init__(self, source: Source, tensor: Tensor) -> None:
        self.source, self.name, self.tensor = source, source.name, tensor
        self.dtype, self.device = tensor.dtype, tensor.device
        self.requires_grad, self.version = tensor.requires_grad, tensor._version
        self.print = _print(tensor)

    def is_changed(self, now: Tensor) -> bool:
        """Tell whether it has another value, or more than another dtype, by now."""
        if now.is_meta:
            return False
        if self.print is None or type(now) not in PLAIN:
            return now is not self.tensor or now._version != self.version
        if now.dtype == self.dtype:
            return _print(now) != self.print
        with undisturbed():
            expected = self.source.value().to(now.device, now.dtype)
        return _print(expected) != _print(now)

    def follow(self, now: Tensor) -> None:
        """Let the originals be moved and frozen as the stand-in was."""
        if (now.dtype, now.device) != (self.dtype, self.device):
            self.source.follow(now)
        if now.requires_grad != self.requires_grad:
            for original in self.source.originals():
                original.requires_grad_(now.requires_grad)


def _print(tensor: Tensor) -> int | None:
    readable = type(tensor) in PLAIN and not tensor.is_meta
    return fingerprint(tensor) if readable else None
