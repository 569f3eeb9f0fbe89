"""Whose a map or a tensor is.

No two chains share a map with state (A13), and no shallow copy changes the tensors of
the module that it was copied from (I2).
"""

from __future__ import annotations

import gc
import sys
from typing import Any, Generic, TypeVar
from weakref import ReferenceType, ref

from torch import Tensor, nn

Noted = TypeVar("Noted")


class Notes(Generic[Noted]):
    """What is noted of modules while they live, by identity.

    A module may be equal to another, or not be hashable.
    """

    def __init__(self) -> None:
        self._notes: dict[int, tuple[ReferenceType[nn.Module], Noted]] = {}

    def get(self, module: nn.Module) -> Noted | None:
        """Return what is noted of a module."""
        note = self._notes.get(id(module))
        return note[1] if note is not None and note[0]() is module else None

    def put(self, module: nn.Module, noted: Noted) -> None:
        """Note it, in the place of what was noted before."""
        key, notes = id(module), self._notes
        self._notes[key] = (ref(module, lambda _: notes.pop(key, None)), noted)

    def drop(self, module: nn.Module) -> None:
        """Forget it."""
        self._notes.pop(id(module), None)


_homes: Notes[ReferenceType[nn.ModuleList]] = Notes()


def home_of(map_: nn.Module) -> nn.ModuleList | None:
    """Return the chain that already holds this map, if one does."""
    home = _home(map_)
    held = home is not None and any(m is map_ for m in home._modules.values())
    return home if held else None


def _home(part: nn.Module) -> nn.ModuleList | None:
    home = _homes.get(part)
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


def holder_of(map_: nn.Module) -> tuple[nn.Module, nn.ModuleList] | None:
    """Return a part of a map that has state, and the chain that has it at any depth."""
    for part, home in _in_use(map_):
        # a map may have computed tensors of its own
        inside = any(home is each for each in parts_of(map_))
        if _has_tensors(part) and not inside:
            return part, home
    return None


def _in_use(map_: nn.Module) -> list[tuple[nn.Module, nn.ModuleList]]:
    """Return the parts of a map that a chain has at any depth, with that chain."""
    return [
        (part, home)
        for part in parts_of(map_)
        if (home := _home(part)) is not None
        and any(
            each is part for link in home._modules.values() for each in parts_of(link)
        )
    ]


def notes_in_use(map_: nn.Module) -> list[tuple[nn.Module, dict[str, object]]]:
    """Return those parts of a map that a chain has, with notes to compare later."""
    return [(part, notes_of(part)) for part, _ in _in_use(map_)]


def notes_of(part: nn.Module) -> dict[str, object]:
    """Return the plain attributes of a map, which `bind` may change: shapes, counts."""
    return {
        name: value
        for name, value in vars(part).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, int | float | str | None)


def _has_tensors(part: nn.Module) -> bool:
    return any(tensor is not None for tensor in _tensors(part).values())


def claim(chain: nn.ModuleList) -> None:
    """Note which maps the chain holds."""
    home = ref(chain)
    for map_ in chain._modules.values():
        for part in parts_of(map_):
            _homes.put(part, home)


def disown(chain: nn.ModuleList) -> None:
    """Forget the maps of a chain that is no longer in use."""
    for map_ in chain._modules.values():
        for part in parts_of(map_):
            _homes.drop(part)


def is_disowned(chain: nn.ModuleList) -> bool:
    """Tell whether a chain is no longer in use, though somebody still holds it."""
    return all(home_of(map_) is not chain for map_ in chain._modules.values())


# The tensors of shallow copies that belong to another module: their names and ids
_borrowed: Notes[dict[str, int]] = Notes()


def borrow(module: nn.Module) -> None:
    """Note that a shallow copy has the tensors of another module."""
    tensors = _tensors(module)
    _borrowed.put(module, {name: id(tensor) for name, tensor in tensors.items()})


def borrows(module: nn.Module, name: str) -> bool:
    """Tell whether a tensor belongs to another module too, by ``copy.copy``.

    A change of coordinates then has to leave it alone and take a tensor of its own.
    """
    borrowed = _borrowed.get(module)
    if borrowed is None and _shares_its_registry(module):
        borrow(module)
        borrowed = _borrowed.get(module)
    return borrowed is not None and borrowed.get(name) == id(_tensors(module)[name])


def is_borrowed(module: nn.Module, tensor: Tensor) -> bool:
    """Tell whether a shallow copy has a tensor of another module."""
    return id(tensor) in (_borrowed.get(module) or {}).values()


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return {**module._parameters, **module._buffers}


def _shares_its_registry(module: nn.Module) -> bool:
    """Tell whether ``copy.copy`` made two modules of one registry of parameters."""
    if _references(module) == _ALONE:
        return False
    # somebody else has it: another module, or only somebody who looks at it
    registry = module.__dict__["_parameters"]
    holders: list[Any] = gc.get_referrers(registry)
    states = [h for h in holders if isinstance(h, dict) and "_modules" in h]
    return sum(state.get("_parameters") is registry for state in states) > 1


def _references(module: nn.Module) -> int:
    return sys.getrefcount(module.__dict__["_parameters"])


_ALONE = _references(nn.Module())
