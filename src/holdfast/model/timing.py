"""How long an evaluation takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

_Result = TypeVar("_Result")

# So many evaluations are timed, and the quickest counts; fewer where they are slow.
_EVALUATIONS = 3
_SLOW = 0.2  # seconds


def timed(
    compute: Callable[[], _Result], device: torch.device
) -> tuple[_Result, float]:
    """Return what the first of a few evaluations gives, and milliseconds of the best.

    Example:
        >>> value, milliseconds = timed(lambda: 1 + 1, torch.device("cpu"))
        >>> value, milliseconds < 1000
        (2, True)
    """
    result, seconds = _once(compute, device)
    for _ in range(_EVALUATIONS - 1):
        if seconds > _SLOW:
            break
        seconds = min(seconds, _once(compute, device)[1])
    return result, 1e3 * seconds


def _once(
    compute: Callable[[], _Result], device: torch.device
) -> tuple[_Result, float]:
    started = time.perf_counter()
    result = compute()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - started
