"""A forward that computes each of its module's weights once, however often it reads.

``nn.MultiheadAttention`` asks a weight for its dtype, its device and whether it wants
a gradient before using it, and every question is a read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from .cache import cached
from .chain import ParametrizationList
from .torch_state import is_grad_enabled


def reading_once(cls: type, base: type[nn.Module]) -> Callable[..., Any]:
    """Return the forward for a class derived from ``base``: its own, inside a scope."""

    @functools.wraps(base.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run: Callable[..., Any] = super(cls, self).forward  # type: ignore[misc]
        if not is_grad_enabled() and _remembers_all(self):
            return run(*args, **kwargs)
        with cached(self):
            return run(*args, **kwargs)

    return forward


def _remembers_all(module: nn.Module) -> bool:
    """Tell whether the memo computes less than a scope, which ends with the forward."""
    chains: Any = module._modules.get("parametrizations")
    return all(
        isinstance(chain, ParametrizationList) and chain.is_deterministic()
        for chain in getattr(chains, "_modules", {}).values()
    )
