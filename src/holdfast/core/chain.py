"""A tensor's chain: originals -> maps -> value, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteError, NotInSetError, path_of
from .adoption import UNMOVED, adopt, relative_distance
from .calling import call, evaluate
from .checks import (
    Originals,
    Where,
    as_tuple,
    check_takes_one,
)
from .entry import trackable
from .epoch import EpochList
from .inversion import inverted
from .leaves import bring_home
from .parametrization import Outside, Parametrization
from .sharing import claim
from .transaction import Snapshot, decisive, like, write


class ParametrizationList(EpochList):
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
    unsafe: bool
    outside: Outside | None
    order: tuple[str, ...]
    shape: torch.Size
    _moved: tuple[Tensor, Tensor] | tuple[float, float]
    _shared: bool  # with a shallow copy of the module

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
        super().__init__()
        self.__dict__.update(  # not one by one: each would begin a new epoch
            _PRIVATE,
            _modules={str(i): map_ for i, map_ in enumerate(modules)},
            _overrides=[],
            unsafe=unsafe,
            outside=outside,
            order=(),
            shape=original.shape,
        )
        adopt(self, original, where or (lambda: "the tensor"))
        if where is None:
            self.settle()
        claim(self)

    def settle(self) -> None:
        """Write the original, which stays what it was until nothing can fail."""
        new = self.__dict__.pop("_pending", None)
        if new is not None:
            write(self._original("original"), new)

    def replace_originals(self, new: Originals) -> None:
        """Start from other tensors from now on."""
        kind = decisive(self.originals())
        self.__dict__.update(
            is_tensor=isinstance(new, Tensor),
            ntensors=len(as_tuple(new)),
            _parameters={},
            _buffers={},
        )
        for i, tensor in enumerate(as_tuple(new)):
            name = "original" if self.is_tensor else f"original{i}"
            self._register(name, like(kind, tensor))
        if self._non_persistent_buffers_set:
            self.__dict__["_non_persistent_buffers_set"] = {*self._buffers}

    def _register(self, name: str, tensor: Tensor) -> None:
        kind = "_parameters" if isinstance(tensor, nn.Parameter) else "_buffers"
        self.__dict__[kind][name] = tensor

    @property
    def moved(self) -> float:
        """How far registration moved the value, relative to its norm."""
        return relative_distance(self)

    def originals(self) -> tuple[Tensor, ...]:
        """Return the free tensors."""
        return tuple([self._original(name) for name in self.names()])

    def names(self) -> list[str]:
        """Return what the free tensors are called."""
        if self.is_tensor:
            return ["original"]
        return [f"original{i}" for i in range(self.ntensors)]

    def first_original(self) -> Tensor:
        """Return the first of the free tensors."""
        return self._original("original" if self.is_tensor else "original0")

    def first_originals(self) -> tuple[Tensor, ...]:
        """Return the free tensors as they will be once a registration is through."""
        pending = self.__dict__.get("_pending")
        return self.originals() if pending is None else (pending,)

    def _original(self, name: str) -> Tensor:
        state = self.__dict__
        tensor = state["_parameters"].get(name)
        if tensor is None:
            tensor = state["_buffers"].get(name)
        # a replica of DataParallel keeps its tensors as plain attributes
        return state[name] if tensor is None else tensor

    def forward(self) -> Tensor:
        """Compute the value."""
        return self.evaluate()

    def evaluate(self) -> Tensor:
        """Compute the value, without the detour through ``nn.Module.__call__``."""
        if self.__dict__["_disabled"]:
            return self.compute(*self.originals())
        return evaluate(self, self.__dict__)

    def compute(self, *tensors: Any) -> Any:
        """Run the maps on given originals."""
        for map_ in self.links():
            tensors = (call(map_, tensors),)
        return tensors[0]

    def links(self) -> list[nn.Module]:
        """Return the maps that are not disabled, in order."""
        maps: Any = [*self._modules.values()]
        off = self.__dict__["_disabled"]
        if not off:  # else graphs would be compiled for the very maps
            return maps
        return [map_ for map_ in maps if all(map_ is not each for each in off)]

    @classmethod
    def of_torchs(cls, other: nn.ModuleList, shape: torch.Size) -> ParametrizationList:
        """Return a chain of ours with what a list of torch's holds."""
        chain = cls.__new__(cls)
        chain.__dict__.update(
            other.__dict__,
            **_PRIVATE,
            _overrides=[],
            _moved=UNMOVED,
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
        """Set the value; ``where()`` names the tensor in messages.

        The value that is there stays, also where rounding has led it out of its set, or
        a right inverse does not find it again.
        """
        bring_home()
        self.look()
        try:
            # bases made in inference mode could not be trained
            with trackable(), Snapshot(self._modules.values()), torch.no_grad():
                for original, tensor in inverted(self, value, where):
                    write(original, tensor)
            self.__dict__["_emptied"] = False
        except (NotInSetError, NonFiniteError):
            if not self._is_current(value):
                raise
        self.look()  # another thread may have read meanwhile

    @torch.no_grad()
    def _is_current(self, value: object) -> bool:
        return isinstance(value, Tensor) and torch.equal(self.evaluate(), value)

    def rebase_(self, *, repair: bool = True) -> None:
        """Move the base point of the first map to its value; the weight stays.

        Coordinates are small near the base, where every map is at its best. What an
        optimizer knows of the originals still holds. See `holdfast.Rebase`.

        Args:
            repair: take the value back to its set, from which rounding errors lead.

        Raises:
            NotImplementedError: the map has no base point.
        """
        map_ = self._modules["0"]
        if not isinstance(map_, Parametrization) or not map_.based:
            raise NotImplementedError(
                f"`{path_of(self)}`: {type(map_).__name__} has no base point to move. "
                "`maps.ThinOrthogonal` has one, and `maps.Orthogonal` unless "
                "use_trivialization=False."
            )
        with torch.no_grad():
            map_.rebase_(*self.originals(), repair=repair)
        self.look()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As ``nn.Module``; torch's own functions append without a look at the map."""
        if module is not None and name != "0":
            check_takes_one(module, partial(path_of, self))
        super().add_module(name, module)

    def versions(self) -> tuple[int, ...]:
        """Return the versions of the originals; -1 where there is none."""
        return tuple([_version_of(tensor) for tensor in self.originals()])

    def stamp(self) -> object:
        """Return what is another one after any change of an original."""
        return [(id(tensor), _version_of(tensor)) for tensor in self.originals()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **_UNCOPIED, "_overrides": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        claim(self)


def _version_of(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


# What belongs to one chain, in the scopes and places that it is in
_UNCOPIED: dict[str, Any] = {
    "_disabled": (),
    "_kind": None,
    "_memo": None,
    "_shared": False,
}

# What a chain starts with and what a copy starts with again
_PRIVATE: dict[str, Any] = {
    **_UNCOPIED,
    "_emptied": False,
    "_epoch": 0,
    "_refined": None,
    "_special": False,
    "_volatile": None,
}
