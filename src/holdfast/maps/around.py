"""What maps around one map share: all but the way between their values and its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from ..core.calling import call
from ..core.checks import check_type
from ..core.inversion import says_there_is_none
from ..core.parametrization import Outside, Parametrization
from ..core.sharing import notes_of, parts_of
from ..core.transaction import Snapshot
from ..errors import NotInSetError, SharedMapError
from ..sets.constraint import Constraint

_Result = TypeVar("_Result")


class Around(Parametrization):
    """A map around one map, which it holds as ``map``.

    The originals are the map's. What a combinator does is said by the methods that
    begin with an underscore; by default each of them does nothing.
    """

    map: Parametrization
    deterministic = True

    # of the tensor and of what the map makes: `bind` or `right_inverse` sees them
    shape: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()

    # the original may be the tensor itself: no right inverse has made others
    plain = True

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        if name == "map":
            check_type(value, Parametrization, type(self).__name__, "a map")
        super().__setattr__(name, value)

    def _inward(self, weight: Tensor) -> Tensor:
        """Return the value that the map has to have for a weight."""
        return weight

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        """Return the weight for a value of the map."""
        return value

    def _handed(self, originals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the originals of the map."""
        return originals

    def _value(self, originals: tuple[Tensor, ...]) -> Tensor:
        """Return the map's value."""
        return call(self.map, originals)

    def _taken(self, constraint: Constraint) -> Constraint:
        """Return the domain around the map's."""
        return constraint

    def _made(self, constraint: Constraint) -> Constraint:
        """Return the codomain around the map's."""
        return constraint

    def _found(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the originals for a weight."""
        return self.map.right_inverse(self._inward(weight))

    def _check(self, weight: Tensor) -> None:
        """Refuse weights, and maps that are bound to them."""

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the map's domain is from outside."""
        return self._taken(self.map.domain)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the map's codomain is from outside."""
        return self._made(self.map.codomain)

    @property
    def outside(self) -> Outside:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.outside

    @property
    def decays(self) -> bool | tuple[bool, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.decays

    @property
    def moves(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.moves

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.based

    def bind(self, weight: Tensor) -> None:
        """Bind the map to what it has to make, and check both."""
        value = self._inward(weight)
        self._note(weight, value)
        bind_inside(self.map, value)
        self._check(weight)

    def _note(self, weight: Tensor, value: Tensor) -> None:
        self.shape, self.inner = tuple(weight.shape), tuple(value.shape)

    def forward(self, *originals: Tensor) -> Tensor:
        """Return the weight for the map's value."""
        return self._outward(self._value(self._given(originals)), originals)

    def _given(self, originals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the originals of the map, also where they are the tensor itself."""
        handed = self._handed(originals)
        if self.plain and handed[0].shape == self.shape != self.inner:
            return (self._inward(handed[0]),)
        return handed

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the map's right inverse makes of the value inside."""
        self._note(weight, self._inward(weight))
        try:
            found = self._found(weight)
        except NotImplementedError as error:
            if not says_there_is_none(error, self.map):
                raise
            raise NotImplementedError(str(error)) from None
        self.plain = False
        return found

    def refine_(self, *originals: Tensor) -> None:
        """Advance the map's state."""
        self.map.refine_(*self._given(originals))

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the map's base."""
        given = self._given(originals)
        self.map.rebase_(*given, repair=repair)
        for original, tensor in zip(originals[-len(given) :], given, strict=True):
            if tensor.dtype != original.dtype:  # the map has moved a copy
                original.copy_(tensor)


def bind_inside(map_: Parametrization, weight: Tensor) -> None:
    """Bind a map inside of another one."""
    map_.bind(weight)
    # `Orthogonal` has signs where torch looks for them, which it cannot do here
    map_._non_persistent_buffers_set = set()


class Places:
    """Binds the maps of a combinator, each in its place.

    A map without tensors may have several; but not where it notes what it is bound to,
    and that differs, as the shapes of two blocks.
    """

    def __init__(self, holder: Parametrization) -> None:
        self._holder = holder
        self._notes = dict[int, dict[str, object]]()

    def bind(self, map_: Parametrization, weight: Tensor) -> None:
        """Bind a map, or refuse it for a place that differs from another one."""
        bind_inside(map_, weight)
        for part in parts_of(map_):
            if self._notes.setdefault(id(part), notes_of(part)) != notes_of(part):
                raise SharedMapError(
                    f"`{type(part).__name__}` notes the shape that it is bound to, so "
                    "it cannot have two places of different shapes in "
                    f"`{type(self._holder).__name__}`. Pass a copy: "
                    "`copy.deepcopy(parametrization)`."
                )


def originals_of(map_: Parametrization, value: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Return the originals of a value: itself where there is no right inverse."""
    try:
        return map_.right_inverse(value)
    except NotImplementedError as error:
        if not says_there_is_none(error, map_):
            raise
        return value


def originals_near(link: Parametrization, value: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Return originals of a value, or of what is next to it, or the value itself.

    The latter is what a registration begins with if there is no right inverse, or none
    for this value: `MatrixExp` has one where the map before it leads to.
    """
    if link.outside != "project" and not link.codomain.contains(value):
        value = link.codomain.project(value)
    try:
        return originals_of(link, value)
    except NotInSetError:
        return value


def without_trace(map_: Parametrization, function: Callable[[], _Result]) -> _Result:
    """Call a function, and leave the map as it was."""
    snapshot = Snapshot([map_])
    with snapshot:
        result = function()
    snapshot.restore()
    return result


def hold(holder: Parametrization, maps: tuple[Parametrization, ...]) -> None:
    """Make maps submodules by number, as ``nn.Sequential`` does."""
    known = set[int]()
    for i, map_ in enumerate(maps):
        check_type(map_, Parametrization, type(holder).__name__, "maps")
        # buffers that `bind` is to make are there as `None`
        mine = {id(x): x for x in parts_of(map_) if x._buffers or x._parameters}
        for twice in known & mine.keys():
            raise SharedMapError(
                f"`{type(mine[twice]).__name__}` has state, so it cannot have two "
                f"places in `{type(holder).__name__}`. Pass a copy: "
                "`copy.deepcopy(parametrization)`."
            )
        known |= mine.keys()
        holder.add_module(str(i), map_)
