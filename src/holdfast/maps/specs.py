"""From plain data back to a map: what `spec` of a map gave, or what a file claims.

A spec may come from anywhere. So it names classes of a closed table, each argument is
checked against the annotation of the constructor before anything is made, and what is
too large or too deep is refused.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .. import sets
from ..core.parametrization import Parametrization
from ..core.plain_data import DTYPES, MOST_VALUES, constructor, key_of
from ..errors import SpecError, did_you_mean
from ..sets.constraint import Constraint

_DEEPEST = 32
_MOST_ENTRIES = 4096
_MOST_ELEMENTS = 2**31
_LARGEST_NUMBER = 2**63

_SCALARS = bool | int | float | str | None


def from_spec(
    spec: Mapping[str, object], *, also: Iterable[type[Parametrization]] = ()
) -> Parametrization:
    """Return the map that plain data describes, as ``map.spec()`` makes it.

    Args:
        spec: the name of the class under ``"map"``, and its arguments by name. A map
            among these has a spec of its own, a set one with its name under ``"set"``,
            and a tensor is ``{"shape": [2, 3], "dtype": "bool"}``, with a flat list of
            ``"values"`` if it is small. One without becomes zeros, and gets its values
            when a state dict is loaded. An argument that is itself called ``map``
            stands under ``"map_"``.
        also: classes of your own that the spec may name, beside those of
            `holdfast.maps`.

    Raises:
        SpecError: the data names what is not in the table, lacks an argument or has
            one too many, one of the wrong type, or is absurdly large.

    Example:
        >>> from holdfast import maps
        >>> spec = maps.Triangular(upper=True).spec()
        >>> spec
        {'map': 'Triangular', 'upper': True, 'strict': False}
        >>> maps.from_spec(spec)
        Triangular(upper=True)
    """
    _check_size(spec)
    reader = _Reader({"map": _maps(also), "set": _sets()})
    made = reader.instance(spec, "map", "spec")
    assert isinstance(made, Parametrization)
    return made


def _maps(also: Iterable[type[Parametrization]]) -> dict[str, type]:
    from .. import maps

    table = _classes(maps, Parametrization)
    for cls in also:
        if table.setdefault(cls.__name__, cls) is not cls:
            raise SpecError(
                f"`{cls.__name__}` is a map of holdfast already, so a spec cannot "
                "name yours. Call it otherwise."
            )
    return table


def _sets() -> dict[str, type]:
    return _classes(sets, Constraint)


def _classes(module: Any, base: type) -> dict[str, type]:  # noqa: ANN401
    """Return the classes that a package exports."""
    exported = {name: getattr(module, name) for name in module.__all__}
    return {
        name: thing
        for name, thing in exported.items()
        if inspect.isclass(thing) and issubclass(thing, base) and thing is not base
    }


def _check_size(spec: object) -> None:
    """Refuse data that is too deep or too long, before anything descends into it."""
    level, count = [spec], 0
    for _ in range(_DEEPEST):
        below = list[object]()
        for value in level:
            if isinstance(value, dict | list):
                count += len(value)
                _refuse_more("`spec` has", count, _MOST_ENTRIES, "entries")
                below += value.values() if isinstance(value, dict) else value
        level = below
        if not level:
            return
    raise SpecError(f"`spec` is nested deeper than {_DEEPEST}. No map is.")


def _refuse_more(what: str, count: int, limit: int, unit: str) -> None:
    if count > limit:
        raise SpecError(f"{what} {count} {unit}, expected at most {limit}.")


class _WrongType(SpecError):
    """A value of another type than the constructor's, at a place in the spec."""

    def __init__(self, place: str, expected: str, data: object, hint: str = "") -> None:
        self.place = place
        got = f"`{data:.80}`" if isinstance(data, str) else type(data).__name__
        super().__init__(f"`{place}`: expected {expected}. Got {got}.{hint}")


@dataclass
class _Reader:
    """Reads values by the types that are asked for.

    Attributes:
        tables: the classes that may be named, by kind.
        elements: how many entries the tensors have so far.
    """

    tables: Mapping[str, Mapping[str, type]]
    elements: int = 0

    def instance(self, data: object, kind: str, place: str) -> object:
        """Return the map or set that a dictionary describes."""
        known = self.tables[kind]
        name = data.get(kind) if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(name, str):
            raise _WrongType(
                place, f'a dictionary with the name of a {kind} as "{kind}"', data
            )
        if name not in known:
            raise SpecError(
                f"`{place}.{kind}`: there is no {kind} `{name:.80}`."
                + did_you_mean(name, known)
            )
        given = {key: value for key, value in data.items() if key != kind}
        arguments = self._arguments(known[name], given, place)
        try:
            return known[name](*arguments.args, **arguments.kwargs)
        except Exception as error:
            raise SpecError(
                f"`{place}`: `{name}` refuses its arguments: {error}"
            ) from error

    def _arguments(
        self, cls: type, given: dict[Any, object], place: str
    ) -> inspect.BoundArguments:
        parameters = {key_of(p.name): p for p in constructor(cls)}
        for key in given:
            if key not in parameters:
                raise SpecError(
                    f"`{place}`: `{cls.__name__}` has no argument `{key!s:.80}`."
                    + did_you_mean(str(key), parameters)
                )
        hints, read = _hints(cls, place), dict[str, Any]()
        for key, parameter in parameters.items():
            hint = hints.get(parameter.name, _SCALARS)
            several = parameter.kind is parameter.VAR_POSITIONAL
            if key in given:
                wanted = tuple[hint, ...] if several else hint
                read[parameter.name] = self.value(given[key], wanted, f"{place}.{key}")
            elif parameter.default is parameter.empty and not several:
                raise SpecError(
                    f"`{place}.{key}` is missing: `{cls.__name__}` needs it."
                )
        return inspect.BoundArguments(inspect.signature(cls), read)  # pyright: ignore[reportArgumentType]

    def value(self, data: object, hint: Any, place: str) -> object:  # noqa: ANN401
        """Return a value of an annotated type, or refuse."""
        origin = get_origin(hint) or hint
        if origin in (Union, UnionType):
            return self._one_of(data, get_args(hint), place)
        if origin is Literal:
            return _choice(data, get_args(hint), place)
        if origin in (tuple, list, Sequence):
            return self._several(data, hint, place)
        if origin is Tensor:
            return self._tensor(data, place)
        if inspect.isclass(origin) and issubclass(origin, Parametrization | Constraint):
            kind = "map" if issubclass(origin, Parametrization) else "set"
            made = self.instance(data, kind, place)
            if isinstance(made, origin):
                return made
            raise _WrongType(place, _named(hint), made)
        return _scalar(data, hint, place)

    def _one_of(self, data: object, hints: Sequence[Any], place: str) -> object:
        """Try each type in turn; an error from further inside tells more."""
        refusals = list[SpecError]()
        for hint in hints:
            try:
                return self.value(data, hint, place)
            except SpecError as error:
                refusals.append(error)
        for error in refusals:
            if not isinstance(error, _WrongType) or error.place != place:
                raise error
        raise _WrongType(place, " or ".join(map(_named, hints)), data)

    def _several(self, data: object, hint: Any, place: str) -> Sequence[object]:  # noqa: ANN401
        if not isinstance(data, list):
            raise _WrongType(place, "a list", data)
        hints = get_args(hint) or (_SCALARS, ...)
        if get_origin(hint) is not tuple or hints[-1] is ...:
            hints = (hints[0],) * len(data)
        if len(hints) != len(data):
            raise _WrongType(place, f"a list of {len(hints)}", data)
        pairs = enumerate(zip(data, hints, strict=True))
        read = [self.value(x, each, f"{place}[{i}]") for i, (x, each) in pairs]
        return read if get_origin(hint) is list else tuple(read)

    def _tensor(self, data: object, place: str) -> Tensor:
        """Return zeros in the place of a tensor that a state dict will bring."""
        if not isinstance(data, dict) or set(data) - {"values"} != {"shape", "dtype"}:
            raise _WrongType(place, 'a dictionary of "shape" and "dtype"', data)
        shape = self.value(data["shape"], tuple[int, ...], f"{place}.shape")
        assert isinstance(shape, tuple)
        if any(n < 0 for n in shape):
            raise SpecError(f"`{place}.shape` has a negative size in {shape}.")
        dtype = DTYPES[_choice(data["dtype"], tuple(DTYPES), f"{place}.dtype")]
        # sizes next to a zero count too: torch multiplies them for the strides
        self.elements += math.prod(max(1, n) for n in shape)
        _refuse_more(f"`{place}.shape` makes", self.elements, _MOST_ELEMENTS, "entries")
        if "values" in data:
            return _filled(data["values"], shape, dtype, f"{place}.values")
        try:
            return torch.zeros(shape, dtype=dtype)
        except RuntimeError as error:
            raise SpecError(f"`{place}`: there is no room for {shape}.") from error


def _filled(
    data: object, shape: tuple[int, ...], dtype: torch.dtype, place: str
) -> Tensor:
    """Return a small tensor with the values that are written down."""
    count = math.prod(shape)
    if not isinstance(data, list) or len(data) != count or count > MOST_VALUES:
        raise _WrongType(
            place, f"a list of {count} numbers, {MOST_VALUES} at most", data
        )
    hint = bool if dtype == torch.bool else float if dtype.is_floating_point else int
    for i, value in enumerate(data):
        _scalar(value, hint, f"{place}[{i}]")
    try:
        return torch.tensor(data, dtype=dtype).reshape(shape)
    except (RuntimeError, OverflowError) as error:
        raise SpecError(f"`{place}`: {error}") from None


def _hints(cls: type, place: str) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__)
    except NameError as error:
        raise SpecError(
            f"`{place}`: the annotations of `{cls.__name__}` cannot be read: {error}. "
            "Import what they name at run time."
        ) from error


def _choice(data: object, choices: Sequence[Any], place: str) -> Any:  # noqa: ANN401
    """Return one of a few given values."""
    for choice in choices:
        if type(choice) is type(data) and choice == data:
            return choice
    if not isinstance(data, str):
        raise _WrongType(place, " or ".join(map(repr, choices)), data)
    words = [choice for choice in choices if isinstance(choice, str)]
    raise _WrongType(place, "a known name", data, did_you_mean(data, words))


# What a value of these types looks like in JSON.
_SCALAR_TYPES: dict[object, Callable[[object], bool]] = {
    NoneType: lambda data: data is None,
    bool: lambda data: isinstance(data, bool),
    str: lambda data: isinstance(data, str),
    int: lambda data: isinstance(data, int) and not isinstance(data, bool),
    float: lambda data: isinstance(data, int | float) and not isinstance(data, bool),
}


def _scalar(data: object, hint: Any, place: str) -> object:  # noqa: ANN401
    """Return a number, a string, a dtype or None; a float may be an integer."""
    if hint is torch.dtype:
        return DTYPES[_choice(data, tuple(DTYPES), place)]
    fits = _SCALAR_TYPES.get(NoneType if hint is None else hint)
    if fits is None:
        raise SpecError(
            f"`{place}`: no data stands for {_named(hint)}. Set it on the map itself."
        )
    if not fits(data):
        raise _WrongType(place, _named(hint), data)
    finite = math.isfinite(data) if isinstance(data, float) else True
    if not finite or (isinstance(data, int) and abs(data) >= _LARGEST_NUMBER):
        raise SpecError(f"`{place}` is no finite number, or one of 64 bits or more.")
    return data


def _named(hint: Any) -> str:  # noqa: ANN401
    if hint in (None, NoneType):
        return "None"
    return hint.__name__ if inspect.isclass(hint) else str(hint)
