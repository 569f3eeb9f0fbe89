"""Numbers, names and small tensors of a spec, read by the type that is asked for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from ..core.plain_data import DTYPES, most_values
from ..errors import SpecError, did_you_mean

_LARGEST_NUMBER = 2**63
_LARGEST_INTEGER = 2**40  # entries of a tensor, steps of an optimizer: of anything


def refuse_more(what: str, count: int, limit: int, unit: str) -> None:
    """Raise `SpecError` for a count above a limit."""
    if count > limit:
        raise SpecError(f"{what} {count} {unit}, expected at most {limit}.")


class WrongType(SpecError):
    """A value of another type than the constructor's, at a place in the spec."""

    def __init__(self, place: str, expected: str, data: object, hint: str = "") -> None:
        self.place = place
        got = f"`{data:.80}`" if isinstance(data, str) else type(data).__name__
        super().__init__(f"`{place}`: expected {expected}. Got {got}.{hint}")


def filled(
    data: object, shape: tuple[int, ...], dtype: torch.dtype, place: str
) -> Tensor:
    """Return a small tensor with the values that are written down."""
    count, most = math.prod(shape), most_values(len(shape))
    if not isinstance(data, list) or len(data) != count or count > most:
        raise WrongType(place, f"a list of {count} numbers, {most} at most", data)
    hint = bool if dtype == torch.bool else float if dtype.is_floating_point else int
    for i, value in enumerate(data):
        scalar(value, hint, f"{place}[{i}]")
    try:
        tensor = torch.tensor(data, dtype=dtype).reshape(shape)
    except (RuntimeError, OverflowError) as error:
        raise SpecError(f"`{place}`: {error}") from None
    if not bool(torch.isfinite(tensor).all()):
        raise SpecError(f"`{place}` has numbers that are too large for {dtype}.")
    return tensor


def choice(data: object, choices: Sequence[Any], place: str) -> Any:  # noqa: ANN401
    """Return one of a few given values."""
    for each in choices:
        if type(each) is type(data) and each == data:
            return each
    if not isinstance(data, str):
        raise WrongType(place, " or ".join(map(repr, choices)), data)
    words = [each for each in choices if isinstance(each, str)]
    raise WrongType(place, "a known name", data, did_you_mean(data, words))


# What a value of these types looks like in JSON.
_SCALAR_TYPES: dict[object, Callable[[object], bool]] = {
    NoneType: lambda data: data is None,
    bool: lambda data: isinstance(data, bool),
    str: lambda data: isinstance(data, str),
    int: lambda data: isinstance(data, int) and not isinstance(data, bool),
    float: lambda data: isinstance(data, int | float) and not isinstance(data, bool),
}


def scalar(data: object, hint: Any, place: str) -> object:  # noqa: ANN401
    """Return a number, a string, a dtype or None; a float may be an integer."""
    if hint is torch.dtype:
        return DTYPES[choice(data, tuple(DTYPES), place)]
    fits = _SCALAR_TYPES.get(NoneType if hint is None else hint)
    if fits is None:
        raise SpecError(
            f"`{place}`: no data stands for {named(hint)}. Set it on the map itself."
        )
    if not fits(data):
        raise WrongType(place, named(hint), data)
    finite = math.isfinite(data) if isinstance(data, float) else True
    if not finite or (isinstance(data, int) and abs(data) >= _LARGEST_NUMBER):
        raise SpecError(f"`{place}` is no finite number, or one of 64 bits or more.")
    if hint is int and isinstance(data, int) and abs(data) > _LARGEST_INTEGER:
        raise SpecError(
            f"`{place}` is {data}, expected an integer of at most {_LARGEST_INTEGER}: "
            "no dimension, count or size is larger."
        )
    return data


def named(hint: Any) -> str:  # noqa: ANN401
    """Return what a message calls a type."""
    if hint in (None, NoneType):
        return "None"
    return hint.__name__ if inspect.isclass(hint) else str(hint)
