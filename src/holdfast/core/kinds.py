"""Which chains can be evaluated as one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple
from weakref import WeakValueDictionary

from torch import nn

from .calling import is_unhooked
from .chain import ParametrizationList
from .entry import PLAIN, Registry, tensors_of
from .parametrization import Foreach, Parametrization
from .sharing import parts_of


class Likeness:
    """What equal chains have in common, as one object for all of them."""

    def __init__(self, description: Hashable) -> None:
        self.description = description


_likenesses: WeakValueDictionary[Hashable, Likeness] = WeakValueDictionary()


class Kind(NamedTuple):
    """What a batch needs to know of a chain, until its structure changes."""

    likeness: Likeness
    foreach: Foreach
    places: tuple[tuple[Registry, str], ...]  # of the tensors it computes from
    size: int  # of the largest
    own: Registry  # tells a chain from its shallow copy


def kind_of(chain: ParametrizationList) -> Kind | None:
    """Return the kind of a chain, ``None`` if it is evaluated on its own."""
    state = chain.__dict__
    if state["_disabled"]:
        return None
    kind = state["_kind"]
    if kind is None or (kind and kind.own is not state["_parameters"]):
        kind = state["_kind"] = _kind(chain) or ()
    return kind or None


def _kind(chain: ParametrizationList) -> Kind | None:
    maps = parts_of(chain)[1:]
    ways: set[Foreach | None] = set()
    for map_ in maps:
        if not isinstance(map_, Parametrization) or not is_unhooked(map_):
            return None
        ways.add(map_.foreach)
    if None in ways:
        return None
    found = list(tensors_of(chain))
    places = tuple((registry, name) for registry, name, _ in found)
    tensors = [tensor for _, _, tensor in found]
    if not all(type(tensor) in PLAIN for tensor in tensors):
        return None
    key = (
        tuple(chain._parameters),
        tuple(chain._buffers),
        tuple(map(_described, maps)),
        tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors),
    )
    try:
        hash(key)
    except TypeError:  # an argument that cannot be compared
        return None
    likeness = _likenesses.setdefault(key, Likeness(key))
    way: Foreach = "vmap" if "vmap" in ways else "stack"
    if way == "vmap" and any(tensor.is_complex() for tensor in tensors):
        return None  # torch lacks rules for some of their operations, and warns
    size = max((tensor.numel() for tensor in tensors), default=0)
    return Kind(likeness, way, places, size, chain.__dict__["_parameters"])


def _described(map_: nn.Module) -> Hashable:
    """Return all that a map is but for its tensors."""
    state = map_.__dict__
    return (
        type(map_),
        map_.training,
        tuple((name, state[name]) for name in sorted(state.keys() - _INTERNAL)),
        tuple(map_._modules),
        tuple((name, tensor is None) for name, tensor in map_._buffers.items()),
        tuple((name, tensor is None) for name, tensor in map_._parameters.items()),
    )


_INTERNAL = nn.Module().__dict__.keys()
