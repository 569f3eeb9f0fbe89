"""Which tensors of a module are slices of one: what its class says of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LAYOUT = "_joints"


@dataclass(frozen=True)
class Joint:
    """Several tensors of a module, one after the other along a dimension.

    Attributes:
        name: what the whole is called.
        dim: the dimension.
        parts: the name and the length of each tensor.
    """

    name: str
    dim: int
    parts: tuple[tuple[str, int], ...]

    def ranges(self) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each tensor, where it begins, and its length."""
        start = 0
        for name, length in self.parts:
            yield name, start, length
            start += length

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """Return the tensors as views of the whole."""
        return {
            name: whole.narrow(self.dim, start, length)
            for name, start, length in self.ranges()
        }


def joints_of(cls: type) -> tuple[Joint, ...]:
    """Return the joints of the modules of a class."""
    return getattr(cls, LAYOUT, ())


def gather(module: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Put a whole in the place of its tensors, where a state dict has those.

    If one is missing or of another shape they stay, and are reported as unexpected.
    """
    for joint in joints_of(type(module)):
        keys = [prefix + name for name, _ in joint.parts]
        tensors = [state.get(key) for key in keys]
        like = torch.empty(_shape(module, joint.name), device="meta")
        shapes = [part.shape for part in joint.split(like).values()]
        if [getattr(tensor, "shape", None) for tensor in tensors] == shapes:
            state[prefix + joint.name] = torch.cat([*map(state.pop, keys)], joint.dim)


def _shape(module: nn.Module, name: str) -> torch.Size:
    chains: Any = module._modules.get("parametrizations")
    chain = None if chains is None else chains._modules.get(name)
    whole: Any = module._parameters[name] if chain is None else chain
    return whole.shape
