"""A list of maps that counts the changes that pass through it.

Values are used again only within one epoch. A new one begins with every change to the
maps, their modes, their dtype and device, and with every look at the tensors from
outside: who has got hold of a tensor may write to it through ``.data``, and no version
tells of that.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self
from weakref import ReferenceType

from torch import nn
from torch.utils.hooks import RemovableHandle

from .calling import is_unhooked
from .filling import filled
from .parametrization import Parametrization
from .sharing import parts_of
from .torch_state import is_traced

if TYPE_CHECKING:
    from .memo import Memo


_epochs = itertools.count(1)  # one for all: an undone change never brings one back


class EpochList(nn.ModuleList):
    """A ``ModuleList`` with an epoch, and what a read asks beside it."""

    _emptied: bool  # memory without values took the place of no memory: `to_empty`
    _epoch: int
    _memo: ReferenceType[Memo] | None
    _kind: object  # `core/batching.py`; None: unknown
    _disabled: tuple[nn.Module, ...]  # links that pass on what they get
    _overrides: list[tuple[Any, Any]]  # `core/functional.py`
    _refined: tuple[object, object] | None  # when moving state was advanced, if any
    _special: bool  # a read has to look at an override, moving state, hooks or links
    _volatile: bool | None  # some map may change its value on its own; None: unknown

    def forget(self) -> None:
        """Note a change: of maps, modes, or what tensors there are."""
        self.__dict__["_kind"] = None
        self.look()

    def look(self) -> None:
        """Let no value that was computed before be used again.

        For who gets hold of a tensor, and may change its values but nothing else.
        """
        state = self.__dict__
        state["_epoch"] = next(_epochs)
        state["_volatile"] = None
        if state.get("_memo") is not None:
            self.drop_memo()

    def memo(self) -> Memo | None:
        """Return the memo of this chain, if there is one."""
        memo = self.__dict__["_memo"]
        return None if memo is None else memo()

    def drop_memo(self) -> None:
        """Let the memo hand out nothing more."""
        memo = self.memo()
        self.__dict__["_memo"] = None
        if memo is not None:
            memo.drop()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("original"):
            self.look()
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.forget()
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self.forget()
        super().__delattr__(name)

    def __getitem__(self, idx: Any) -> Any:
        self.look()
        return super().__getitem__(idx)

    def __iter__(self) -> Iterator[nn.Module]:
        self.look()
        return super().__iter__()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As ``nn.Module``; ``append`` and ``extend`` come through here."""
        self.forget()
        super().add_module(name, module)

    def insert(self, index: int, module: nn.Module) -> None:
        """As ``nn.ModuleList``."""
        self.forget()
        super().insert(index, module)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As ``nn.Module``; ``model.parameters()`` comes through here."""
        if not (is_traced() or _asks_for_hooks()):
            self.look()
        yield from super().named_modules(*args, **kwargs)

    def _named_members(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As ``nn.Module``; ``parameters(recurse=False)`` comes through here."""
        self.look()
        yield from super()._named_members(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002
        """As ``nn.Module``."""
        self.forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.forget()
        before = self._is_meta()
        super()._apply(*args, **kwargs)
        if before and not self._is_meta():
            self.__dict__["_emptied"] = True
        return self

    def _is_meta(self) -> bool:
        tensors = (*self._parameters.values(), *self._buffers.values())
        return any(tensor is not None and tensor.is_meta for tensor in tensors)

    def _save_to_state_dict(self, *args: Any) -> None:
        self.look()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.forget()
        if not filled(self, *args[:3]):
            super()._load_from_state_dict(*args)
        if not args[-1]:  # the errors so far
            self.__dict__["_emptied"] = False

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As ``nn.Module``; a read then calls the chain."""
        return self._hooked(super().register_forward_pre_hook(*args, **kwargs))

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As ``nn.Module``; a read then calls the chain."""
        return self._hooked(super().register_forward_hook(*args, **kwargs))

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As ``nn.Module``; a read then calls the chain."""
        return self._hooked(super().register_full_backward_hook(*args, **kwargs))

    def _hooked(self, handle: RemovableHandle) -> RemovableHandle:
        self.forget()
        self.note_special()
        return handle

    def note_special(self) -> None:
        """Note whether a read has to look for more than the value."""
        state = self.__dict__
        state["_special"] = (
            bool(state["_overrides"] or state["_disabled"])
            or state["_refined"] is not None
            or not is_unhooked(self)
        )

    def is_deterministic(self) -> bool:
        """Tell whether every map says so and nothing is hooked into a call."""
        parts = [part for map_ in self._modules.values() for part in parts_of(map_)]
        volatile = self.__dict__["_volatile"]
        if volatile is None:
            volatile = self.__dict__["_volatile"] = not all(
                isinstance(part, Parametrization) and part.deterministic
                for part in parts
            )
        return not volatile and all(map(is_unhooked, parts))


def _asks_for_hooks() -> bool:
    """Tell whether torch's encoder goes through its modules, as in every forward.

    It looks for hooks, before it takes its fast path, and at no tensor.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name in _WALKS:
        frame = frame.f_back
    return frame.f_globals.get("__name__") == "torch.nn.modules.transformer"


_WALKS = ("named_modules", "modules")
