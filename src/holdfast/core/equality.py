"""When two maps do the same: equal arguments, whatever state they are in."""

from __future__ import annotations

from torch import Tensor

from .parametrization import Parametrization


def is_equal(a: object, b: object) -> bool:
    """Tell whether two maps, or two of their arguments, are equal."""
    if isinstance(a, Parametrization) and isinstance(b, Parametrization):
        return type(a) is type(b) and is_equal(a.spec(), b.spec())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_equal(a[k], b[k]) for k in a)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        kinds = [(t.shape, t.dtype, t.device) for t in (a, b)]
        return kinds[0] == kinds[1] and bool((a == b).all())
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return bool(a == b)
