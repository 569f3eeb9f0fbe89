"""What a law is, and how it says that it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import LawError
from .case import CLOSE, Case, Shape


class NotApplicable(Exception):  # it is no error
    """The law says nothing about this case; the message says why."""


class Check(Protocol):
    """Raises `LawError` where a case breaks a law."""

    def __call__(self, case: Case, shape: Shape, dtype: torch.dtype, /) -> None:
        """Check one shape and one type."""
        ...


@dataclass(frozen=True)
class Law:
    """Something that every map must do.

    Attributes:
        name: how exemptions name it.
        claim: what is expected.
        remedy: what usually helps where it is broken.
        check: raises `LawError` with what was found instead.
    """

    name: str
    claim: str
    remedy: str
    check: Check

    def __call__(
        self, case: Case, shape: Shape, dtype: torch.dtype = torch.float64
    ) -> None:
        """Check one shape and one type."""
        self.check(case, shape, dtype)


def law(name: str, claim: str, remedy: str) -> Callable[[Check], Law]:
    """Make a law of a function."""
    return lambda check: Law(name, claim, remedy, check)


def need(holds: bool, found: str) -> None:  # noqa: FBT001
    """Raise `LawError` with what was found unless it is as it should be."""
    if not holds:
        raise LawError(found)


def need_close(
    actual: Tensor, expected: Tensor, what: str, tolerance: float | None = None
) -> None:
    """Require the same shape and type, and entries close to the expected ones.

    The tolerance, by default that of the type, is relative to the largest entry, and
    to 1 where all are smaller.
    """
    for kind in ("shape", "dtype"):
        mine, theirs = getattr(actual, kind), getattr(expected, kind)
        need(mine == theirs, f"{what} of {kind} {mine} instead of {theirs}")
    if not actual.numel():
        return
    tol = CLOSE[expected.dtype] if tolerance is None else tolerance
    actual, expected = actual.detach(), expected.detach()
    off = largest(actual - expected)
    limit = tol * max(1.0, largest(expected))
    need(off <= limit, f"{what} off by {off:.1e}, where {limit:.1e} is allowed")


def largest(tensor: Tensor) -> float:
    """Return the largest absolute value, NaN if there is one, 0 for no entries."""
    return tensor.detach().abs().max().item() if tensor.numel() else 0.0


def exact(dtype: torch.dtype) -> torch.dtype:
    """Return double precision of the same kind, which finite differences need."""
    return torch.complex128 if dtype.is_complex else torch.float64
