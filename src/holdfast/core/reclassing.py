"""Changing the class of an instance, below what other tools have put on top of it.

FSDP2's ``fully_shard`` gives a module a class of its own that derives from the one it
had. That class is made anew with another ancestor; it is the tool's in all else.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from .classes import original_class, parametrized_class, shared_class


def reclass(
    module: nn.Module, names: Iterable[str], base: type[nn.Module] | None = None
) -> None:
    """Give an instance the class for these parametrized names, perhaps of another base.

    Classes that another tool has put on top (FSDP2's ``fully_shard``) stay on top.
    """
    cls = type(module)
    old = shared_class(cls) or cls
    base = base or original_class(cls)
    new = parametrized_class(base, frozenset(names)) if names else base
    object.__setattr__(module, "__class__", _rebuild(cls, old, new))


def _rebuild(cls: type, old: type, new: type) -> type:
    """Return ``cls`` with the ancestor ``old`` replaced by ``new``."""
    if cls is old:
        return new
    if not issubclass(cls, old):
        return cls
    bases = tuple(_rebuild(base, old, new) for base in cls.__bases__)
    own = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    cell = types.CellType()
    body = {name: _moved(value, cls, cell) for name, value in own.items()}
    rebuilt = types.new_class(
        cls.__name__, bases, exec_body=lambda namespace: namespace.update(body)
    )
    cell.cell_contents = rebuilt
    return rebuilt


def _moved(value: Any, cls: type, cell: types.CellType) -> Any:
    """Return a member of a class with ``super()`` meaning the class in the cell."""
    if isinstance(value, classmethod | staticmethod):
        wrap: Any = type(value)
        return wrap(_moved(cast("Any", value).__func__, cls, cell))
    if isinstance(value, property):
        fget, fset, fdel = (
            _moved(part, cls, cell) for part in (value.fget, value.fset, value.fdel)
        )
        return property(fget, fset, fdel, value.__doc__)
    free = value.__code__.co_freevars if isinstance(value, types.FunctionType) else ()
    if "__class__" not in free:
        return value
    cells = dict(zip(free, value.__closure__ or (), strict=True))
    if cells["__class__"].cell_contents is not cls:
        return value
    closure = tuple({**cells, "__class__": cell}.values())
    twin = types.FunctionType(
        value.__code__, value.__globals__, value.__name__, value.__defaults__, closure
    )
    twin.__kwdefaults__, twin.__qualname__ = value.__kwdefaults__, value.__qualname__
    twin.__dict__.update(value.__dict__)
    return twin
