"""Tensors that several modules have (A11): they are not parametrized under one name.

Nobody keeps a list of the modules that a tensor is registered in. Mostly it is in one
place only, which its count of references tells; else the garbage collector knows.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TiedTensorError, path_of
from .checks import Where
from .epoch import EpochList
from .sharing import Notes, is_borrowed, is_disowned

# With how many references a tensor was found to have no other name: asking the
# collector takes 10 ms, and some register and remove at every forward.
_untied: Notes[dict[str, tuple[int, int]]] = Notes()


def check_untied(module: nn.Module, name: str, where: Where) -> None:
    """Refuse a tensor that has other names."""
    registry = module._parameters if name in module._parameters else module._buffers
    tensor, count = registry[name], _references(registry, name)
    if tensor is None or count <= _OWN_REFERENCES:
        return
    known, enough = (_untied.get(module) or {}).get(name, (0, 0))
    if known == id(tensor) and count <= enough:
        return
    if _survey()[id(tensor)] > 1 and _others(module, name, tensor):
        gc.collect()  # not those of modules that nobody has any more
        if names := [path_of(*place) for place in _others(module, name, tensor)]:
            raise TiedTensorError(
                f"`{where()}` is tied: the same tensor is also "
                f"{', '.join(f'`{other}`' for other in sorted(names))}, which would "
                "become the free tensor, and not the weight. Untie it first, with "
                f"`module.{name} = nn.Parameter(module.{name}.detach().clone())`, or "
                "keep it in one module and let the other read it there."
            )
    _untied.put(module, {**(_untied.get(module) or {}), name: (id(tensor), count)})


def _survey() -> dict[int, int]:
    """Return in how many places each tensor is; note those that are in one only.

    The others of a model come next, and a survey of everything takes 20 ms.
    """
    places: dict[int, list[tuple[nn.Module, str, int]]] = {}
    for module in _modules():
        for registry in (module.__dict__.get(name) or {} for name in _REGISTRIES):
            for name in registry:
                count = _references(registry, name) + _OURS
                place = (module, name, count)
                places.setdefault(id(registry[name]), []).append(place)
    for key, found in places.items():
        if len(found) == 1:
            module, name, count = found[0]
            _untied.put(module, {**(_untied.get(module) or {}), name: (key, count)})
    return {key: len(found) for key, found in places.items()}


def _modules() -> list[nn.Module]:
    """Return all modules that there are."""
    classes: dict[int, type] = {id(nn.Module): nn.Module}
    waiting: list[type] = [nn.Module]
    for cls in waiting:
        below = [each for each in type.__subclasses__(cls) if id(each) not in classes]
        classes.update((id(each), each) for each in below)
        waiting += below
    return [thing for thing in gc.get_objects() if id(type(thing)) in classes]


def _references(registry: Mapping[str, object], name: str) -> int:
    return sys.getrefcount(registry[name])


# The names of ours that a tensor has here: in `check_untied`, and in `prepare`
_OURS = 2

_OWN_REFERENCES = _references({"": torch.empty(1)}, "") + _OURS

_REGISTRIES = ("_parameters", "_buffers")


def _others(
    module: nn.Module, name: str, tensor: Tensor
) -> list[tuple[nn.Module, str]]:
    """Return the other places of a tensor, without copies and old chains."""
    return [
        (owner, key)
        for owner, registry in _owners(tensor)
        for key, value in registry.items()
        if value is tensor
        and not (owner is module and key == name)
        and not is_borrowed(owner, tensor)
        and not (isinstance(owner, EpochList) and is_disowned(owner))
    ]


def _owners(tensor: Tensor) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Yield the modules that a tensor is registered in, with the registries."""
    holders = [h for h in _holders(tensor) if any(v is tensor for v in h.values())]
    if len(holders) < 2 and sum(v is tensor for h in holders for v in h.values()) < 2:
        return
    states = [h for h in _holders(*holders) if "_parameters" in h and "_buffers" in h]
    for module in gc.get_referrers(*states):
        state = getattr(module, "__dict__", None)
        if isinstance(module, nn.Module) and any(state is s for s in states):
            for registry in (module._parameters, module._buffers):
                if any(registry is holder for holder in holders):
                    yield module, registry


def _holders(*things: object) -> list[dict[str, Any]]:
    return [h for h in gc.get_referrers(*things) if isinstance(h, dict)]
