"""Whose a map or a tensor is.

No two chains share a map with state (A13), and no shallow copy changes the tensors of
the module that it was copied from (I2).
"""

from __future__ import annotations

import gc
import sys
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import Tensor, nn

_homes: WeakKeyDictionary[nn.Module, ReferenceType[nn.ModuleList]]
_homes = WeakKeyDictionary()


def home_of(map_: nn.Module) -> nn.ModuleList | None:
    """Return the chain that already holds this map, if one does."""
    home = _homes.get(map_, lambda: None)()
    held = home is not None and any(m is map_ for m in home._modules.values())
    return home if held else None


def forget_at_home(map_: nn.Module) -> None:
    """Let the chain that holds a map use no value again that it computed before."""
    home: Any = home_of(map_)
    if home is not None:
        home.forget()


def claim(chain: nn.ModuleList) -> None:
    """Note which maps the chain holds."""
    for map_ in chain._modules.values():
        _homes[map_] = ref(chain)


def disown(chain: nn.ModuleList) -> None:
    """Forget the maps of a chain that is no longer in use."""
    for map_ in chain._modules.values():
        _homes.pop(map_, None)


# The tensors of shallow copies that belong to another module: their names and ids
_borrowed: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()


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
