"""Constructor arguments as plain data, which JSON can hold."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SpecError, describe
from ..sets.constraint import Constraint

# The names of types that a spec may hold, as torch spells them.
DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128, torch.bool),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}

# A tensor of so many entries is written down with its values, a larger one without:
# they are in the state dict.
MOST_VALUES = 256


def constructor(cls: type) -> Iterator[inspect.Parameter]:
    """Yield the arguments that a class is made with, ``*args`` among them."""
    if cls.__init__ is not nn.Module.__init__:  # which takes anything, and no argument
        parameters = inspect.signature(cls).parameters.values()
        yield from (p for p in parameters if p.kind is not p.VAR_KEYWORD)


def key_of(argument: str) -> str:
    """Return where a spec keeps an argument: "map" and "set" name the class there."""
    return f"{argument}_" if argument in ("map", "set") else argument


def described(thing: object, kind: str) -> dict[str, object]:
    """Return the class and the constructor arguments of a map or a set."""
    spec: dict[str, object] = {kind: type(thing).__name__}
    for argument in (p.name for p in constructor(type(thing))):
        place = f"{spec[kind]}.{argument}"
        try:
            value = getattr(thing, argument)
        except AttributeError as error:
            raise SpecError(
                f"There is no `{place}`: a class that is to have a spec stores its "
                "constructor's arguments under their own names."
            ) from error
        spec[key_of(argument)] = plain(value, place)
    return spec


def plain(value: Any, place: str) -> object:
    """Return an argument as JSON can hold it."""
    from .parametrization import Parametrization

    if isinstance(value, int | str | None):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple | nn.ModuleList):
        return [plain(x, f"{place}[{i}]") for i, x in enumerate(value)]
    if isinstance(value, Tensor):
        return _tensor(value, place)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Constraint):
        return described(value, "set")
    if isinstance(value, Parametrization):
        return value.spec()
    raise SpecError(
        f"`{place}` is {describe(value)}, which is no plain data. A spec holds finite "
        "numbers, strings, None, tuples, dtypes, tensors without their values, maps "
        "and sets. Give the map one of these."
    )


def _tensor(value: Tensor, place: str) -> dict[str, object]:
    """Return shape and dtype of a tensor, and the values of a small one."""
    data = {"shape": list(value.shape), "dtype": plain(value.dtype, place)}
    small = value.numel() <= MOST_VALUES and not value.is_meta
    if small and not value.is_complex() and bool(torch.isfinite(value).all()):
        data["values"] = value.detach().flatten().tolist()
    return data
