"""Which tensors of a model are meant, and which maps they get.

Note [Patterns]
    A string is a glob on the whole path, ``"encoder.*.weight"``, whose ``*`` crosses
    dots. A compiled regular expression has to match the whole path. A type of module
    stands for the ``weight`` of every module of that type, or of one derived from it. A
    pair asks the module and the tensor apart: ``("rnn", "weight_hh_*")`` or
    ``(nn.LSTM, "weight_hh_*")``. Types are compared by name, so that rules can be
    written down as plain data, and reading them back imports nothing.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from ..core.classes import chain_of, original_class
from ..core.deferral import is_uninitialized
from ..core.parametrization import Parametrization
from ..errors import PlanError
from ..maps.specs import from_spec

Data: TypeAlias = Mapping[str, object]
Rules: TypeAlias = Mapping[Any, Any] | Sequence[Data]


@dataclass(frozen=True)
class TypeNamed:
    """A type of module, by its qualified name."""

    name: str


Pattern: TypeAlias = str | re.Pattern[str] | TypeNamed


@dataclass(frozen=True)
class Site:
    """A parameter of a module, plain or parametrized, and where in the model it is."""

    prefix: str
    module: nn.Module
    name: str

    @property
    def path(self) -> str:
        """The tensor's path from the model."""
        return f"{self.prefix}.{self.name}" if self.prefix else self.name

    @property
    def is_uninitialized(self) -> bool:
        """Whether the tensor belongs to a lazy module, and has no shape yet."""
        return is_uninitialized(self.module, self.name)

    @property
    def chain(self) -> nn.ModuleList | None:
        """The chain that is there already."""
        return chain_of(self.module, self.name)


def sites_of(model: nn.Module) -> Iterator[Site]:
    """Yield every parameter of a model, under each of its names.

    What belongs to maps is not the model's.
    """
    for prefix, module in _modules(model, ""):
        chains: Any = module._modules.get("parametrizations")
        names = [name for name, p in module._parameters.items() if p is not None]
        for name in (*names, *getattr(chains, "_modules", ())):
            yield Site(prefix, module, name)


def _modules(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    yield prefix, module
    for name, below in module._modules.items():
        if below is not None and name != "parametrizations":
            yield from _modules(below, f"{prefix}.{name}" if prefix else name)


@dataclass(frozen=True)
class Rule:
    """Maps, in their order, for the tensors that a pattern names.

    Attributes:
        module: what the module has to be, ``None`` for any.
        tensor: what the tensor has to be called, by its name where the module is asked
            for, else by its path.
        maps: the maps, which every tensor gets copies of; ``None`` leaves it alone.
    """

    module: Pattern | None
    tensor: Pattern
    maps: tuple[nn.Module, ...] | None

    def fits(self, site: Site) -> bool:
        """Tell whether the rule means this tensor."""
        name = site.path if self.module is None else site.name
        inside = self.module is None or _fits(self.module, site.prefix, site.module)
        return inside and _fits(self.tensor, name, site.module)

    def on(self, device: torch.device) -> Rule:
        """Return the rule with copies of its maps on a device."""
        maps = None if self.maps is None else copy.deepcopy(self.maps)
        for map_ in maps or ():
            map_.to(device)
        return replace(self, maps=maps)

    def __str__(self) -> str:
        parts = (self.tensor,) if self.module is None else (self.module, self.tensor)
        return ", ".join(map(_shown, parts))

    def data(self) -> dict[str, object]:
        """Return the rule as data that JSON can hold."""
        where: dict[str, object] = {"tensor": _pattern_data(self.tensor)}
        if self.module is not None:
            where = {"module": _pattern_data(self.module), **where}
        return {**where, "maps": None if self.maps is None else specs(self.maps)}


def specs(maps: Sequence[nn.Module]) -> list[dict[str, object]]:
    """Return the specs of the maps of a chain."""
    for map_ in maps:
        if not isinstance(map_, Parametrization):
            raise PlanError(
                f"`{type(map_).__name__}` has no spec. Derive it from "
                "`holdfast.Parametrization`, which makes one of its constructor."
            )
    return [cast("Parametrization", map_).spec() for map_ in maps]


def read_rules(
    rules: Rules, also: Iterable[type[Parametrization]] = ()
) -> tuple[Rule, ...]:
    """Return rules from a mapping of patterns to maps, or from plain data."""
    if isinstance(rules, Mapping):
        return tuple(_rule(key, maps) for key, maps in rules.items())
    if isinstance(rules, list | tuple):
        known = tuple(also)
        return tuple(
            _rule_of_data(data, f"rules[{i}]", known) for i, data in enumerate(rules)
        )
    raise PlanError(
        "Expected rules as a mapping of patterns to maps, or as the list that "
        f"`holdfast.spec` gives. Got {type(rules).__name__}."
    )


def _rule(key: object, maps: object) -> Rule:
    pair = cast("tuple[object, ...]", key if isinstance(key, tuple) else (None, key))
    if isinstance(key, type):
        pair = (key, "weight")
    if len(pair) != 2:
        raise PlanError(f"Expected a pair of module and tensor. Got {len(pair)} parts.")
    module = None if pair[0] is None else _pattern(pair[0])
    return Rule(module, _pattern(pair[1]), _several(maps, key))


def _pattern(part: object) -> Pattern:
    if isinstance(part, str | re.Pattern):
        return cast("Pattern", part)
    if isinstance(part, type) and issubclass(part, nn.Module):
        return TypeNamed(_qualified(part))
    raise PlanError(
        "Expected a glob, a compiled regular expression, a type of module, or a pair "
        f"of these for the module and the tensor. Got `{part!s:.80}`."
    )


def _several(maps: object, key: object) -> tuple[nn.Module, ...] | None:
    """Return one map or several as a tuple."""
    if maps is None:
        return None
    found: tuple[object, ...] = (maps,)
    if isinstance(maps, list | tuple):
        found = tuple(cast("Sequence[object]", maps))
    if not found or not all(isinstance(map_, nn.Module) for map_ in found):
        raise PlanError(
            f"`{key!s:.80}`: expected a map, several in their order, or None to leave "
            f"the tensors alone. Got {maps!r:.80}."
        )
    return cast("tuple[nn.Module, ...]", found)


def _fits(pattern: Pattern, name: str, module: nn.Module) -> bool:
    if isinstance(pattern, str):
        return fnmatchcase(name, pattern)
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(name) is not None
    return pattern.name in map(_qualified, original_class(type(module)).__mro__)


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _shown(pattern: Pattern) -> str:
    if isinstance(pattern, str):
        return pattern
    if isinstance(pattern, re.Pattern):
        return f"/{pattern.pattern}/"
    return pattern.name.rpartition(".")[2]


def _pattern_data(pattern: Pattern) -> object:
    if isinstance(pattern, str):
        return pattern
    if isinstance(pattern, TypeNamed):
        return {"type": pattern.name}
    return {"regex": pattern.pattern}


def _rule_of_data(
    data: object, place: str, also: Sequence[type[Parametrization]]
) -> Rule:
    if not isinstance(data, Mapping):
        raise PlanError(f"`{place}`: expected a dictionary. Got {type(data).__name__}.")
    given = cast("Data", data)
    unknown = given.keys() - {"module", "tensor", "maps"}
    if unknown or not {"tensor", "maps"} <= given.keys():
        raise PlanError(
            f'`{place}`: expected "tensor", "maps" and perhaps "module". '
            f"Got {', '.join(f'`{key:.80}`' for key in map(str, given)) or 'nothing'}."
        )
    module = None
    if given.get("module") is not None:
        module = _pattern_of_data(given["module"], f"{place}.module")
    tensor = _pattern_of_data(given["tensor"], f"{place}.tensor")
    return Rule(module, tensor, _maps_of_data(given["maps"], f"{place}.maps", also))


def _pattern_of_data(data: object, place: str) -> Pattern:
    if isinstance(data, str):
        return data
    if isinstance(data, dict) and len(cast("Data", data)) == 1:
        ((kind, text),) = cast("Data", data).items()
        if kind == "type" and isinstance(text, str):
            return TypeNamed(text)
        if kind == "regex" and isinstance(text, str):
            return _compiled(text, place)
    raise PlanError(
        f'`{place}`: expected a glob, {{"type": name}} or {{"regex": expression}}. '
        f"Got `{data!s:.80}`."
    )


def _compiled(expression: str, place: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise PlanError(
            f"`{place}`: `{expression:.80}` is no regular expression: {error}."
        ) from None


def _maps_of_data(
    data: object, place: str, also: Sequence[type[Parametrization]]
) -> tuple[nn.Module, ...] | None:
    if data is None:
        return None
    if not isinstance(data, list) or not data:
        raise PlanError(
            f"`{place}`: expected a list of specs, or None. Got `{data!s:.80}`."
        )
    return tuple(from_spec(spec, also=also) for spec in cast("list[Data]", data))
