"""Scopes: inside ``with cached():`` every value is computed once per grad mode."""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from . import compiled
from .ahead import was_advanced
from .batching import Model
from .checks import check_module
from .entry import Entry, noted, trackable
from .leaves import Leaves, at_home, brought, unwatched
from .lost_writes import Handed, note_of_write, warn_of_lost_write
from .memo import remembered
from .scope import Scope, innermost, leave_closed, open_scopes, suspendable_frame
from .torch_state import (
    dispatch_modes,
    is_traced,
    is_transformed,
)

if TYPE_CHECKING:
    from .chain import ParametrizationList


def read_in_scopes(
    chain: ParametrizationList,
    host: nn.Module,
    name: str,
    scope: Scope | None,
    *,
    grad: bool,
) -> Tensor:
    """Return the value that a scope holds, or compute it for the outermost one."""
    serving: Scope | None = None
    batching: Scope | None = None
    while scope is not None:
        if scope.serves(host, grad=grad):
            entry = scope.values[grad].get(chain)
            if entry is not None and entry.is_current(chain):
                return entry.value
            serving = scope
            # a scope holds no values of modules that it is not for
            if scope.models or batching is None:
                batching = scope
            if grad and scope.leaves is not None:
                break  # it has values of its own
        scope = scope.parent
    if serving is None:
        return chain.evaluate() if grad else remembered(chain, host, name)
    return _store(chain, host, name, serving, batching, grad=grad)


def _store(
    chain: ParametrizationList,
    host: nn.Module,
    name: str,
    scope: Scope,
    batching: Scope | None,
    *,
    grad: bool,
) -> Tensor:
    """Compute a value and keep it in the outermost scope that serves it."""
    values = scope.values[grad]
    leaves = scope.leaves if grad else None
    hand_out = None if leaves is None else leaves.hand_out
    model = None if batching is None else batching.model_of(host)
    if batching is not None and model is not None:
        always = batching.foreach is True
        with contextlib.nullcontext() if leaves is None else unwatched():
            found = model.fill(
                chain, values, grad=grad, everywhere=always, hand_out=hand_out
            )
        if found is not None:
            return found
    before = chain.stamp()
    with trackable(), contextlib.nullcontext() if leaves is None else unwatched():
        value = chain.evaluate() if grad else remembered(chain, host, name)
    if (
        chain.stamp() != before  # another thread has changed an original
        or dispatch_modes() != scope.modes
        or is_transformed(value)
    ):
        return value
    try:
        tensors = noted(chain)
    except RuntimeError:
        return value  # without a version a change could not be seen
    if hand_out is not None:
        value = hand_out(value, chain)
    elif value.grad_fn is not None:
        value.register_hook(partial(_retire, ref(scope), ref(chain)))
    values[chain] = Entry.of(chain, value, tensors)
    if grad:  # the memo looks itself
        scope.handed[chain] = Handed.of(value, host, name)
    return value


def is_advanced(chain: ParametrizationList, host: nn.Module) -> bool:
    """Tell whether moving state was advanced along with others': see `core/ahead`."""
    scope = innermost.scope if open_scopes else None
    while scope is not None:
        model = scope.model_of(host)
        if model is not None and scope.serves(host, grad=True):
            return scope.advances.take(chain, model, always=scope.foreach is True)
        scope = scope.parent
    return was_advanced(chain)  # for a scope that does not serve a checkpoint, say


def _retire(
    scope: ReferenceType[Scope], chain: ReferenceType[ParametrizationList], _: Tensor
) -> None:
    """Drop a value whose graph is being used up: a second backward needs another."""
    live = scope(), chain()
    if live[0] is not None and live[1] is not None:
        live[0].values[True].pop(live[1], None)


def bring_home() -> None:
    """Bring gradients that wait in leaves to the originals, which are to move."""
    scope = innermost.scope
    while scope is not None:
        if scope.leaves is not None:
            flush(scope)
        scope = scope.parent


def _before_step(_: object, args: Any, kwargs: Any) -> Any:
    """Bring gradients home, and also those of a closure that the step calls."""
    bring_home()
    scope = innermost.scope
    while scope is not None and scope.leaves is None:
        scope = scope.parent
    if scope is None:
        return None
    rest = {name: brought(value) for name, value in kwargs.items()}
    return (args[0], *map(brought, args[1:])), rest  # first comes the optimizer


def flush(scope: Scope) -> None:
    """Bring the gradients that wait in leaves to the originals."""
    scope.look()
    scope.values[True].clear()  # the graphs are used up
    if scope.leaves is not None:
        scope.leaves.flush()


def _after_step(*_: object) -> None:
    """Drop all values after an optimizer step: some write where no version tells."""
    scope = innermost.scope
    while scope is not None:
        scope.look()
        for values in scope.values:
            values.clear()
        scope.advances.take_back_()
        scope = scope.parent


at_home.append(bring_home)
register_optimizer_step_pre_hook(_before_step)
register_optimizer_step_post_hook(_after_step)


class cached(contextlib.ContextDecorator):
    """Compute each parametrized tensor at most once inside this scope.

    A value is used again only while nothing that it was computed from has changed:
    after an optimizer step, an assignment, ``load_state_dict``, ``train()`` and the
    like the next read is fresh. Leaving the scope frees all values.

    Of the models that are named, equal maps on equal shapes are evaluated as one batch,
    where they say that they can be (`Parametrization.foreach`): the first read computes
    all of them, those too that are not read, and one backward pass differentiates all.
    Values are those of one by one to rounding: a batch sums in another order. It takes
    memory for one copy of what they compute from, and slices of one tensor are handed
    out: while one is kept, all are. State that moves with every forward, as in
    `maps.SpectralNorm`, is advanced for the batch by the first forward, and put back
    where no forward follows before the optimizer steps or the scope ends. Inside a
    graph that is compiled, under a function transform and in a checkpoint, every tensor
    is evaluated on its own.

    Args:
        *modules: limit the scope to these modules and all below them; without any it
            holds for every parametrized tensor.
        foreach: evaluate in batches, one for each kind and each of the modules. By
            default where that was faster on one thread of a CPU: four matrices or
            more, of up to 96 x 96 entries, and eight, of up to 48 x 48, for maps
            that need `torch.vmap`, such as `maps.SpectralNorm`. On other devices, not.

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

        >>> layers = [holdfast.orthogonal(torch.nn.Linear(8, 8)) for _ in range(9)]
        >>> model = torch.nn.Sequential(*layers)
        >>> with holdfast.cached(model, foreach=True):
        ...     model(torch.ones(1, 8)).sum().backward()
    """

    def __init__(self, *modules: nn.Module, foreach: bool | None = None) -> None:
        self._entered: dict[int, list[Scope]] = {}  # by thread
        for module in modules:
            if callable(module) and not isinstance(module, (nn.Module, type)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError("`cached` decorates functions as `@cached()`.")
            check_module(module, "cached")
        if foreach and not modules:
            raise ValueError(
                "`cached(foreach=True)` has to know which tensors there are. Name the "
                "model: `cached(model, foreach=True)`."
            )
        self.modules = modules
        self.foreach = foreach

    def _recreate_cm(self) -> cached:
        """Give every call of a decorated function a scope of its own."""
        return cached(*self.modules, foreach=self.foreach)

    def __enter__(self) -> None:
        """Open the scope."""
        if is_traced():
            compiled.enter()
            return
        self._open(suspendable_frame(sys._getframe(1)))

    def _open(self, frame: FrameType | None, leaves: Leaves | None = None) -> Scope:
        models = tuple(Model.of(module) for module in self.modules)
        scope = Scope(
            innermost.scope, models, frame, foreach=self.foreach, leaves=leaves
        )
        self._entered.setdefault(threading.get_ident(), []).append(scope)
        innermost.scope = scope
        return scope

    def __exit__(self, *failure: Any) -> None:
        """Close the scope and free its values."""
        error = failure[1] if failure else None
        if is_traced():
            compiled.leave()
            return
        thread = threading.get_ident()
        if not self._entered.get(thread):  # a generator, closed by another thread
            thread = next(iter(self._entered))
        scope = self._entered[thread][-1]
        try:
            scope.look()
            note_of_write(error, scope.values[True])
        finally:
            self._close(scope, thread)
        for handed in () if error else scope.lost:
            warn_of_lost_write(handed.host, handed.name)

    def __del__(self) -> None:
        """Close what an interruption has left open."""
        for scopes in vars(self).get("_entered", {}).values():
            for scope in scopes:
                scope.close()
            leave_closed()

    def _close(self, scope: Scope, thread: int) -> None:
        """Close a scope that was opened in a thread, and go back to the one around."""
        scope.close()
        self._entered[thread].remove(scope)
        if not self._entered[thread]:
            del self._entered[thread]
        leave_closed()
