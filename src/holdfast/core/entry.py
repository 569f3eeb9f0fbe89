"""One computed value with everything it was computed from.

The value is used again only while all of that is the same: each tensor and its version,
the autocast state, and the epoch, which counts all else that may change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from .torch_state import is_any_autocast_enabled

PLAIN = (Tensor, nn.Parameter, nn.Buffer)

if TYPE_CHECKING:
    from .chain import ParametrizationList


Registry = Mapping[str, Tensor | None]
Noted = tuple[tuple[Registry, str, Tensor, int, bool], ...]


class Entry(NamedTuple):
    """A value, and the state of everything that it was computed from."""

    value: Tensor
    state: Mapping[str, Any]  # the chain's `__dict__`
    epoch: int
    autocast: tuple[bool, torch.dtype] | None
    #: where each tensor is, its version, and whether it wanted a gradient
    tensors: Noted

    @classmethod
    def of(
        cls, chain: ParametrizationList, value: Tensor, tensors: Noted | None = None
    ) -> Entry:
        """Note the present state of a chain beside the value just computed."""
        return cls(
            value=value,
            state=chain.__dict__,
            epoch=chain._epoch,
            autocast=autocast_of(value),
            tensors=noted(chain) if tensors is None else tensors,
        )

    def is_current(self, chain: ParametrizationList) -> bool:
        """Tell whether nothing has changed since the value of a chain was computed."""
        for registry, name, tensor, version, wanted in self.tensors:
            if (
                registry.get(name) is not tensor
                or tensor._version != version
                or tensor.requires_grad is not wanted
            ):
                return False
        return self.epoch == chain._epoch and self.autocast == autocast_of(self.value)


def noted(chain: ParametrizationList) -> Noted:
    """Return the tensors of a chain as they are now.

    Raises:
        RuntimeError: one was made in inference mode, and has no version.
    """
    return tuple(
        [
            (registry, name, tensor, tensor._version, tensor.requires_grad)
            for registry, name, tensor in tensors_of(chain)
        ]
    )


def tensors_of(chain: ParametrizationList) -> Iterator[tuple[Registry, str, Tensor]]:
    """Yield ``(registry, name, tensor)`` of all that a chain computes from."""
    if "_is_replica" in chain.__dict__:  # of DataParallel: they are attributes
        for name, value in chain.__dict__.items():
            if name.startswith("original") and isinstance(value, Tensor):
                yield chain.__dict__, name, value
    parts: list[nn.Module] = [chain]
    for part in parts:
        for registry in (part._parameters, part._buffers):
            for name, tensor in registry.items():
                if tensor is not None:
                    yield registry, name, tensor
        parts.extend(part._modules.values())  # type: ignore[arg-type]


def trackable() -> contextlib.AbstractContextManager[object]:
    """Give values a version, which tensors made in inference mode do not have."""
    return _trackable() if torch.is_inference_mode_enabled() else _AS_IT_IS


_AS_IT_IS = contextlib.nullcontext()


@contextlib.contextmanager
def _trackable() -> Generator[None]:
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


def autocast_of(tensor: Tensor) -> tuple[bool, torch.dtype] | None:
    """Return what autocast does to operations on the tensor's device."""
    if not is_any_autocast_enabled():
        return None
    device = tensor.device.type
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
