"""What the maps onto intervals have in common: their arguments, and what is checked."""

from __future__ import annotations

from typing import SupportsFloat

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError, describe
from ..linalg.entrywise import require_real

# How far inside a set a map puts what was outside when it is registered, relatively:
# on the boundary, where it came from, an entry would have no gradient to leave with.
MARGIN = 0.01


def keep(map_: Parametrization, name: str, value: float | Tensor | None) -> None:
    """Store an argument under its name; a tensor moves along with the module."""
    if isinstance(value, Tensor):
        map_.register_buffer(name, value)
    else:
        setattr(map_, name, value)


def typed(bound: float | Tensor, X: Tensor) -> float | Tensor:
    """Return a bound that does not change the type of what it is combined with."""
    return bound.to(X.dtype) if isinstance(bound, Tensor) else bound


def affine(Y: Tensor, factor: float | Tensor, shift: float | Tensor) -> Tensor:
    """Return ``factor * Y + shift``, without a pass for a factor 1 or a shift 0."""
    if isinstance(factor, Tensor) or factor != 1:
        Y = typed(factor, Y) * Y
    if isinstance(shift, Tensor) or shift != 0:
        Y = typed(shift, Y) + Y
    return Y


def check_bounds(weight: Tensor, **bounds: float | Tensor) -> None:
    """Refuse complex weights, and bounds that do not fit the weight's shape."""
    require_real(weight)
    for name, bound in bounds.items():
        if not isinstance(bound, SupportsFloat):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTensorError(
                f"Expected `{name}` to be a number or a tensor. Got {describe(bound)}."
            )
        if isinstance(bound, Tensor) and bound.is_complex():
            raise InvalidTensorError(
                f"Expected `{name}` to be real. Got {bound.dtype}."
            )
        if isinstance(bound, Tensor) and not _fits(bound, weight):
            raise InvalidTensorError(
                f"Expected `{name}` of the weight's shape {tuple(weight.shape)}, or "
                f"one that broadcasts to it. Got {tuple(bound.shape)}."
            )


def _fits(bound: Tensor, weight: Tensor) -> bool:
    shape = tuple(bound.shape)
    return len(shape) <= weight.ndim and all(
        m in (1, n) for m, n in zip(shape[::-1], weight.shape[::-1], strict=False)
    )


def check_order(lower: float | Tensor, upper: float | Tensor) -> None:
    """Refuse bounds that are infinite, or in the wrong order."""
    a, b = torch.as_tensor(lower), torch.as_tensor(upper)
    if a.is_meta or b.is_meta:
        return
    if not bool((a <= b).all() and torch.isfinite(b - a).all()):
        raise InvalidTensorError(
            "Expected finite bounds with `lower` at most `upper`. Got "
            f"lower={_shown(lower)}, upper={_shown(upper)}. `Softplus` has one bound."
        )


def _shown(bound: float | Tensor) -> str:
    if isinstance(bound, Tensor):
        return f"<{tuple(bound.shape)} tensor>"
    return repr(bound)
