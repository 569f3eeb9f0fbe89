"""``torch.func.functional_call`` with the plain name of a parametrized tensor (F1).

It swaps tensors by plain assignment and, afterwards, assigns what it had read before.
On a parametrized tensor that would run right inverses and lose the gradient; here the
first assignment overrides the value for the time of the call, and the second ends it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torch.nn.utils import _named_member_accessor

if TYPE_CHECKING:
    from .chain import ParametrizationList

_SWAP = _named_member_accessor.swap_tensor.__code__


def override(chain: ParametrizationList, value: object) -> bool:
    """Override the value, or end an override, if ``functional_call`` is assigning."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    if frame is None or frame.f_code is not _SWAP:
        return False
    overrides = chain.__dict__["_overrides"]
    if overrides and overrides[-1][1] is value:
        overrides.pop()
    else:
        overrides.append((value, frame.f_locals["orig_tensor"]))
    chain.forget()
    chain.note_special()
    return True
