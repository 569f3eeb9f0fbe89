"""Which chain a map belongs to, so that no two share one that has state (A13)."""

from __future__ import annotations

from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import nn

_homes: WeakKeyDictionary[nn.Module, ReferenceType[nn.ModuleList]]
_homes = WeakKeyDictionary()


def home_of(map_: nn.Module) -> nn.ModuleList | None:
    """Return the chain that already holds this map, if one does."""
    home = _homes.get(map_, lambda: None)()
    held = home is not None and any(m is map_ for m in home._modules.values())
    return home if held else None


def claim(chain: nn.ModuleList) -> None:
    """Note which maps the chain holds."""
    for map_ in chain._modules.values():
        _homes[map_] = ref(chain)


def disown(chain: nn.ModuleList) -> None:
    """Forget the maps of a chain that is no longer in use."""
    for map_ in chain._modules.values():
        _homes.pop(map_, None)
