"""One scope: what it holds, and where it may serve that.

Note [What a scope may serve]
    A scope serves reads in the thread that opened it, while the generator that opened
    it (if one did) is running, and in the situation it was opened in: function
    transforms, saved-tensor hooks, a running backward pass and dispatch modes all give
    tensors a meaning that ends with them. So an activation checkpoint inside a scope
    runs the same operations in its forward pass and in its recomputation.
"""

from __future__ import annotations

import threading
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType
from typing import TYPE_CHECKING

from torch import nn

from .ahead import Advances
from .batching import Entries, Model
from .leaves import Leaves
from .lost_writes import Handed
from .torch_state import backward_pass, dispatch_modes, saved_tensor_hooks

if TYPE_CHECKING:
    from .chain import ParametrizationList


class Scope:
    """The values computed between entering and leaving one ``cached()``."""

    __slots__ = (
        "__weakref__",
        "advances",
        "foreach",
        "frame",
        "handed",
        "hooks",
        "leaves",
        "lost",
        "models",
        "modes",
        "open",
        "parent",
        "simple",
        "task",
        "values",
    )

    def __init__(
        self,
        parent: Scope | None,
        models: tuple[Model, ...],
        frame: FrameType | None,
        *,
        foreach: bool | None = None,
        leaves: Leaves | None = None,
    ) -> None:
        self.parent = parent
        self.models = models  # none: all
        self.foreach = foreach
        self.leaves = leaves  # what is handed out for values that have a graph
        self.advances = Advances()
        self.handed: dict[ParametrizationList, Handed] = {}
        self.lost: list[Handed] = []  # writes, which are warned of
        self.frame = frame
        self.modes = dispatch_modes()
        self.hooks, self.task = saved_tensor_hooks(True), backward_pass()
        # serves what it holds wherever autograd does nothing out of the ordinary
        self.simple = frame is None and self.hooks is None and self.task < 0
        self.open = True
        open_scopes.add(id(self))
        # by grad mode: a value without a graph must never reach training. By chain,
        # not by the module, which no scope keeps alive
        self.values: tuple[Entries, Entries] = ({}, {})
        if parent is not None and self.simple and parent.serves_all():
            self.values = parent.values

    def serves_all(self) -> bool:
        """Tell whether it serves wherever a simple scope inside of it does."""
        return self.simple and not self.models

    def serves(self, host: nn.Module, *, grad: bool) -> bool:
        """Tell whether the scope holds for a module: Note [What a scope may serve]."""
        return (
            self.open
            and (not self.models or any(host in model for model in self.models))
            and (self.frame is None or self.frame.f_back is not None)
            and (
                not grad
                or self.leaves is not None  # no graph of another situation comes along
                or (
                    backward_pass() == self.task
                    and saved_tensor_hooks(True) == self.hooks
                )
            )
        )

    def model_of(self, host: nn.Module) -> Model | None:
        """Return the model whose tensors are evaluated along with a module's."""
        if self.foreach is False:
            return None
        return next((model for model in self.models if host in model), None)

    def look(self) -> None:
        """Note which values somebody has written to, before they are dropped."""
        values = self.values[True]
        self.lost += [
            handed
            for chain, handed in self.handed.items()
            if handed.is_written(values.get(chain), chain)
        ]
        self.handed.clear()

    def close(self) -> None:
        """Free every value, also where somebody still holds this scope."""
        self.open = self.simple = False
        self.advances.take_back_()
        open_scopes.discard(id(self))
        parent = self.parent
        if parent is None or not parent.open or parent.values is not self.values:
            self.values[0].clear()
            self.values[1].clear()
        self.handed.clear()
        self.frame = self.hooks = None


class _Innermost(threading.local):
    """The innermost scope of a thread."""

    scope: Scope | None = None


innermost = _Innermost()


def leave_closed() -> None:
    """Go back to a scope that is open, also past those that were left out of order."""
    scope = innermost.scope
    while scope is not None and not scope.open:
        scope = scope.parent
    innermost.scope = scope


# By `id`, in all threads. Where it is empty no read has to look for its thread's.
open_scopes: set[int] = set()


def suspendable_frame(frame: FrameType | None) -> FrameType | None:
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
