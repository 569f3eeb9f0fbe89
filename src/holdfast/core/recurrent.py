"""``nn.RNN``, ``nn.LSTM`` and ``nn.GRU``, which keep a list of their weights.

The list, ``_flat_weights``, is what their forward computes with. Parametrized weights
are in it only for the forward that runs, in the thread that runs it: each is computed
once, and between steps the module holds no value and no graph, and can be copied.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .cache import cached
from .joints import joints_of
from .memo import Memo, slot_of
from .scope import open_scopes
from .torch_state import frame_compiler, is_grad_enabled, is_traced

#: What such a module keeps of its weights beside its parameters.
LISTS = ("_flat_weights", "_flat_weight_refs")


class _Gone:
    """Stands for a weight that is no longer there."""


class _Running(threading.local):
    """The lists of the forwards that run in a thread, by the id of their modules."""

    def __init__(self) -> None:
        self.lists: dict[int, list[Tensor]] = {}


_running = _Running()


def members_of(cls: type, base: type[nn.RNNBase]) -> dict[str, Any]:
    """Return the members that the parametrized class ``cls`` of ``base`` needs."""

    @functools.wraps(base.forward)
    def forward(self: nn.RNNBase, *args: Any, **kwargs: Any) -> Any:
        run: Callable[..., Any] = super(cls, self).forward  # type: ignore[misc]
        if is_traced() or id(self) in _running.lists:  # a class above has read it
            return run(*args, **kwargs)
        if frame_compiler() is not None:
            # Torch does not trace such modules unless told to. It would go on with the
            # functions that they call, those of each weight, to its limit for one
            return torch.compiler.disable(forward)(self, *args, **kwargs)
        _running.lists[id(self)] = _read(self)
        try:
            return run(*args, **kwargs)
        finally:
            _running.lists.pop(id(self), None)

    def set_state(self: nn.RNNBase, state: dict[str, Any]) -> None:
        super(cls, self).__setstate__(state)  # type: ignore[misc]
        release(self)

    return {
        "forward": forward,
        "__setstate__": set_state,
        "_flat_weights": property(_list_of, _ignore),
        # torch looks for changed weights before each forward and each copy
        "_update_flat_weights": _ignore,
        "_init_flat_weights": release,
    }


def _read(module: nn.RNNBase) -> list[Tensor]:
    once = is_grad_enabled() and joints_of(type(module)) and not is_traced()
    with cached(module) if once else contextlib.nullcontext():
        return [_weight(module, name) for name in module._flat_weights_names]


def _weight(module: nn.RNNBase, name: str) -> Tensor:
    """Read a weight; what is remembered without an alias.

    The kernels of an LSTM ask for memory to write to, and never write: an alias that
    shares it copy-on-write would be copied in every forward.
    """
    if not (is_traced() or is_grad_enabled() or open_scopes):
        memo: Memo | None = module.__dict__.get(slot_of(name))
        value = memo and memo.recall(module._modules, itself=True)
        if value is not None:
            return value
    return getattr(module, name)


def _list_of(module: nn.RNNBase) -> list[Tensor]:
    """Return the list of the forward that runs, or of what is plain."""
    if is_traced():
        return _read(module)
    running = _running.lists.get(id(module))
    return module.__dict__["_flat_weights"] if running is None else running


def _ignore(*_: object) -> None:
    """Change nothing: the list is right at any time."""


def release(module: nn.Module) -> None:
    """Leave a list of the plain weights for the class that the module had before.

    A dead reference tells torch's own forward that a weight has changed, which keeps
    the module whole when torch itself removes the parametrization.
    """
    if not isinstance(module, nn.RNNBase):
        return
    weights: list[Tensor | None] = [
        module._parameters.get(name) for name in module._flat_weights_names
    ]
    gone = weakref.ref(_Gone())
    module.__dict__["_flat_weights"] = weights
    module.__dict__["_flat_weight_refs"] = [
        gone if weight is None else weakref.ref(weight) for weight in weights
    ]
