"""Scopes: inside ``with cached():`` every value is computed once per grad mode.

Note [What a scope may serve]
    A scope serves reads in the thread that opened it, while the generator that opened
    it (if one did) is running, and in the situation it was opened in: function
    transforms, saved-tensor hooks, a running backward pass and dispatch modes all give
    tensors a meaning that ends with them. So an activation checkpoint inside a scope
    runs the same operations in its forward pass and in its recomputation.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from . import compiled
from .entry import Entry, chains_of, tensors_of, trackable
from .memo import remembered
from .torch_state import (
    backward_pass,
    dispatch_modes,
    is_traced,
    is_transformed,
    saved_tensor_hooks,
)

if TYPE_CHECKING:
    from .chain import ParametrizationList

# by `module.parametrizations`, not by the module, which no scope keeps alive; by name
Entries = dict[nn.Module, dict[str, Entry]]


class Scope:
    """The values computed between entering and leaving one ``cached()``."""

    __slots__ = (
        "__weakref__",
        "frame",
        "hooks",
        "modes",
        "modules",
        "open",
        "parent",
        "simple",
        "task",
        "values",
    )

    def __init__(
        self,
        parent: Scope | None,
        modules: frozenset[nn.Module] | None,
        frame: FrameType | None,
    ) -> None:
        self.parent = parent
        self.modules = modules
        self.frame = frame
        self.modes = dispatch_modes()
        self.hooks, self.task = saved_tensor_hooks(True), backward_pass()
        # serves every module wherever autograd does nothing out of the ordinary
        limits = (modules, frame, self.hooks)
        self.simple = limits == (None, None, None) and self.task < 0
        self.open = True
        open_scopes.add(id(self))
        # by grad mode: a value without a graph must never reach training
        self.values: tuple[Entries, Entries] = ({}, {})
        if parent is not None and parent.simple and self.simple:
            self.values = parent.values  # which serves wherever this one does

    def serves(self, host: nn.Module, *, grad: bool) -> bool:
        """Tell whether the scope holds for a module: Note [What a scope may serve]."""
        return (
            self.open
            and (self.modules is None or host in self.modules)
            and (self.frame is None or self.frame.f_back is not None)
            and (
                not grad
                or (
                    backward_pass() == self.task
                    and saved_tensor_hooks(True) == self.hooks
                )
            )
        )

    def close(self) -> None:
        """Free every value, also where somebody still holds this scope."""
        self.open = self.simple = False
        open_scopes.discard(id(self))
        parent = self.parent
        if parent is None or not parent.open or parent.values is not self.values:
            self.values[0].clear()
            self.values[1].clear()
        self.frame = self.hooks = None


class _Innermost(threading.local):
    """The innermost scope of a thread."""

    scope: Scope | None = None


innermost = _Innermost()

# By `id`, in all threads. Where it is empty no read has to look for its thread's.
open_scopes: set[int] = set()


def read_in_scopes(
    chain: ParametrizationList,
    host: nn.Module,
    name: str,
    scope: Scope | None,
    *,
    grad: bool,
) -> Tensor:
    """Return the value that a scope holds, or compute it for the outermost one."""
    chains = chains_of(host)
    serving: Scope | None = None
    while scope is not None:
        if scope.serves(host, grad=grad):
            entry = scope.values[grad].get(chains, _NONE).get(name)
            if entry is not None and entry.is_current(chain):
                return entry.value
            serving = scope
        scope = scope.parent
    if serving is None:
        return chain.evaluate() if grad else remembered(chain, host, name)
    return _store(chain, host, name, serving, grad=grad)


_NONE: dict[str, Entry] = {}


def _store(
    chain: ParametrizationList, host: nn.Module, name: str, scope: Scope, *, grad: bool
) -> Tensor:
    """Compute a value and keep it in the outermost scope that serves it."""
    before = chain.stamp()
    with trackable():
        value = chain.evaluate() if grad else remembered(chain, host, name)
    if (
        chain.stamp() == before  # else another thread has changed an original
        and dispatch_modes() == scope.modes
        and not is_transformed(value)
        # without a version a change could not be seen
        and not any(tensor.is_inference() for _, _, tensor in tensors_of(chain))
    ):
        chains = chains_of(host)
        entries = scope.values[grad].setdefault(chains, {})
        entries[name] = Entry.of(chains, chain, value)
        if value.grad_fn is not None:
            value.register_hook(partial(_retire, ref(scope), ref(chains), name))
    return value


def _retire(
    scope: ReferenceType[Scope], chains: ReferenceType[nn.Module], name: str, _: Tensor
) -> None:
    """Drop a value whose graph is being used up: a second backward needs another."""
    live = scope(), chains()
    if live[0] is not None and live[1] is not None:
        live[0].values[True].get(live[1], _NONE).pop(name, None)


def _after_step(*_: object) -> None:
    """Drop all values after an optimizer step: some write where no version tells."""
    scope = innermost.scope
    while scope is not None:
        for values in scope.values:
            values.clear()
        scope = scope.parent


register_optimizer_step_post_hook(_after_step)


class cached(contextlib.ContextDecorator):
    """Compute each parametrized tensor at most once inside this scope.

    A value is used again only while nothing that it was computed from has changed:
    after an optimizer step, an assignment, ``load_state_dict``, ``train()`` and the
    like the next read is fresh. Leaving the scope frees all values.

    Args:
        *modules: limit the scope to these modules and all below them; without any it
            holds for every parametrized tensor.

    Example:
        >>> import torch, holdfast
        >>> class Noisy(torch.nn.Module):
        ...     def forward(self, X):
        ...         print("computing")
        ...         return X
        >>> layer = torch.nn.Linear(4, 4)
        >>> _ = holdfast.register_parametrization(layer, "weight", Noisy())
        computing
        >>> with holdfast.cached():
        ...     total = layer.weight.sum() + layer.weight.sum()
        computing
    """

    def __init__(self, *modules: nn.Module) -> None:
        if wrong := [m for m in modules if not isinstance(m, nn.Module)]:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                "`cached` takes modules, and decorates functions as `@cached()`. "
                f"Got {wrong[0]!r:.80}."
            )
        self.modules = modules
        self._entered: dict[int, list[Scope]] = {}  # by thread

    def _recreate_cm(self) -> cached:
        """Give every call of a decorated function a scope of its own."""
        return cached(*self.modules)

    def __enter__(self) -> None:
        """Open the scope."""
        if is_traced():
            compiled.enter()
            return
        hosts = None
        if self.modules:
            hosts = frozenset(_below(self.modules))
        scope = Scope(innermost.scope, hosts, _suspendable_frame(sys._getframe(1)))
        self._entered.setdefault(threading.get_ident(), []).append(scope)
        innermost.scope = scope

    def __exit__(self, *_: object) -> None:
        """Close the scope and free its values."""
        if is_traced():
            compiled.leave()
            return
        thread = threading.get_ident()
        if not self._entered.get(thread):  # a generator, closed by another thread
            thread = next(iter(self._entered))
        self._entered[thread].pop().close()
        if not self._entered[thread]:
            del self._entered[thread]
        scope = innermost.scope
        while scope is not None and not scope.open:
            scope = scope.parent  # also past scopes that were left out of order
        innermost.scope = scope


def _below(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the modules and their descendants, without looking at their tensors."""
    found = list(modules)
    for module in found:
        found.extend(child for child in module._modules.values() if child is not None)
    return found


def _suspendable_frame(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the generator or coroutine that a scope is opened for.

    A suspended frame has no caller, which is how a scope knows that it must not serve
    the code that runs meanwhile. A generator behind ``contextlib.contextmanager``
    opens the scope for its caller, so the search goes on there.
    """
    while frame is not None:
        caller = frame.f_back
        if frame.f_code.co_flags & _SUSPENDABLE and (
            caller is None or caller.f_globals.get("__name__") != "contextlib"
        ):
            return frame
        frame = caller
    return None


_SUSPENDABLE = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
