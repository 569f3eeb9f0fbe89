"""The memo: with gradients off, deterministic maps run again only after a change.

Note [What the memo may not see]
    A write through ``.data``, a NumPy alias or shared memory leaves the version of a
    tensor alone. Who wants to make one must first get hold of the tensor. So the memo
    stores nothing while anyone but the module holds one (`_is_private`), and looking
    at the tensors of a chain from outside drops what was stored (`core/epoch.py`).

Note [Cold reads]
    Serving a large model, hardly anything is in the processor's caches, and what counts
    is how many objects a read touches. So the memo lies in the dictionary of the host,
    which a forward uses anyway, and not in the chain, which is five objects further.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast
from weakref import getweakrefcount, ref

import torch
from torch import Tensor, nn

from .calling import GLOBAL_HOOKS, GLOBAL_PRE_HOOKS
from .checks import check_type
from .entry import PLAIN, Entry, Registry, autocast_of, tensors_of, trackable
from .lost_writes import warn_of_lost_write
from .torch_state import (
    copy_on_write,
    dispatch_modes,
    is_any_autocast_enabled,
    is_copy_on_write,
    storage_owners,
    tracing_state,
    transforming,
)

if TYPE_CHECKING:
    from .chain import ParametrizationList

_remembers: ContextVar[bool] = ContextVar("holdfast.remember", default=True)


def slot_of(name: str) -> str:
    """Return under which name a host keeps the memo of a tensor; no attribute's."""
    return f"{name} (remembered)"


def remembered(chain: ParametrizationList, host: nn.Module, name: str) -> Tensor:
    """Return the remembered value if it is current; compute it otherwise."""
    memo = chain.memo()
    if memo is not None and (value := memo.recall(host._modules)) is not None:
        return value
    if (
        not _remembers.get()
        or transforming()
        or dispatch_modes()
        or tracing_state() is not None
    ):
        return chain.evaluate()
    chain.drop_memo()  # it is out of date, and holds the originals
    if not chain.is_deterministic() or not _is_private(chain):
        return chain.evaluate()
    with trackable():
        before = chain.stamp()
        value = chain.evaluate()
        if type(value) is not Tensor or value.layout is not torch.strided:
            return value
        if chain.stamp() != before:
            return value  # another thread has changed an original meanwhile
        if _storage_holders(value) != _OWN_STORAGES:
            value = value.clone()  # a view, perhaps of the original
        memo = Memo(host, name, Entry.of(chain, value))
        host.__dict__[slot_of(name)] = memo
        chain.__dict__["_memo"] = ref(memo)  # weak, as the memo holds the chain
    return memo.hand_out(value)


class Memo:
    """A remembered value, and the aliases of it that readers get.

    An alias shares the memory copy-on-write: whoever writes to it, by whatever way,
    writes to a copy, and the next reader gets a new alias. So does another thread, as
    two must not make that copy at the same time.
    """

    __slots__ = (
        "__weakref__",
        "autocast",
        "last",
        "lock",
        "modules",
        "tensors",
        "value",
        "where",
    )

    def __init__(self, host: nn.Module, name: str, entry: Entry) -> None:
        self.value: Tensor | None = entry.value
        self.where = (ref(host), name)
        # tells the host from its copies, which may have the memo too
        self.modules: dict[str, nn.Module | None] | None = host._modules
        self.autocast, self.tensors = entry.autocast, entry.tensors
        self.last: tuple[int, Tensor | None] = (0, None)  # thread, alias
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # nothing of it goes into a copy or a file

    def recall(  # noqa: C901  # one function, for speed
        self, modules: dict[str, nn.Module | None], *, itself: bool = False
    ) -> Tensor | None:
        """Return the alias, or the value itself, if nothing has changed.

        ``modules`` are the host's. The value is for kernels that do not write to it.
        """
        if self.modules is not modules:
            return None
        # `Entry.is_current`, written out
        try:
            for registry, name, tensor, version, _ in self.tensors:
                if registry[name] is not tensor or tensor._version != version:
                    return None
        except KeyError:
            return None
        value = self.value
        if value is None or self.autocast != (
            autocast_of(value) if is_any_autocast_enabled() else None
        ):
            return None
        if GLOBAL_HOOKS or GLOBAL_PRE_HOOKS or dispatch_modes():
            return None
        if not _remembers.get():
            return None
        if itself:
            return value
        thread, alias = self.last
        if (
            alias is not None
            and thread == get_ident()
            and is_copy_on_write(alias)
            and not alias._version
            and not alias.requires_grad
        ):
            return alias
        self.hand_out(value)  # first, as a warning may be an error
        if alias is not None and thread == get_ident() and alias._version:
            warn_of_lost_write(*self.where)
        return cast("Tensor", self.last[1])

    def hand_out(self, value: Tensor) -> Tensor:
        """Return a new alias, which nobody has written to."""
        with trackable(), self.lock:
            alias = copy_on_write(value)
        self.last = get_ident(), alias
        return alias

    def drop(self) -> None:
        """Free the value; it is never handed out again."""
        self.modules, self.value, self.tensors, self.last = None, None, (), (0, None)


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
        and not getweakrefcount(tensor)
        and not (tensor.device.type == "cpu" and tensor.is_shared())
        and _storage_holders(tensor) == _OWN_STORAGES
        and tensor.untyped_storage().resizable()  # else it is NumPy's, or a file
    )


def _storage_holders(tensor: Tensor) -> tuple[int, int]:
    """Count the tensors that share the memory, and who holds the storage itself."""
    return storage_owners(tensor), sys.getrefcount(tensor.untyped_storage())


_OWN_REFERENCES = _references({"": torch.empty(1)}, "")
_OWN_STORAGES = _storage_holders(torch.empty(1))


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
        check_type(enabled, bool, "remember", "True or False")
        self.enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        """Set the switch."""
        self._before.append(_remembers.get())
        _remembers.set(self.enabled)

    def __exit__(self, *_: object) -> None:
        """Put the switch back."""
        _remembers.set(self._before.pop())
