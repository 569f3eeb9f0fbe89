"""Whose a map or a tensor is.

No two chains share a map with state (A13), and no shallow copy changes the tensors of
the module that it was copied from (I2).
"""

from __future__ import annotations

import gc
import sys
from typing import Any
from weakref import ReferenceType, ref

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

# By identity: a module may be equal to another, or not be hashable
_homes: Any = WeakIdKeyDictionary()


def home_of(map_: nn.Module) -> nn.ModuleList | None:
    """Return the chain that already holds this map, if one does."""
    home = _home(map_)
    held = home is not None and any(m is map_ for m in home._modules.values())
    return home if held else None


def _home(part: nn.Module) -> nn.ModuleList | None:
    home: ReferenceType[nn.ModuleList] | None = _homes.get(part)
    return None if home is None else home()


def forget_at_home(part: nn.Module) -> None:
    """Let the chain that a map is part of use no value again that it computed."""
    home: Any = _home(part)
    if home is not None:
        home.forget()


def parts_of(map_: nn.Module) -> list[nn.Module]:
    """Return a map and all modules below it."""
    parts = [map_]
    for part in parts:
        if part._modules:
            parts += [below for below in part._modules.values() if below is not None]
    return parts


def claim(chain: nn.ModuleList) -> None:
    """Note which maps the chain holds."""
    for map_ in chain._modules.values():
        for part in parts_of(map_):
            _homes[part] = ref(chain)


def disown(chain: nn.ModuleList) -> None:
    """Forget the maps of a chain that is no longer in use."""
    for map_ in chain._modules.values():
        for part in parts_of(map_):
            _homes.pop(part, None)


# The tensors of shallow copies that belong to another module: their names and ids
_borrowed: Any = WeakIdKeyDictionary()


def borrow(module: nn.Module) -> None:
    """Note that a shallow copy has the tensors of another module."""
    _borrowed[module] = {name: id(tensor) for name, tensor in _tensors(module).items()}


def borrows(module: nn.Module, name: str) -> bool:
    """Tell whether a tensor belongs to another module too, by ``copy.copy``.

    A change of coordinates then has to leave it alone and take a tensor of its own.
    """
    if module not in _borrowed and _shares_its_registry(module):
        borrow(module)
    return _borrowed.get(module, {}).get(name) == id(_tensors(module)[name])


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return {**module._parameters, **module._buffers}


def _shares_its_registry(module: nn.Module) -> bool:
    """Tell whether ``copy.copy`` made two modules of one registry of parameters."""
    if _references(module) == _references(_SAMPLE):
        return False
    # somebody else has it: another module, or only somebody who looks at it
    registry = module.__dict__["_parameters"]
    holders: list[Any] = gc.get_referrers(registry)
    states = [h for h in holders if isinstance(h, dict) and "_modules" in h]
    return sum(state.get("_parameters") is registry for state in states) > 1


def _references(module: nn.Module) -> int:
    return sys.getrefcount(module.__dict__["_parameters"])


_SAMPLE = nn.Module()
