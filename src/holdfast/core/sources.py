"""What computes a tensor of a module: a chain, ours or torch's, or an old hook.

A source does not keep the module alive, and can do its work apart from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from .chain import ParametrizationList
from .checks import Where
from .classes import is_parametrized
from .entry import trackable
from .inversion import inverted
from .legacy import LegacyNorm, legacy_norms
from .refinement import refine_hook
from .torch_state import is_any_autocast_enabled
from .transaction import Snapshot


class ChainSource:
    """A tensor that a chain computes, ours or torch's, apart from its module."""

    def __init__(self, chains: nn.Module, name: str, chain: nn.ModuleList) -> None:
        self.chains, self.name, self.chain = chains, name, chain

    @property
    def key(self) -> int:
        """What tells it from others; a chain may serve two names."""
        return id(self.chain)

    def originals(self) -> list[Tensor]:
        """Return the free tensors."""
        tensors = (*self.chain._parameters.values(), *self.chain._buffers.values())
        return [tensor for tensor in tensors if tensor is not None]

    def persistent(self) -> bool:
        """Tell whether a state dict has it."""
        return not self.chain._non_persistent_buffers_set

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return what the module has of it, by registry and name."""
        return {"_modules": {"parametrizations": self.chains}}

    def owns(self, hook: object) -> bool:
        """Tell whether a hook of the module belongs to it."""
        return hook is refine_hook

    def value(self) -> Tensor:
        """Compute the value; state that torch's maps move on reading stays."""
        if isinstance(self.chain, ParametrizationList):
            return self.chain()
        state = Snapshot(self.guarded())
        with state:
            value = self.chain()
        state.restore()
        return value

    def guarded(self) -> list[nn.Module]:
        """Return the modules whose state `inverted` may move."""
        return [*self.chain._modules.values()]  # pyright: ignore[reportReturnType]

    def inverted(self, value: Tensor, where: Where) -> list[tuple[Tensor, Tensor]]:
        """Return each original with what it has to become for a value."""
        chain = self.chain
        if not isinstance(chain, ParametrizationList):
            chain = ParametrizationList.of_torchs(chain, chain().shape)
        return inverted(chain, value, where)

    def settle(self) -> None:
        """Let no value that was computed before be used again."""
        if isinstance(self.chain, ParametrizationList):
            self.chain.forget()

    def follow(self, tensor: Tensor) -> None:
        """Go to the device and dtype of a tensor."""
        self.chain.to(device=tensor.device, dtype=tensor.dtype)


Source = ChainSource | LegacyNorm


def sources_of(module: nn.Module) -> list[Source]:
    """Return all tensors of a module that are computed."""
    chains: Any = module._modules["parametrizations"] if is_parametrized(module) else {}
    return [
        *(
            ChainSource(chains, *item)
            for item in getattr(chains, "_modules", {}).items()
        ),
        *legacy_norms(module),
    ]


def hosts_below(model: nn.Module) -> list[nn.Module]:
    """Return a model and all modules below it that are no part of a chain."""
    found = {id(model): model}
    waiting = [model]
    for module in waiting:
        for name, child in module.named_children():
            of_chains = name == "parametrizations" and is_parametrized(module)
            if id(child) not in found and not of_chains:
                found[id(child)] = child
                waiting.append(child)
    return waiting


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """Compute as outside of autograd, inference mode and autocast."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(trackable())
        stack.enter_context(torch.no_grad())
        if is_any_autocast_enabled():
            for device in ("cpu", "cuda", "mps", "xpu"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
        yield
