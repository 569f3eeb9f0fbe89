"""Entries between two bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.entrywise import logit
from ..linalg.precision import double, full_precision
from ..sets.interval import Interval, like
from .bounds import MARGIN, affine, check_bounds, check_order, keep, typed


class Between(Parametrization):
    """What the maps onto intervals share: all but the curve."""

    lower: float | Tensor
    upper: float | Tensor
    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(
        self, lower: float | Tensor = -1.0, upper: float | Tensor = 1.0
    ) -> None:
        super().__init__()
        keep(self, "lower", lower)
        keep(self, "upper", upper)

    @property
    def codomain(self) -> Interval:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors with entries in the interval."""
        return Interval(self.lower, self.upper, margin=MARGIN)

    def bind(self, weight: Tensor) -> None:
        """Check the bounds, and that the weight is real."""
        check_bounds(weight, lower=self.lower, upper=self.upper)
        check_order(self.lower, self.upper)


class Sigmoid(Between):
    r"""The logistic function, stretched to an interval.

    .. math::
        X \mapsto a + \frac{b - a}{1 + e^{-X}}, \qquad \mathbb{R} \to (a, b)

    Entry by entry, and injective. The ends are not reached, but by rounding: an entry
    that is assigned on one is moved inside by a rounding of the width. The original is
    free of the weight's units; `Tanh` is the same curve, in them. The right inverse is
    the logit, exact. Costs one pass over the tensor.

    Args:
        lower: the lower end a; a tensor is broadcast to the weight's shape.
        upper: the upper end b, likewise. Where both are equal the entry is fixed.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Sigmoid(2.0, 4.0)(torch.tensor([-20.0, 0.0, 20.0]))
        tensor([2., 3., 4.])

    References:
        Stan Reference Manual, Constraint Transforms, 2024,
        https://mc-stan.org/docs/reference-manual/transforms.html
    """

    def __init__(
        self, lower: float | Tensor = 0.0, upper: float | Tensor = 1.0
    ) -> None:
        super().__init__(lower, upper)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor that divides the interval like sigmoid(X) divides 1."""
        a, b = typed(self.lower, X), typed(self.upper, X)
        return affine(X.sigmoid(), b - a, a)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the logit of the place in the interval."""
        W = double(weight)
        a, b = like(self.lower, W), like(self.upper, W)
        eps = torch.finfo(weight.dtype).eps
        inside = torch.minimum(torch.maximum(W, a), b)
        return logit(inside - a, b - inside, eps).to(weight.dtype)


class Tanh(Between):
    r"""The hyperbolic tangent, stretched to an interval, of slope 1 in its middle.

    .. math::
        X \mapsto m + r \tanh(X / r), \quad m = \tfrac{a + b}{2},\ r = \tfrac{b - a}{2},
        \qquad \mathbb{R} \to (a, b)

    Entry by entry, and injective. Near the middle the weight is the original, up to
    the shift by m, so that learning rates are those of a plain weight. The ends are
    not reached, but by rounding: an entry that is assigned on one is moved inside by a
    rounding of the width. The right inverse is exact. Costs one pass over the tensor.

    Args:
        lower: the lower end a; a tensor is broadcast to the weight's shape.
        upper: the upper end b, likewise. Where both are equal the entry is fixed.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Tanh(-10.0, 10.0)(torch.tensor([0.1, 1000.0]))
        tensor([ 0.1000, 10.0000])
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor at the distance r tanh(X/r) from the middle."""
        middle, radius, scale = _middle(self.lower, self.upper, X)
        return affine(torch.tanh(X / scale), radius, middle)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return r atanh of the place in the interval."""
        W = double(weight)
        U, scale = _place(W, self.lower, self.upper, torch.finfo(weight.dtype).eps)
        return (scale * torch.atanh(U)).to(weight.dtype)


class Sine(Between):
    r"""The sine, stretched to an interval, of slope 1 in its middle.

    .. math::
        X \mapsto m + r \sin(X / r), \quad m = \tfrac{a + b}{2},\ r = \tfrac{b - a}{2},
        \qquad \mathbb{R} \to [a, b]

    Entry by entry. The ends are reached, at finite originals, and left again: the map
    folds the line into the interval and is not injective. There the slope is zero: an
    entry that is assigned on an end is moved inside by a rounding of the width, from
    where it can leave. The right inverse is exact. Costs one pass over the tensor.

    Args:
        lower: the lower end a; a tensor is broadcast to the weight's shape.
        upper: the upper end b, likewise. Where both are equal the entry is fixed.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Sine(0.0, 2.0)(torch.tensor([0.0, torch.pi / 2]))
        tensor([1., 2.])
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor at the distance r sin(X/r) from the middle."""
        middle, radius, scale = _middle(self.lower, self.upper, X)
        return affine(torch.sin(X / scale), radius, middle)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return r asin of the place in the interval."""
        W = double(weight)
        U, scale = _place(W, self.lower, self.upper, torch.finfo(weight.dtype).eps)
        return (scale * torch.asin(U)).to(weight.dtype)


def _middle(
    lower: float | Tensor, upper: float | Tensor, X: Tensor
) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
    """Return middle and radius, and a radius to divide by."""
    a, b = typed(lower, X), typed(upper, X)
    radius = (b - a) / 2
    if isinstance(radius, Tensor):
        return (a + b) / 2, radius, torch.where(radius > 0, radius, 1)
    return (a + b) / 2, radius, radius or 1.0


def _place(
    W: Tensor, lower: float | Tensor, upper: float | Tensor, eps: float
) -> tuple[Tensor, float | Tensor]:
    """Return where in the interval the entries are, within (-1, 1), and the radius."""
    middle, _, scale = _middle(lower, upper, W)
    return ((W - middle) / scale).clamp(eps - 1, 1 - eps), scale
