"""Figures as they are given: numbers or tensors, one or many for each moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor


def numbers(values: object) -> list[Any]:
    """Return numbers of which some or all may be tensors.

    Example:
        >>> import torch
        >>> numbers(torch.tensor([1.0, 2.0])), numbers([torch.tensor(1.0), 2.0])
        ([1.0, 2.0], [1.0, 2.0])
    """
    plain = values.detach().tolist() if isinstance(values, Tensor) else values
    found = [*plain] if isinstance(plain, Iterable) else [plain]
    found = [_number(each) for each in found]
    if not isinstance(plain, Iterable) or any(isinstance(x, Iterable) for x in found):
        raise TypeError(f"Expected a sequence of numbers. Got {_shape(values)}.")
    return found


def moments(history: object) -> list[list[Any]]:
    """Return the numbers of each moment.

    Example:
        >>> import torch
        >>> moments([torch.tensor([1.0, 2.0]), [3.0]])
        [[1.0, 2.0], [3.0]]
    """
    if not isinstance(history, Iterable) or isinstance(history, str):
        raise TypeError(f"Expected a sequence of moments. Got {_shape(history)}.")
    if isinstance(history, Tensor) and history.ndim != 2:
        raise TypeError(
            "Expected the numbers of each moment, two dimensions. "
            f"Got {_shape(history)}."
        )
    return [numbers(each) for each in history]


def as_many(steps: object, history: Sequence[object], what: str) -> list[Any]:
    """Return the steps that a history belongs to, one for each moment.

    Example:
        >>> as_many([0, 50], ["before", "after"], "residuals")
        [0, 50]
    """
    found = numbers(steps)
    if len(found) != len(history):
        raise ValueError(
            f"Expected as many steps as {what}. Got {len(found)} and {len(history)}."
        )
    return found


def _number(each: object) -> object:
    return each.item() if isinstance(each, Tensor) and each.ndim == 0 else each


def _shape(values: object) -> str:
    if isinstance(values, Tensor):
        return f"a tensor of shape {tuple(values.shape)}"
    return f"an object of {type(values).__name__}"
