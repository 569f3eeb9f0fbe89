"""Values handed out as leaves, whose gradients wait for one backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from .torch_state import saved_tensor_hooks

# What `bring_home` calls: the scopes are known in `cache.py`, which comes later
at_home: list[Callable[[], None]] = []


def bring_home() -> None:
    """Bring the gradients that wait to the originals, which are about to move."""
    for bring in at_home:
        bring()


class Leaves:
    """The values of a scope, each with the leaf that stands for it."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._open = True

    def hand_out(self, value: Tensor) -> Tensor:
        """Return a leaf that stands for a value."""
        if not value.requires_grad:
            return value
        leaf = value.detach().requires_grad_()
        leaf.register_hook(partial(_check, ref(self)))
        self._pairs.append((leaf, value))
        return leaf

    def flush(self) -> None:
        """Bring the gradients that have come together to the originals."""
        pairs, self._pairs = self._pairs, []
        values = [value for leaf, value in pairs if leaf.grad is not None]
        grads = [leaf.grad for leaf, _ in pairs if leaf.grad is not None]
        if values:
            torch.autograd.backward(values, grads)

    def drop(self) -> None:
        """Forget the gradients that have come together."""
        for leaf, _ in self._pairs:
            leaf.grad = None

    def close(self) -> None:
        """Hold no value any more, and refuse gradients."""
        self._pairs.clear()
        self._open = False

    def accepts(self) -> bool:
        """Tell whether a gradient that arrives will be brought to its original."""
        return self._open


def _check(leaves: ReferenceType[Leaves], _: Tensor) -> None:
    """Refuse a gradient that nobody would bring to the original."""
    live = leaves()
    if live is None or not live.accepts():
        raise RuntimeError(
            "A loss was computed inside `holdfast.accumulate` and differentiated after "
            "the scope had ended, when the gradients of the weights had been brought "
            "to their originals. Call `backward()` inside the scope."
        )


def unwatched() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which no checkpoint sees the tensors that maps save."""
    if saved_tensor_hooks(True) is None:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_itself, _itself)


def _itself(tensor: Any) -> Any:
    return tensor
