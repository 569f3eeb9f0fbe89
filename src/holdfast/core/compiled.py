"""The values of the scopes inside a graph that ``torch.compile`` traces.

It cannot trace a thread's scope. Outside a trace the tables are as they are here, so
that entering or leaving a scope in eager code fails no guard (C9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .chain import ParametrizationList

_depth = 0
_values: tuple[dict[object, Tensor], dict[object, Tensor]] = ({}, {})  # by grad mode


def value_in_trace(chain: ParametrizationList) -> Tensor:
    """Return the value inside a graph that is being traced."""
    if not _depth:
        return chain.evaluate()
    values = _values[torch.is_grad_enabled()]
    if chain not in values:
        values[chain] = chain.evaluate()
    return values[chain]


def enter() -> None:
    """Open a scope."""
    global _depth
    _depth += 1


def leave() -> None:
    """Close a scope, and free all values with the outermost."""
    global _depth
    _depth -= 1
    if not _depth:
        _values[0].clear()
        _values[1].clear()
