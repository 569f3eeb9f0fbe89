"""Shallow copies of modules that have chains."""

from __future__ import annotations

from typing import Any

from torch import nn

from .chain import ParametrizationList
from .sharing import borrow


def shallow_copy(module: nn.Module) -> nn.Module:
    """Copy shallowly: tensors and maps are shared, the bookkeeping is not."""
    new = _shallow(module)
    borrow(new)
    chains: Any = module._modules.get("parametrizations")
    if chains is not None:
        new._modules["parametrizations"] = chains = _shallow(chains)
        for name, chain in chains._modules.items():
            chains._modules[name] = twin = _shallow(chain)
            if isinstance(chain, ParametrizationList):
                twin.__dict__.update(_shared=True, _disabled=())
    return new


def _shallow(module: Any) -> Any:
    new = module.__new__(type(module))
    new.__dict__.update(_unshared(module))
    return new


def _unshared(module: nn.Module) -> dict[str, Any]:
    return {
        key: value.copy() if isinstance(value, dict | set | list) else value
        for key, value in module.__dict__.items()
    }
