"""Maps around a base, bound to one that a case and its map both know."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..sets.constraint import Constraint
from .case import Shape


def given(shape: Shape) -> Tensor:
    """Return a base for weights of a shape, the same for all of a batch."""
    *batch, n, k = (1, *shape) if len(shape) == 1 else shape
    places = torch.arange(n * k, dtype=torch.float64)
    base = torch.cos(3 * places * places + places).reshape(n, k)
    return base.expand(*batch, n, k).reshape(shape)


class AroundGiven(Parametrization):
    """Binds a map to the given base, and not to the value that it is registered on."""

    deterministic = True
    foreach = "stack"

    def __init__(self, map: Parametrization) -> None:
        super().__init__()
        self.map = map

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the map, which knows its base once it is bound."""
        return self.map.codomain

    def bind(self, weight: Tensor) -> None:
        """Bind the map to the given base."""
        self.map.bind(given(tuple(weight.shape)).to(weight))

    def forward(self, *originals: Tensor) -> Tensor:
        """Return the map's value."""
        return self.map(*originals)

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the map's originals."""
        return self.map.right_inverse(weight)


def around_given(map: Parametrization, shape: Shape) -> Parametrization:
    """Return a map that lands in a set known beforehand, whatever it is bound to."""
    bound = copy.deepcopy(map)
    try:
        bound.bind(given(shape))
    except Exception:
        return map  # the laws will tell
    return map if repr(bound.codomain) == repr(map.codomain) else AroundGiven(map)
