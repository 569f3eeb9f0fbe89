"""Captured graphs without a device: operations in a list, see `pretended.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def leaves(tree: Any) -> list[Any]:
    """Return what an operation takes or gives; torch's own function takes longer."""
    if isinstance(tree, (tuple, list)):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [tree]


def tensors(tree: object) -> list[Tensor]:
    return [x for x in leaves(tree) if isinstance(x, Tensor)]


class Graph:
    """The operations of a step in order, in the place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.operations: list[tuple[Callable[..., Any], Any, Any, list[Any]]] = []

    def note(self, func: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> None:
        """Keep an operation, and the memory that it fills."""
        old = {x.untyped_storage()._cdata for x in tensors([args, *kwargs.values()])}
        made = [
            x
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in old
            else None
            for x in leaves(out)
        ]
        self.operations.append((func, args, kwargs, made))

    def end(self) -> None:
        """Forget the values: a capture computes none."""
        with torch._C._AutoDispatchBelowAutograd():
            for *_, made in self.operations:
                for x in made:
                    if x is not None and x.is_floating_point():
                        x.fill_(math.nan)

    def replay(self) -> None:
        """Run everything again, in the same memory."""
        with torch._C._AutoDispatchBelowAutograd(), torch._C.DisableTorchFunction():
            for func, args, kwargs, made in self.operations:
                again = leaves(func(*args, **kwargs))
                for x, y in zip(made, again, strict=True):
                    if x is not None:
                        x.copy_(y)
