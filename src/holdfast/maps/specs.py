"""From plain data back to a map: what `spec` of a map gave, or what a file claims.

A spec may come from anywhere. So it names classes of a closed table, each argument is
checked against the annotation of the constructor before anything is made, and what is
too large or too deep is refused.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .. import sets
from ..core.parametrization import Parametrization
from ..core.plain_data import DTYPES, constructor, key_of
from ..errors import SpecError, did_you_mean
from ..sets.constraint import Constraint
from .spec_values import WrongType, choice, filled, named, refuse_more, scalar

_DEEPEST = 32
_MOST_ENTRIES = 2**14
_MOST_BYTES = 2**31

_SCALARS = bool | int | float | str | None


def from_spec(
    spec: Mapping[str, object], *, also: Iterable[type[Parametrization]] = ()
) -> Parametrization:
    """Return the map that plain data describes, as ``map.spec()`` makes it.

    Args:
        spec: the name of the class under ``"map"``, and its arguments by name. A map
            among these has a spec of its own, a set one with its name under ``"set"``,
            and a tensor is ``{"shape": [2, 3], "dtype": "bool"}``, with a flat list of
            ``"values"`` if it has at most 256, or 4096 as a vector. One without becomes
            zeros, and gets its values when a state dict is loaded. An argument that is
            itself called ``map`` stands under ``"map_"``.
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
        if not isinstance(cls, type):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`also` takes classes of maps. Got {cls!r:.80}.")
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
                refuse_more("`spec` has", count, _MOST_ENTRIES, "entries")
                below += value.values() if isinstance(value, dict) else value
        level = below
        if not level:
            return
    raise SpecError(f"`spec` is nested deeper than {_DEEPEST}. No map is.")


@dataclass
class _Reader:
    """Reads values by the types that are asked for.

    Attributes:
        tables: the classes that may be named, by kind.
        size: how many bytes the tensors have so far.
    """

    tables: Mapping[str, Mapping[str, type]]
    size: int = 0

    def instance(self, data: object, kind: str, place: str) -> object:
        """Return the map or set that a dictionary describes."""
        known = self.tables[kind]
        name = data.get(kind) if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(name, str):
            raise WrongType(
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
            return choice(data, get_args(hint), place)
        if origin in (tuple, list, Sequence):
            return self._several(data, hint, place)
        if origin is Tensor:
            return self._tensor(data, place)
        if inspect.isclass(origin) and issubclass(origin, Parametrization | Constraint):
            kind = "map" if issubclass(origin, Parametrization) else "set"
            made = self.instance(data, kind, place)
            if isinstance(made, origin):
                return made
            raise WrongType(place, named(hint), made)
        return scalar(data, hint, place)

    def _one_of(self, data: object, hints: Sequence[Any], place: str) -> object:
        """Try each type in turn; an error from further inside tells more."""
        refusals = list[SpecError]()
        for hint in hints:
            try:
                return self.value(data, hint, place)
            except SpecError as error:
                refusals.append(error)
        for error in refusals:
            if not isinstance(error, WrongType) or error.place != place:
                raise error
        raise WrongType(place, " or ".join(map(named, hints)), data)

    def _several(self, data: object, hint: Any, place: str) -> Sequence[object]:  # noqa: ANN401
        if not isinstance(data, list):
            raise WrongType(place, "a list", data)
        hints = get_args(hint) or (_SCALARS, ...)
        if get_origin(hint) is not tuple or hints[-1] is ...:
            hints = (hints[0],) * len(data)
        if len(hints) != len(data):
            raise WrongType(place, f"a list of {len(hints)}", data)
        pairs = enumerate(zip(data, hints, strict=True))
        read = [self.value(x, each, f"{place}[{i}]") for i, (x, each) in pairs]
        return read if get_origin(hint) is list else tuple(read)

    def _tensor(self, data: object, place: str) -> Tensor:
        """Return zeros in the place of a tensor that a state dict will bring."""
        if not isinstance(data, dict) or set(data) - {"values"} != {"shape", "dtype"}:
            raise WrongType(place, 'a dictionary of "shape" and "dtype"', data)
        shape = self.value(data["shape"], tuple[int, ...], f"{place}.shape")
        assert isinstance(shape, tuple)
        if any(n < 0 for n in shape):
            raise SpecError(f"`{place}.shape` has a negative size in {shape}.")
        dtype = DTYPES[choice(data["dtype"], tuple(DTYPES), f"{place}.dtype")]
        # sizes next to a zero count too: torch multiplies them for the strides
        self.size += dtype.itemsize * math.prod(max(1, n) for n in shape)
        refuse_more(f"`{place}.shape` makes", self.size, _MOST_BYTES, "bytes")
        if "values" in data:
            return filled(data["values"], shape, dtype, f"{place}.values")
        try:
            return torch.zeros(shape, dtype=dtype)
        except RuntimeError as error:
            raise SpecError(f"`{place}`: there is no room for {shape}.") from error


def _hints(cls: type, place: str) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__)
    except NameError as error:
        raise SpecError(
            f"`{place}`: the annotations of `{cls.__name__}` cannot be read: {error}. "
            "Import what they name at run time."
        ) from error
