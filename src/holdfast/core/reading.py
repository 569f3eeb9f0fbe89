"""What happens when ``module.weight`` is read.

The property is on the way of every forward, so it is written for speed: what is at
hand, remembered or in a scope, is served by one function with local names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import path_of
from .cache import read_in_scopes
from .calling import evaluate, is_unhooked
from .chain import ParametrizationList
from .compiled import value_in_trace
from .memo import remembered, slot_of
from .refinement import catch_up_
from .scope import Scope, innermost, open_scopes
from .sharded import note_sharded
from .torch_state import (
    backward_pass,
    is_any_autocast_enabled,
    is_grad_enabled,
    is_traced,
    saved_tensor_hooks,
)


def reader_of(name: str) -> Callable[[nn.Module], Tensor]:  # noqa: C901
    """Return the getter of the property for a tensor."""
    slot = slot_of(name)

    def get(self: Any) -> Tensor:  # noqa: C901  # one function, for speed
        if is_traced():
            return read_traced(self, name)
        scope = innermost.scope if open_scopes else None
        grad = is_grad_enabled()
        if scope is None:
            if not grad:
                state = self.__dict__
                memo = state.get(slot)
                if memo is not None:
                    value = memo.recall(state["_modules"])
                    if value is not None:
                        return value
        # `Scope.serves` and `Entry.is_current`, written out for the common case
        elif scope.simple and (
            not grad or (backward_pass() < 0 and saved_tensor_hooks(True) is None)
        ):
            try:
                chain = self._modules["parametrizations"]._modules[name]
                value, state, epoch, autocast, tensors = scope.values[grad][chain]
                for registry, key, tensor, version, wanted in tensors:
                    if (
                        registry[key] is not tensor
                        or tensor._version != version
                        or (grad and tensor.requires_grad is not wanted)
                    ):
                        break
                else:
                    if (
                        state["_epoch"] == epoch
                        and not state["_special"]
                        and autocast is None
                        and not is_any_autocast_enabled()
                    ):
                        return value
            except KeyError:
                pass  # nothing is stored, or something was taken away
        return read(self, name, scope, grad)

    return get


def read(module: Any, name: str, scope: Scope | None, grad: bool) -> Tensor:  # noqa: FBT001
    """Read what is not at hand: compute it, or find it in an outer scope."""
    try:
        chain = module._modules["parametrizations"]._modules[name]
        state = chain.__dict__  # reading attributes of a module is slow
        special = state["_special"]
    except KeyError:
        return read_foreign(module, name)
    try:
        if special and (value := _read_special(chain)) is not None:
            return value
        if scope is not None:
            return read_in_scopes(chain, module, name, scope, grad=grad)
        if grad and state["_memo"] is not None:
            chain.look()  # no second copy of a weight that trains
        if grad or state["_volatile"]:
            return evaluate(chain, state)
        return remembered(chain, module, name)
    except Exception as error:
        error.add_note(f"while computing `{path_of(module, name)}`")
        note_sharded(error, chain._parameters.values())
        if isinstance(error, AttributeError):
            _failed.last = (module, name, error)
        raise


class _Failed(threading.local):
    """The AttributeError on its way out of a property, which Python would replace."""

    last: tuple[nn.Module, str, AttributeError] | None = None


_failed = _Failed()


def failure_of(module: nn.Module, name: str) -> AttributeError | None:
    """Return the error that the property has just raised, if it did, and forget it."""
    last, _failed.last = _failed.last, None
    if last is not None and last[0] is module and last[1] == name:
        return last[2]
    return None


def _read_special(chain: ParametrizationList) -> Tensor | None:
    """Return an override, or what hooks or fewer links make; advance moving state."""
    if chain._overrides:
        return chain._overrides[-1][0]
    if chain._refined is not None and chain.training and is_grad_enabled():
        catch_up_(chain)
    return None if is_unhooked(chain) and not chain._disabled else chain()


def read_traced(module: nn.Module, name: str) -> Tensor:
    """Read inside a graph that torch.compile traces, in terms that it can trace."""
    chains: Any = module._modules.get("parametrizations")
    chain = None if chains is None else chains._modules.get(name)
    if not isinstance(chain, ParametrizationList):
        return read_foreign(module, name)
    if chain._overrides:
        return chain._overrides[-1][0]
    return value_in_trace(chain)


def read_foreign(module: nn.Module, name: str) -> Tensor:
    """Return a tensor that torch parametrized, or that is plain again."""
    state = module.__dict__
    chains = state.get("_modules", {}).get("parametrizations")
    if chains is not None and name in chains._modules:
        return chains._modules[name]()
    for registry in (state.get("_parameters", {}), state.get("_buffers", {}), state):
        if name in registry:
            return registry[name]
    raise AttributeError(f"'{type(module).__name__}' object has no attribute '{name}'")
