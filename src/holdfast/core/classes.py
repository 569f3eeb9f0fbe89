"""The shared ``Parametrized*`` classes.

All instances of one class that have the same tensors parametrized share one class
with one base, the original. It holds a property for each of these tensors and nothing
of any instance, so equal blocks compile once, stack and pickle.

Note [Torch's functions on a shared class]
    Torch's own functions believe that the class is the instance's own: removal deletes
    the property from it, registration puts another one there. Here the deletion is
    ignored and a property of torch's becomes one of ours; and every property falls
    back on the plain tensor where its instance is not parametrized.
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

from torch import nn

from ..errors import path_of
from . import functional, recurrent
from .chain import ParametrizationList
from .copying import shallow_copy
from .embedding import looking_up
from .filling import filled
from .leaves import bring_home
from .loading import respell
from .once import reading_once
from .reading import failure_of, reader_of

_NAMES = "_parametrized_names"  # which have a property; torch may add some
_MADE_FOR = "_made_for_names"
_ORIGINAL = "_original_class"
_TORCH_CLASSES = "torch.nn.utils.parametrize"


class ParametrizedMeta(type):
    """Guards the properties of a shared class: Note [Torch's functions on a ...]."""

    def __delattr__(cls, name: str) -> None:
        """Ignore that torch deletes a tensor's property."""
        if name not in names_of(cls):
            super().__delattr__(name)

    def __setattr__(cls, name: str, value: object) -> None:
        """Put our property where torch puts its own."""
        if isinstance(value, property) and value.fget.__module__ == _TORCH_CLASSES:
            names_of(cls).add(name)
            value = tensor_property(name)
        super().__setattr__(name, value)


def names_of(cls: type) -> set[str]:
    """Return the names of the tensors that a class has properties for."""
    return getattr(cls, _NAMES, set())


def chain_of(module: nn.Module, name: str) -> nn.ModuleList | None:
    """Return the chain of a tensor, ours or torch's, or ``None``."""
    chains = module.__dict__.get("_modules", {}).get("parametrizations")
    return None if chains is None else chains._modules.get(name)


def tensor_property(name: str) -> property:
    """Return the property that computes a tensor on reading, and assigns to it."""

    def set_(self: nn.Module, value: object) -> None:
        assign(self, name, value)

    def delete(self: nn.Module) -> None:
        # the class may have the property for another instance's sake
        if chain_of(self, name) is not None or name not in self.__dict__:
            raise AttributeError(f"`{path_of(self, name)}` cannot be deleted.")
        del self.__dict__[name]

    doc = f"The parametrized tensor `{name}`."
    return property(reader_of(name), set_, delete, doc)


def assign(module: nn.Module, name: str, value: object) -> None:
    """Set a parametrized tensor: what ``module.weight = value`` does."""
    chain = chain_of(module, name)
    if chain is None:
        module.__dict__[name] = value
    elif not isinstance(chain, ParametrizationList):
        cast("Any", chain).right_inverse(value)
    elif not functional.override(chain, value):
        chain.assign(value, partial(path_of, module, name))


def original_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class that a parametrized class was made from, also by torch."""
    original = getattr(cls, _ORIGINAL, None)
    if original is not None:
        return original
    if cls.__module__ == _TORCH_CLASSES and cls.__name__.startswith("Parametrized"):
        return cls.__bases__[0]
    return cls


def shared_class(cls: type) -> type | None:
    """Return the shared class that a class is or derives from."""
    if not hasattr(cls, _NAMES):
        return None
    return next(c for c in cls.__mro__ if _NAMES in vars(c))


def is_parametrized(module: nn.Module, tensor_name: str | None = None) -> bool:
    """Tell whether a module has parametrized tensors, or this one.

    Args:
        module: any module.
        tensor_name: name of a tensor; ``None`` asks for any.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(2, 2))
        >>> holdfast.is_parametrized(layer, "weight")
        True
        >>> holdfast.is_parametrized(layer, "bias")
        False
    """
    state: Any = getattr(module, "__dict__", {})
    modules = state.get("_modules")
    chains = modules.get("parametrizations") if modules else None
    if not isinstance(chains, nn.ModuleDict):
        return False
    return (
        bool(chains._modules) if tensor_name is None else tensor_name in chains._modules
    )


def type_before_parametrizations(module: nn.Module) -> type:
    """Return the class that a module had before anything was parametrized.

    Args:
        module: any module.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(2, 2))
        >>> type(layer).__name__
        'ParametrizedLinear'
        >>> holdfast.type_before_parametrizations(layer).__name__
        'Linear'
    """
    cls = type(module)
    return original_class(cls) if is_parametrized(module) else cls


_classes: WeakValueDictionary[tuple[type, frozenset[str]], type] = WeakValueDictionary()
_metaclasses: dict[type, type] = {type: ParametrizedMeta}
_lock = threading.RLock()


def parametrized_class(base: type[nn.Module], names: frozenset[str]) -> type:
    """Return the one class for instances of ``base`` with these names parametrized."""
    with _lock:
        cls = _classes.get((base, names))
        if cls is None:
            cls = _classes[base, names] = _make_class(base, names)
        return cls


def _make_class(base: type[nn.Module], names: frozenset[str]) -> type:
    # Tools take torch's layers for leaves by this name (I1)
    torch_class = base.__module__.partition(".")[0] == "torch"
    body: dict[str, Any] = {
        "__module__": _TORCH_CLASSES if torch_class else base.__module__,
        "__doc__": base.__doc__,
        _NAMES: set(names),
        _MADE_FOR: names,
        _ORIGINAL: base,
        **{name: tensor_property(name) for name in names},
    }
    cls = _metaclass(type(base))(f"Parametrized{base.__name__}", (base,), body)
    methods = _methods_of(cls)
    if not any("__copy__" in vars(c) for c in base.__mro__):
        methods["__copy__"] = shallow_copy
    if issubclass(base, nn.RNNBase):
        methods |= recurrent.members_of(cls, base)
    if issubclass(base, nn.MultiheadAttention):
        methods["forward"] = reading_once(cls, base)
    if "weight" in names:
        methods |= looking_up(cls, base)
    for name, method in methods.items():
        type.__setattr__(cls, name, method)
    return cls


def _methods_of(cls: type[nn.Module]) -> dict[str, Callable[..., Any]]:
    """Return the methods of ``nn.Module`` that a shared class has to extend."""
    managed = names_of(cls)
    plain = cls.__getattr__ is nn.Module.__getattr__

    def get_other(self: nn.Module, name: str) -> Any:
        # `nn.Module` looks here too; this saves a call on reading a bias.
        if plain:
            try:
                return self.__dict__["_parameters"][name]
            except KeyError:
                pass
        # Python asks here after a property raised AttributeError, and would report
        # that there is no attribute "weight" (R1).
        if name in managed and (error := failure_of(self, name)) is not None:
            raise error
        _drop_memos(self, name)
        return cast("Any", super(cls, self)).__getattr__(name)

    def set_(self: nn.Module, name: str, value: object) -> None:
        if name in managed and chain_of(self, name) is not None:
            assign(self, name, value)  # also an nn.Parameter, which nn.Module registers
        else:
            _drop_memos(self, name)
            super(cls, self).__setattr__(name, value)

    return {
        "__getattr__": get_other,
        "__setattr__": set_,
        "__delattr__": _deletion(cls),
        "_load_from_state_dict": _loading(cls),
    }


def _loading(cls: type[nn.Module]) -> Callable[..., None]:
    ordinary = cls._load_from_state_dict is nn.Module._load_from_state_dict

    def load(self: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        bring_home()
        assign = rest[0].get("assign_to_params_buffers", False)
        respell(self, state, prefix, assign=assign, errors=rest[-1])
        if not (ordinary and filled(self, state, prefix, rest[0])):
            cast("Any", super(cls, self))._load_from_state_dict(state, prefix, *rest)

    return load


def _deletion(cls: type) -> Callable[..., None]:
    def delete(self: nn.Module, name: str) -> None:
        _drop_memos(self, name)
        super(cls, self).__delattr__(name)

    return delete


def _drop_memos(module: nn.Module, name: str) -> None:
    """Let no memo of a module hand anything out once its chains are in other hands.

    Torch's own removal, for one, takes them away, and no memo looks for its chain.
    """
    if name != "parametrizations":
        return
    chains: Any = module.__dict__.get("_modules", {}).get("parametrizations")
    for chain in getattr(chains, "_modules", {}).values():
        if isinstance(chain, ParametrizationList):
            chain.drop_memo()


def _metaclass(meta: type) -> type:
    """Return the guarding metaclass for classes of metaclass ``meta``."""
    if issubclass(meta, ParametrizedMeta):
        return meta
    if meta not in _metaclasses:
        _metaclasses[meta] = type("ParametrizedMeta", (ParametrizedMeta, meta), {})
        copyreg.pickle(_metaclasses[meta], _reduce_class)
    return _metaclasses[meta]


def _reduce_class(cls: type) -> Any:
    """Pickle a shared class as the class and the names it was made from."""
    if _NAMES not in vars(cls):
        return cls.__qualname__  # a class of somebody else on top: by its name
    return parametrized_class, (cls.__bases__[0], vars(cls)[_MADE_FOR])


copyreg.pickle(ParametrizedMeta, _reduce_class)  # type: ignore[arg-type]
