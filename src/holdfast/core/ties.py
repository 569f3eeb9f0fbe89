"""Tensors that several modules have (A11): they are not parametrized under one name.

Nobody keeps a list of the modules that a tensor is registered in. Mostly it is in one
place only, which its count of references tells; else the garbage collector knows.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import TiedTensorError, path_of
from .checks import Where
from .epoch import EpochList
from .sharing import Notes, is_borrowed, is_disowned

# With how many references a tensor was found to have no other name: asking the
# collector takes 10 ms, and some register and remove at every forward.
_untied: Notes[dict[str, tuple[int, int]]] = Notes()


class _Place(NamedTuple):
    """Where a tensor is registered, and how many references it had there."""

    module: nn.Module
    registry: dict[str, Any]
    name: str
    count: int


def check_untied(module: nn.Module, name: str, where: Where) -> bool:
    """Refuse a tensor that has other names, and tell whether anybody else has it."""
    registry = module._parameters if name in module._parameters else module._buffers
    tensor, count = registry[name], _references(registry, name)
    if tensor is None or count <= _OWN_REFERENCES:
        return False
    known, enough = (_untied.get(module) or {}).get(name, (0, 0))
    if known == id(tensor) and count <= enough:
        return True
    if _others(registry, name):
        gc.collect()  # not those of modules that nobody has any more
        if others := _others(registry, name):
            names = sorted(path_of(place.module, place.name) for place in others)
            raise TiedTensorError(
                f"`{where()}` is tied: the same tensor is also "
                f"{', '.join(f'`{other}`' for other in names)}, which would "
                "become the free tensor, and not the weight. Untie it first, with "
                f"`module.{name} = nn.Parameter(module.{name}.detach().clone())`, or "
                "keep it in one module and let the other read it there."
            )
    _note(module, name, tensor, count)
    return True


def _note(module: nn.Module, name: str, tensor: object, count: int) -> None:
    seen = _untied.get(module) or {}
    _untied.put(module, {**seen, name: (id(tensor), count)})


def _references(registry: Mapping[str, object], name: str) -> int:
    return sys.getrefcount(registry[name])


# The names of ours that a tensor has here: in `check_untied`, and in `prepare`
_OURS = 2

_OWN_REFERENCES = _references({"": torch.empty(1)}, "") + _OURS


def _others(registry: dict[str, Any], name: str) -> list[_Place]:
    """Return the other places of a tensor, without copies and old chains."""
    tensor = registry[name]
    return [
        place
        for place in _survey().get(id(tensor), ())  # after `gc.freeze` it finds none
        if not (place.registry is registry and place.name == name)
        and not is_borrowed(place.module, tensor)
        and not (isinstance(place.module, EpochList) and is_disowned(place.module))
    ]


def _survey() -> dict[int, list[_Place]]:
    """Return the places of all tensors; note those that are in one only.

    The others of a model come next, and a survey of everything takes 20 ms.
    """
    places: dict[int, list[_Place]] = {}
    for module, registry in _registries():
        for name in registry:
            place = _Place(module, registry, name, _references(registry, name))
            places.setdefault(id(registry[name]), []).append(place)
    for found in places.values():
        if len(found) == 1:
            module, registry, name, count = found[0]
            _note(module, name, registry[name], count + _OURS)
    return places


def _registries() -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Yield what tensors are registered in; shallow copies may share it."""
    seen: set[int] = set()
    for module in _modules():
        for kind in ("_parameters", "_buffers"):
            registry = module.__dict__.get(kind)
            if registry and id(registry) not in seen:
                seen.add(id(registry))
                yield module, registry


def _modules() -> list[nn.Module]:
    """Return all modules that there are."""
    classes: dict[int, type] = {id(nn.Module): nn.Module}
    waiting: list[type] = [nn.Module]
    for cls in waiting:
        below = [each for each in type.__subclasses__(cls) if id(each) not in classes]
        classes.update((id(each), each) for each in below)
        waiting += below
    return [thing for thing in gc.get_objects() if id(type(thing)) in classes]
