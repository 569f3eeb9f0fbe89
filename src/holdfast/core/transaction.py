"""Changing tensors so that a failure leaves them as they were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .entry import PLAIN
from .sharing import parts_of

_REGISTRIES = ("_parameters", "_buffers", "_modules")


class Snapshot:
    """Put maps back, bit for bit, when the block fails."""

    def __init__(self, maps: Iterable[nn.Module]) -> None:
        self._parts = [part for map_ in maps for part in parts_of(map_)]

    def __enter__(self) -> None:
        """Copy what may move: attributes, registries and tensors."""
        self._attributes = [part.__dict__.copy() for part in self._parts]
        self._registries: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        for state in self._attributes:
            for name in _REGISTRIES:
                registry = state[name]
                self._registries.append((registry, registry.copy()))
                if registry:
                    self._tensors += [
                        (tensor, tensor.detach().clone())
                        for tensor in registry.values()
                        if isinstance(tensor, Tensor)
                    ]

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Put everything back if the block failed."""
        if error is not None:
            self.restore()

    def tensors(self) -> list[Tensor]:
        """Return what the maps held at the start."""
        return [tensor for tensor, _ in self._tensors]

    def restore(self) -> None:
        """Put everything back."""
        for part, attributes in zip(self._parts, self._attributes, strict=True):
            part.__dict__.clear()
            part.__dict__.update(attributes)
        self.restore_tensors()

    def restore_tensors(self) -> None:
        """Put back what is registered; what is noted in attributes stays."""
        for registry, entries in self._registries:
            registry.clear()
            registry.update(entries)
        if self._tensors:
            self._restore_values()

    @torch.no_grad()
    def _restore_values(self) -> None:
        for tensor, copy in self._tensors:
            if (tensor.shape, tensor.dtype) != (copy.shape, copy.dtype):
                tensor.data = copy
            elif not tensor.is_meta and not torch.equal(tensor, copy):
                tensor.copy_(copy)


def write(original: Tensor, new: Tensor) -> None:
    """Put a new value into an original, which stays the same object."""
    if not _is_alias(original, new):
        new = new.detach()
        same = new.shape == original.shape and new.dtype == original.dtype
        if same and type(original) in PLAIN:
            original.detach().copy_(new.clone() if _overlap(original, new) else new)
        else:
            with torch.no_grad():
                _replace(original, new.clone())
    original.grad = None  # it was the slope at another point


def _replace(original: Tensor, new: Tensor) -> None:
    if is_traceable_wrapper_subclass(original):
        if isinstance(original, nn.Parameter):
            new = nn.Parameter(new, requires_grad=original.requires_grad)
        torch.utils.swap_tensors(original, new)
    else:
        original.data = new.contiguous()
        torch.autograd.graph.increment_version(original)


def _overlap(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _is_alias(original: Tensor, new: Tensor) -> bool:
    """Tell whether the new value is the old one, as without a right inverse."""
    return new is original or (
        type(original) in PLAIN
        and type(new) in PLAIN
        and new.data_ptr() == original.data_ptr() != 0
        and new.dtype == original.dtype
        and new.shape == original.shape
        and new.stride() == original.stride()
    )


def decisive(originals: Iterable[Tensor]) -> Tensor:
    """Return the one that tells what kind of tensor takes the place of them all."""
    return max(originals, key=lambda t: (isinstance(t, nn.Parameter), t.requires_grad))


def like(original: Tensor, new: Tensor) -> Tensor:
    """Return ``new`` as a tensor of its own, of the original's kind."""
    if new.requires_grad:
        new = new.detach()
    new = new.clone() if new.is_contiguous() else new.contiguous()
    grad = original.requires_grad and (new.is_floating_point() or new.is_complex())
    if isinstance(original, nn.Parameter):
        return nn.Parameter(new, requires_grad=grad)
    return new.requires_grad_(grad)
