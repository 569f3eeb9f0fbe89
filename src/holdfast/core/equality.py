"""When two maps do the same: equal arguments, whatever state they are in."""

from __future__ import annotations

from torch import Tensor, nn

from ..sets.constraint import Constraint
from .parametrization import Parametrization
from .plain_data import constructor


def is_equal(a: object, b: object) -> bool:
    """Tell whether two maps, or two of their arguments, are equal.

    The arguments themselves are compared: of a large tensor a spec has no values.
    """
    if isinstance(a, Parametrization) and isinstance(b, Parametrization):
        names = [parameter.name for parameter in constructor(type(a))]
        return type(a) is type(b) and all(
            is_equal(getattr(a, name), getattr(b, name)) for name in names
        )
    if isinstance(a, Constraint) and isinstance(b, Constraint):
        return type(a) is type(b) and is_equal([*vars(a).items()], [*vars(b).items()])
    if isinstance(a, list | tuple | nn.ModuleList) and isinstance(b, type(a)):
        return len(a) == len(b) and all(map(is_equal, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        kinds = [(t.shape, t.dtype, t.device) for t in (a, b)]
        return kinds[0] == kinds[1] and (a.is_meta or bool((a == b).all()))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return bool(a == b)
