"""The classes of modules whose tensors are joined: properties that slice the whole.

One class for all modules of the same class whose tensors are joined in the same way,
as for parametrized ones (`core/classes.py`).
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ..errors import InvalidTensorError, describe, path_of
from . import recurrent
from .classes import chain_of
from .joints import LAYOUT, Joint, gather
from .lost_writes import hand_out
from .once import reading_once
from .torch_state import is_traced


class JoinedMeta(type):
    """Lets a joined class be pickled as what it was made from."""


_classes: WeakValueDictionary[tuple[type, tuple[Joint, ...]], type] = (
    WeakValueDictionary()
)
_metaclasses: dict[type, type] = {type: JoinedMeta}
_lock = threading.RLock()


def joined_class(base: type[nn.Module], joints: tuple[Joint, ...]) -> type:
    """Return the one class for instances of ``base`` with these tensors joined."""
    with _lock:
        cls = _classes.get((base, joints))
        if cls is None:
            cls = _classes[base, joints] = _make_class(base, joints)
        return cls


def _make_class(base: type[nn.Module], joints: tuple[Joint, ...]) -> type:
    body: dict[str, Any] = {
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        LAYOUT: joints,
    }
    for joint in joints:
        body |= {name: _property(joint, name) for name, _ in joint.parts}
    cls = _metaclass(type(base))(f"Joined{base.__name__}", (base,), body)
    members = _members_of(cls, {name for j in joints for name, _ in j.parts})
    if issubclass(base, nn.RNNBase):
        members |= recurrent.members_of(cls, base)
    else:
        members["forward"] = reading_once(cls, base)
    for name, member in members.items():
        setattr(cls, name, member)
    return cls


def _property(joint: Joint, name: str) -> property:
    """Return the property that reads a slice of the whole, and assigns to it."""

    def get(self: nn.Module) -> Tensor:
        whole: Tensor = getattr(self, joint.name)
        part = joint.split(whole)[name]
        if not is_traced():
            own = type(whole) is nn.Parameter and not whole.is_meta
            hand_out(self, name, part if own else None)
        return part

    def set_(self: nn.Module, value: object) -> None:
        _assign(self, joint, name, value)

    return property(get, set_, doc=f"A slice of `{joint.name}`.")


def _assign(module: nn.Module, joint: Joint, name: str, value: object) -> None:
    """Set a slice of the whole; what is parametrized goes through right inverses."""
    with torch.no_grad():
        now: Tensor = getattr(module, joint.name)
        part = joint.split(now)[name]
        if not isinstance(value, Tensor) or _like(value) != _like(part):
            raise InvalidTensorError(
                f"Cannot assign {describe(value)} to `{path_of(module, name)}`: "
                f"expected shape {tuple(part.shape)}, dtype {part.dtype}, device "
                f"{part.device}."
            )
        if chain_of(module, joint.name) is None:
            part.copy_(value)
            return
        whole = now.clone()
        joint.split(whole)[name].copy_(value)
        setattr(module, joint.name, whole)


def _like(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device


def _members_of(cls: type, parts: set[str]) -> dict[str, Callable[..., Any]]:
    """Return the methods of ``nn.Module`` that a joined class has to extend."""

    def get_other(self: nn.Module, name: str) -> Any:
        # Python asks here after a property raised AttributeError. Asked again, without
        # a property between, the error is not replaced (R1).
        if name in parts:
            return cast("Any", cls).__dict__[name].fget(self)
        return cast("Any", super(cls, self)).__getattr__(name)

    def set_(self: nn.Module, name: str, value: object) -> None:
        if name in parts:  # also an nn.Parameter, which nn.Module would register
            object.__setattr__(self, name, value)
        else:
            super(cls, self).__setattr__(name, value)

    def load(self: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        gather(self, state, prefix)
        cast("Any", super(cls, self))._load_from_state_dict(state, prefix, *rest)

    return {
        "__getattr__": get_other,
        "__setattr__": set_,
        "_load_from_state_dict": load,
    }


def _metaclass(meta: type) -> type:
    if meta not in _metaclasses:
        _metaclasses[meta] = type("JoinedMeta", (JoinedMeta, meta), {})
        copyreg.pickle(_metaclasses[meta], _reduce_class)  # type: ignore[arg-type]
    return _metaclasses[meta]


def _reduce_class(cls: type) -> Any:
    """Pickle a joined class as the class and the layout that it was made from."""
    if LAYOUT not in vars(cls):
        return cls.__qualname__  # a class of somebody else on top: by its name
    return joined_class, (cls.__bases__[0], vars(cls)[LAYOUT])


copyreg.pickle(JoinedMeta, _reduce_class)  # type: ignore[arg-type]
