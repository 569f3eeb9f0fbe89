"""A tensor's chain: originals -> maps -> value, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..errors import path_of
from ..linalg.tolerances import tolerance
from .inversion import (
    Snapshot,
    Where,
    check_assigned,
    check_image,
    check_originals,
    check_registered,
    invert,
    write,
)
from .parametrization import Outside, Parametrization

if TYPE_CHECKING:
    from .memo import Memo

_TINY = torch.finfo(torch.float32).tiny
_backward_pass = torch._C._current_graph_task_id
_GLOBAL_PRE_HOOKS = torch_module._global_forward_pre_hooks
_GLOBAL_HOOKS = torch_module._global_forward_hooks


class ParametrizationList(nn.ModuleList):
    """The maps of one tensor, in order, with the originals they start from.

    It is what ``module.parametrizations.weight`` is; `register_parametrization` makes
    it. The first map takes the originals, every other map the value of the one before.

    Args:
        modules: the maps, at least one.
        original: the tensor to parametrize. Where the right inverse gives one tensor,
            that value is written into it and it stays, as ``original``; where it gives
            several, they become ``original0``, ``original1``, ...
        unsafe: let the maps change shape and dtype.
        outside: what becomes of assigned tensors that a map's codomain does not
            contain; ``None`` leaves it to the map.
        where: names the tensor in messages.

    Attributes:
        moved: how far registration moved the value, as ``||new - old|| / ||old||``;
            0 for a value that was in the set.

    Example:
        >>> import torch, holdfast
        >>> layer = holdfast.weight_norm(torch.nn.Linear(2, 3))
        >>> chain = layer.parametrizations.weight
        >>> len(chain), chain.ntensors, tuple(chain.original0.shape)
        (1, 2, (3, 1))
    """

    is_tensor: bool
    ntensors: int
    _moved: Tensor
    _epoch: int  # counts the changes that pass through here; `core/entry.py`
    _memo: Memo | None
    _overrides: list[tuple[Any, Any]]  # `core/functional.py`
    _refined: tuple[object, object] | None  # when moving state was advanced, if any
    _volatile: bool | None  # some map may change its value on its own; None: unknown
    _shared: bool  # with a shallow copy of the module
    _special: bool  # a read has to look at one of the last two

    def __init__(
        self,
        modules: Sequence[nn.Module],
        original: Tensor,
        unsafe: bool = False,  # noqa: FBT001, FBT002  # torch's signature
        *,
        outside: Outside | None = None,
        where: Where | None = None,
    ) -> None:
        if len(modules) == 0:
            raise ValueError("ParametrizationList requires one or more modules.")
        self.__dict__.update(_PRIVATE, _overrides=[])
        super().__init__(modules)
        self.unsafe = unsafe
        self.outside = outside
        self.order: tuple[str, ...] = ()
        self.shape = original.shape
        with Snapshot(self._modules.values()):
            self._adopt(original, where or (lambda: "the tensor"))
        claim(self)

    def _adopt(self, original: Tensor, where: Where) -> None:
        """Turn a plain tensor into the originals that the maps start from."""
        value = original.detach()
        with torch.no_grad():
            for map_ in self._modules.values():
                if isinstance(map_, Parametrization):
                    map_.bind(value)
            new = invert(self, value, where, registering=True)
            new = check_registered(value, new, where)
            self.is_tensor = isinstance(new, Tensor)
            originals = (new,) if isinstance(new, Tensor) else tuple(new)
            self.ntensors = len(originals)
            image = self.compute(*originals)
            check_image(image, value, where, unsafe=self.unsafe)
            self._moved = _distance(image, value)
        if isinstance(new, Tensor):
            self._register("original", original)
            write(original, new)
        else:
            for i, tensor in enumerate(originals):
                self._register(f"original{i}", like(original, tensor))

    def _register(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    @property
    def moved(self) -> float:
        """How far registration moved the value, relative to its norm."""
        return float(self._moved)

    def originals(self) -> tuple[Tensor, ...]:
        """Return the free tensors."""
        if self.is_tensor:
            return (self._original("original"),)
        return tuple(self._original(f"original{i}") for i in range(self.ntensors))

    def _original(self, name: str) -> Tensor:
        tensor = self._parameters.get(name)
        if tensor is None:
            tensor = self._buffers.get(name)
        # a replica of DataParallel keeps its tensors as plain attributes
        return self.__dict__[name] if tensor is None else tensor

    def forward(self) -> Tensor:
        """Compute the value."""
        return self.evaluate()

    def evaluate(self) -> Tensor:
        """Compute the value, without the detour through ``nn.Module.__call__``."""
        if not self.is_tensor:
            return self.compute(*self.originals())
        value = self._parameters.get("original")
        if value is None:
            value = self._original("original")
        if _GLOBAL_PRE_HOOKS or _GLOBAL_HOOKS:
            return self.compute(value)
        for map_ in self._modules.values():
            state = map_.__dict__
            if (
                state["_forward_hooks"]
                or state["_forward_pre_hooks"]
                or state["_backward_hooks"]
                or state["_backward_pre_hooks"]
            ):
                value = map_(value)
            else:
                value = map_.forward(value)
        return value

    def compute(self, *tensors: Any) -> Any:  # noqa: ANN401
        """Run the maps on given originals."""
        for map_ in self._modules.values():
            tensors = (call(map_, tensors),)
        return tensors[0]

    @classmethod
    def of_torchs(cls, other: nn.ModuleList, shape: torch.Size) -> ParametrizationList:
        """Return a chain of ours with what a list of torch's holds."""
        chain = cls.__new__(cls)
        chain.__dict__.update(
            other.__dict__,
            **_PRIVATE,
            _overrides=[],
            _moved=torch.zeros(()),
            shape=shape,
            outside=None,
            order=(),
        )
        return chain

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals such that the value becomes ``value``.

        The right inverses run in reverse order. A failure leaves the chain as it was.

        Raises:
            NoRightInverseError: a map has no ``right_inverse``.
            NotInSetError: ``value`` is not in a codomain, and the policy is "error".
            InvalidTensorError: wrong shape, dtype or device.
            NonFiniteError: a right inverse gave NaN or infinity.
        """
        self.assign(value, lambda: path_of(self))

    def assign(self, value: object, where: Where) -> None:
        """Set the value; ``where()`` names the tensor in messages."""
        self.forget()
        with Snapshot(self._modules.values()), torch.no_grad():
            tensor = check_assigned(self, value, where)
            new = invert(self, tensor, where, registering=False)
            originals = self.originals()
            for original, tensor in zip(
                originals, check_originals(self, new, originals, where), strict=True
            ):
                write(original, tensor)

    # What moves on its own (R2): once per training forward of the host, never on a read

    def movers(self) -> list[Parametrization]:
        """Return the maps that have moving state."""
        return [
            map_
            for map_ in self._modules.values()
            if isinstance(map_, Parametrization) and map_.moves
        ]

    def hand_over_refinement(self) -> None:
        """Let the host's forward advance the maps, which they else do themselves."""
        for map_ in self.movers():
            map_.__dict__["advanced_by_host"] = True
        self.__dict__.update(_refined=(self._versions(), None), _special=True)

    def refine_(self) -> None:
        """Advance the state of the maps that have moving state."""
        movers = self.movers()
        tensors: tuple[Tensor, ...] = self.originals()
        with torch.no_grad():
            for map_ in self._modules.values():
                if movers and map_ is movers[0]:
                    movers.pop(0).refine_(*tensors)
                if not movers:
                    break
                tensors = (call(map_, tensors),)
        self.__dict__["_refined"] = (self._versions(), None)

    def catch_up_(self) -> None:
        """Refine where the host's forward evidently is not what uses the weight.

        `MultiheadAttention` reads ``out_proj.weight`` and never calls ``out_proj``.
        The originals moved, were read, and moved again without a forward in between:
        then this read stands for the forward.
        """
        version, (refined, overlooked) = self._versions(), self.__dict__["_refined"]
        if version == refined or _backward_pass() != -1:
            return
        if overlooked in (None, version):
            self.__dict__["_refined"] = (refined, version)
        else:
            self.refine_()
            self.__dict__["_refined"] = (version, version)

    def _versions(self) -> tuple[int, ...]:
        return tuple(tensor._version for tensor in self.originals())

    # Changes, and looks that may precede one, count as a new epoch

    def forget(self) -> None:
        """Let no value that was computed before be used again."""
        state = self.__dict__
        state["_epoch"] = state.get("_epoch", 0) + 1
        state["_memo"] = state["_volatile"] = None

    def is_deterministic(self) -> bool:
        """Tell whether every map says so and nothing is hooked into a call."""
        volatile = self.__dict__["_volatile"]
        if volatile is None:
            volatile = self.__dict__["_volatile"] = not all(
                isinstance(map_, Parametrization) and map_.deterministic
                for map_ in self._modules.values()
            )
        return not volatile and all(map(is_unhooked, self._modules.values()))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as nn.Module
        if name.startswith("original"):
            self.forget()
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        self.forget()
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self.forget()
        super().__delattr__(name)

    def __getitem__(self, idx: Any) -> Any:  # noqa: ANN401  # as nn.ModuleList
        self.forget()
        return super().__getitem__(idx)

    def __iter__(self) -> Iterator[nn.Module]:
        self.forget()
        return super().__iter__()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As ``nn.Module``; ``append`` and ``extend`` come through here."""
        self.forget()
        super().add_module(name, module)

    def insert(self, index: int, module: nn.Module) -> None:
        """As ``nn.ModuleList``."""
        self.forget()
        super().insert(index, module)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[Any]:  # noqa: ANN401
        """As ``nn.Module``; ``parameters()`` and ``buffers()`` come through here."""
        self.forget()
        yield from super().named_modules(*args, **kwargs)

    def train(self, mode: bool = True) -> ParametrizationList:  # noqa: FBT001, FBT002
        """As ``nn.Module``."""
        self.forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> ParametrizationList:  # noqa: ANN401
        self.forget()
        return super()._apply(*args, **kwargs)

    def _save_to_state_dict(self, *args: Any) -> None:  # noqa: ANN401
        self.forget()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401
        self.forget()
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memo": None, "_overrides": [], "_shared": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        claim(self)


# What a chain starts with and what a copy starts with again
_PRIVATE: dict[str, Any] = {
    "_epoch": 0,
    "_memo": None,
    "_refined": None,
    "_shared": False,
    "_special": False,
    "_volatile": None,
}


def call(map_: nn.Module, tensors: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Call a map; its ``forward`` directly when nothing else would happen."""
    if is_unhooked(map_):
        return map_.forward(*tensors)
    return map_(*tensors)


def is_unhooked(map_: nn.Module) -> bool:
    """Tell whether calling the map is calling its ``forward``."""
    state = map_.__dict__
    return not (
        state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or _GLOBAL_PRE_HOOKS
        or _GLOBAL_HOOKS
    )


# Which chain a stateful map belongs to (A13)
_homes: WeakKeyDictionary[nn.Module, ReferenceType[ParametrizationList]]
_homes = WeakKeyDictionary()


def home_of(map_: nn.Module) -> ParametrizationList | None:
    """Return the chain that already holds this map, if one does."""
    home = _homes.get(map_, lambda: None)()
    held = home is not None and any(m is map_ for m in home._modules.values())
    return home if held else None


def claim(chain: ParametrizationList) -> None:
    """Note which maps the chain holds."""
    for map_ in chain._modules.values():
        _homes[map_] = ref(chain)


def disown(chain: ParametrizationList) -> None:
    """Forget the maps of a chain that is no longer in use."""
    for map_ in chain._modules.values():
        _homes.pop(map_, None)


def _distance(new: Tensor, old: Tensor) -> Tensor:
    """Return ``||new - old|| / ||old||``, and 0 for what is only rounding."""
    if new.shape != old.shape:
        return torch.tensor(float("nan"))
    old = old.to(new.dtype)
    norm = torch.linalg.vector_norm(old)
    distance = torch.linalg.vector_norm(new - old) / norm.clamp_min(_TINY)
    return torch.where(distance <= tolerance(old), 0.0, distance)


def like(original: Tensor, new: Tensor) -> Tensor:
    """Return ``new`` as a tensor of its own, of the original's kind."""
    new = new.detach().clone(memory_format=torch.contiguous_format)
    grad = original.requires_grad and (new.is_floating_point() or new.is_complex())
    if isinstance(original, nn.Parameter):
        return nn.Parameter(new, requires_grad=grad)
    return new.requires_grad_(grad)
