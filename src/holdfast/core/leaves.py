"""Values handed out as leaves, whose gradients wait for one backward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .torch_state import (
    copy_on_write,
    is_copy_on_write,
    saved_tensor_hooks,
    storage_owners,
)

if TYPE_CHECKING:
    from .chain import ParametrizationList

# What `bring_home` calls: the scopes are known in `cache.py`, which comes later
at_home: list[Callable[[], None]] = []


def bring_home() -> None:
    """Bring the gradients that wait to the originals, which are about to move."""
    for bring in at_home:
        bring()


def brought(argument: Any) -> Any:
    """Let a closure bring home the gradients that it computes."""
    if not callable(argument):
        return argument

    @functools.wraps(argument)
    def closure(*args: Any, **kwargs: Any) -> Any:
        found = argument(*args, **kwargs)
        bring_home()
        return found

    return closure


class Leaves:
    """The values of a scope, each with the leaf that stands for it."""

    def __init__(self) -> None:
        self._waiting: dict[ParametrizationList, Waiting] = {}

    def hand_out(self, value: Tensor, chain: ParametrizationList) -> Tensor:
        """Return a leaf that stands for a value of a chain."""
        if not value.requires_grad:
            return value
        leaf = value.detach().requires_grad_()
        waiting = self._waiting.setdefault(chain, Waiting(chain))
        leaf.register_hook(partial(_arrive, ref(waiting)))
        waiting.pairs.append((leaf, value))
        return leaf

    def flush(self) -> None:
        """Bring the gradients that have come together to the originals."""
        for waiting in self._waiting.values():
            waiting.forget_if_zeroed()
            waiting.refuse_early()
        held, self._waiting = [*self._waiting.values()], {}
        for waiting in held:
            waiting.unmark()
        pairs = [pair for waiting in held for pair in waiting.pairs]
        values = [value for leaf, value in pairs if leaf.grad is not None]
        grads = [leaf.grad for leaf, _ in pairs if leaf.grad is not None]
        frozen = [
            mark.original
            for waiting in held
            for mark in waiting.marks
            if not mark.original.requires_grad
        ]
        for original in frozen:  # since: what came before is theirs
            original.requires_grad_()
        try:
            if values:
                torch.autograd.backward(values, grads)
        finally:
            for original in frozen:
                original.requires_grad_(False)  # torch's

    def drop(self) -> None:
        """Forget the gradients that have come together."""
        for waiting in self._waiting.values():
            waiting.forget()
            waiting.unmark()

    def close(self) -> None:
        """Hold no value any more, and refuse gradients."""
        for waiting in self._waiting.values():
            waiting.unmark()
        self._waiting.clear()


class Mark(NamedTuple):
    """The gradient that an original had when one for its value arrived.

    Where there was none it got zeros, as otherwise no ``zero_grad`` could be noticed.
    They are negative ones: who sets to zero writes positive ones, who scales does not.
    Memory that is copied on writing shows what moves no version, as through ``.data``.
    A slice of something larger has neither for itself, only what it was.
    """

    original: Tensor
    grad: Tensor
    version: int
    own: bool
    watched: bool  # by its memory too
    was: Tensor | None  # where it is a slice

    def is_zeroed(self) -> bool:
        """Tell whether the gradient was set to zero, or to ``None``, since then."""
        now = self.original.grad
        if now is None:
            return True
        return self.is_changed() and not bool(now.any()) and not _signs(now).any()

    def is_changed(self) -> bool:
        """Tell whether it was written to, or another was put there, since then."""
        if self.original.grad is not self.grad:
            return True
        if self.was is not None:
            return not torch.equal(_bits(self.grad), self.was)
        return self.grad._version != self.version or (
            self.watched and not is_copy_on_write(self.grad)
        )


class Waiting:
    """What waits for the originals of a chain: leaves, and the values they are for."""

    def __init__(self, chain: ParametrizationList) -> None:
        self.chain = chain
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.marks: list[Mark] = []
        self._watched: dict[int, list[RemovableHandle]] = {}

    def arrive(self) -> None:
        """Make ready for a gradient, which is not yet in its leaf."""
        self.forget_if_zeroed()
        self.refuse_early()  # the marks that tell it are replaced
        own = {id(mark.grad) for mark in self.marks if mark.own}
        known = {id(mark.original) for mark in self.marks}  # some are frozen since
        self.marks = [
            _marked(original, own)
            for original in self.chain.originals()
            if original.is_leaf and (original.requires_grad or id(original) in known)
        ]
        for original, *_ in self.marks:
            if original.requires_grad and id(original) not in self._watched:
                self._watched[id(original)] = _watching(ref(self), original)

    def added(self, original: Tensor) -> None:
        """Note that a gradient came to an original itself, by a penalty on it say."""
        self.marks = [
            _marked(original, set()) if mark.original is original else mark
            for mark in self.marks
        ]

    def unmark(self) -> None:
        """Take the zeros away that nobody has added to."""
        while self._watched:
            for hook in self._watched.popitem()[1]:
                hook.remove()
        for mark in self.marks:
            if mark.own and mark.original.grad is mark.grad and not mark.is_changed():
                mark.original.grad = None

    def forget_if_zeroed(self) -> None:
        """Forget what came before ``zero_grad``."""
        if self.marks and all(mark.is_zeroed() for mark in self.marks):
            self.forget()

    def forget(self) -> None:
        """Forget the gradients that have come together."""
        for leaf, _ in self.pairs:
            leaf.grad = None

    def refuse_early(self) -> None:
        """Refuse that gradients were scaled which had not come yet."""
        for mark in self.marks:
            if mark.is_changed() and not mark.is_zeroed():
                raise RuntimeError(
                    "The gradients of originals were changed inside "
                    "`holdfast.accumulate`, by clipping say, or handed to NumPy, "
                    "before they had arrived. Call `flush()` of the scope first."
                )


def _marked(original: Tensor, own: set[int]) -> Mark:
    new = original.grad is None
    if new:
        original.grad = -torch.zeros_like(original)
    grad = cast("Tensor", original.grad)
    if type(grad) is not Tensor or grad.layout is not torch.strided:
        watched, was = False, None
    elif storage_owners(grad) > _ALONE:
        if not grad.any():
            grad.data.copy_(-torch.zeros_like(grad))
        watched, was = False, _bits(grad).clone()
    else:
        watched, was = _is_watched(grad), None
    return Mark(original, grad, grad._version, new or id(grad) in own, watched, was)


def _is_watched(grad: Tensor) -> bool:
    """Have memory copied on writing, so that a copy is a trace of it."""
    if not is_copy_on_write(grad):
        with contextlib.suppress(RuntimeError):  # NumPy's memory, or other processes'
            copy_on_write(grad)
    return is_copy_on_write(grad)


_ALONE = storage_owners(torch.empty(1))


def _bits(grad: Tensor) -> Tensor:
    """Return what tells apart zeros of both signs, and is equal where there is NaN."""
    return grad.detach().contiguous().view(-1).view(torch.uint8)


def _signs(grad: Tensor) -> Tensor:
    """Return which entries are negative, zeros too."""
    return (torch.view_as_real(grad) if grad.is_complex() else grad).signbit()


def _watching(
    waiting: ReferenceType[Waiting], original: Tensor
) -> list[RemovableHandle]:
    """Watch what other backward passes add to the gradient of an original."""

    def before(_: Tensor) -> None:
        if (live := waiting()) is not None:
            live.forget_if_zeroed()

    def after(original: Tensor) -> None:
        if (live := waiting()) is not None:
            live.added(original)

    return [
        original.register_hook(before),
        original.register_post_accumulate_grad_hook(after),
    ]


def _arrive(waiting: ReferenceType[Waiting], _: Tensor) -> None:
    """Refuse a gradient that nobody would bring to the original."""
    live = waiting()
    if live is None:
        raise RuntimeError(
            "A loss was computed inside `holdfast.accumulate` and differentiated after "
            "the scope had ended, or an optimizer had stepped, when the gradients of "
            "the weights had been brought to their originals. Call `backward()` inside "
            "the scope, and before the step."
        )
    live.arrive()


def unwatched() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which no checkpoint sees the tensors that maps save."""
    if saved_tensor_hooks(True) is None:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_itself, _itself)


def _itself(tensor: Any) -> Any:
    return tensor
