"""The memo: with gradients off, deterministic maps run again only after a change.

Note [What the memo may not see]
    A write through ``.data``, a NumPy alias or shared memory leaves the version of a
    tensor alone. Who wants to make one must first get hold of the tensor. So the memo
    stores nothing while anyone but the module holds one (`_is_private`), and looking
    at the tensors of a chain from outside drops what was stored.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from .calling import GLOBAL_HOOKS, GLOBAL_PRE_HOOKS
from .entry import PLAIN, Entry, Registry, autocast_of, tensors_of, trackable
from .torch_state import (
    copy_on_write,
    dispatch_modes,
    is_any_autocast_enabled,
    is_copy_on_write,
    storage_owners,
    tracing_state,
    transform_level,
)

if TYPE_CHECKING:
    from .chain import ParametrizationList

_remembers: ContextVar[bool] = ContextVar("holdfast.remember", default=True)


def remembered(chain: ParametrizationList) -> Tensor:
    """Return the remembered value if it is current; compute it otherwise."""
    memo = chain._memo
    if memo is not None and (value := memo.recall(chain.__dict__)) is not None:
        return value
    if (
        not chain.is_deterministic()
        or not _remembers.get()
        or transform_level() is not None
        or dispatch_modes()
        or tracing_state() is not None
        or not _is_private(chain)
    ):
        chain.__dict__["_memo"] = None
        return chain.evaluate()
    with trackable():
        value = chain.evaluate()
        if type(value) is not Tensor or value.layout is not torch.strided:
            return value
        if storage_owners(value) != _OWN_STORAGES:
            value = value.clone()  # a view, perhaps of the original
        chain.__dict__["_memo"] = memo = Memo(Entry.of(chain, value))
    return memo.hand_out()


class _Last(threading.local):
    """The alias that a thread was given last."""

    alias: Tensor | None = None


class Memo:
    """A remembered value, and the alias of it that readers get.

    The alias shares the memory copy-on-write: whoever writes to it, by whatever way,
    writes to a copy, and the next reader gets a new alias. Each thread has one of its
    own, as two must not make that copy at the same time.
    """

    __slots__ = ("autocast", "epoch", "last", "lock", "tensors", "value")

    def __init__(self, entry: Entry) -> None:
        self.value, self.epoch, self.autocast, self.tensors = entry
        self.lock = threading.Lock()
        self.last = _Last()

    def recall(self, state: dict[str, Any]) -> Tensor | None:
        """Return the alias if nothing has changed; ``state`` is the chain's."""
        # `Entry.is_current`, written out. Serving goes through here, in large models
        # with all of it out of the processor's caches: what counts is how many objects
        # are touched.
        for registry, name, tensor, version in self.tensors:
            if registry.get(name) is not tensor or tensor._version != version:
                return None
        if self.epoch != state["_epoch"]:
            return None
        if self.autocast != (
            autocast_of(self.value) if is_any_autocast_enabled() else None
        ):
            return None
        if GLOBAL_HOOKS or GLOBAL_PRE_HOOKS or not _remembers.get():
            return None
        alias = self.last.alias
        if (
            alias is not None
            and is_copy_on_write(alias)
            and not alias._version
            and not alias.requires_grad
        ):
            return alias
        return self.hand_out()

    def hand_out(self) -> Tensor:
        """Return a new alias, which nobody has written to."""
        with trackable(), self.lock:
            alias = self.last.alias = copy_on_write(self.value)
        return alias


def _is_private(chain: ParametrizationList) -> bool:
    """Tell whether none but the chain holds its tensors: Note [What the memo may..]."""
    return all(
        _references(*place) == _OWN_REFERENCES and _is_private_storage(*place)
        for place in [(registry, name) for registry, name, _ in tensors_of(chain)]
    )


def _references(registry: Mapping[str, object], name: str) -> int:
    return sys.getrefcount(registry[name])


def _is_private_storage(registry: Registry, name: str) -> bool:
    tensor = cast("Tensor", registry[name])
    return (
        type(tensor) in PLAIN
        and not tensor.is_inference()
        and not (tensor.device.type == "cpu" and tensor.is_shared())
        and storage_owners(tensor) == _OWN_STORAGES
    )


_OWN_REFERENCES = _references({"": torch.empty(1)}, "")
_OWN_STORAGES = storage_owners(torch.empty(1))


class remember(contextlib.ContextDecorator):
    """Switch the memo of deterministic maps on or off inside this scope.

    With gradients off, a chain of deterministic maps is evaluated again only when one
    of its tensors has changed, so that serving a parametrized model costs what
    serving the folded model costs. The memo keeps one copy of each such weight.

    Args:
        enabled: whether values may be remembered.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(3, 3))
        >>> with torch.no_grad():
        ...     print(layer.weight is layer.weight)
        ...     with holdfast.remember(False):
        ...         print(layer.weight is layer.weight)
        True
        False
    """

    def __init__(self, enabled: bool) -> None:  # noqa: FBT001  # the only one
        self.enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        """Set the switch."""
        self._before.append(_remembers.get())
        _remembers.set(self.enabled)

    def __exit__(self, *_: object) -> None:
        """Put the switch back."""
        _remembers.set(self._before.pop())
