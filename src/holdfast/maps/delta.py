"""A base plus any map's value."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.calling import call
from ..core.checks import as_tuple
from ..core.parametrization import Parametrization
from ..sets.around import shifted
from ..sets.constraint import Constraint
from ..sets.linear import Real
from .around import Around


class Delta(Around):
    r"""A base plus any map's value.

    .. math::
        X \mapsto W_0 + \varphi(X) \qquad \text{or} \qquad
        (W_0, X) \mapsto W_0 + \varphi(X)

    The base is the value at registration: a frozen buffer, or the first original. The
    originals (the others) are those of the map. The right inverse gives :math:`W - W_0`
    to the map's, and is exact where that is. So registration keeps the value where the
    map can make zero, as `LowRank`, `Mask` and `Skew` can; with another, such as
    `ThinOrthogonal`, it moves by the map's value nearest to zero, unless the base is
    trained: then any tensor is reached, and what the map makes is taken off the base.
    Costs one pass over the tensor more than the map.

    Args:
        map: the map.
        train_base: make the base an original.

    Shape:
        as the map's.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, change = torch.nn.Linear(3, 3), maps.Delta(maps.Skew())
        >>> W = layer.weight.detach().clone()
        >>> layer = holdfast.register_parametrization(layer, "weight", change)
        >>> torch.equal(layer.weight, W)
        True
        >>> layer.parametrizations.weight.original.count_nonzero().item()
        0
    """

    foreach = "stack"
    base: Tensor | None

    def __init__(self, map: Parametrization, *, train_base: bool = False) -> None:
        super().__init__()
        self.map = map
        self.train_base = train_base
        self.register_buffer("base", None)

    def _taken(self, constraint: Constraint) -> Constraint:
        return Real() if self.train_base else constraint  # a base can be any tensor

    def _made(self, constraint: Constraint) -> Constraint:
        return shifted(constraint, self.base)

    def _handed(self, originals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return originals[self.train_base :]

    def _inward(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight) if self.base is None else weight - self.base

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        return (originals[0] if self.base is None else self.base) + value

    def bind(self, weight: Tensor) -> None:
        """Keep the base, and bind the map to zero."""
        if not self.train_base:
            self.base = kept(weight)
        super().bind(weight)

    def _found(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.base is None and not self.train_base:
            self.bind(weight)  # torch's registration does not
        if self.base is not None:
            return self.map.right_inverse(weight - self.base)
        zero = self.map.codomain.project(torch.zeros_like(weight))
        originals = as_tuple(self.map.right_inverse(zero))
        return weight - call(self.map, originals), *originals


def kept(weight: Tensor) -> Tensor:
    """Return a copy: the tensor itself is the user's, and may be tied or trained.

    Example:
        >>> import torch
        >>> W = torch.zeros(1, requires_grad=True)
        >>> kept(W)
        tensor([0.])
    """
    return weight.detach().clone(memory_format=torch.contiguous_format)


def same(weight: Tensor, base: Tensor) -> bool:
    """Tell whether there is no change, which takes no decomposition to find.

    Example:
        >>> import torch
        >>> same(torch.zeros(1), torch.zeros(1)), same(torch.ones(1), torch.zeros(1))
        (True, False)
    """
    return weight.is_meta or torch.equal(weight, base)
