"""Entries on one side of a bound: positive, below a limit, or of given signs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.entrywise import below_overflow, lift, softplus, softplus_inverse
from ..linalg.precision import double, full_precision
from ..sets.interval import Interval, like
from .bounds import MARGIN, affine, check_bounds, keep


class OneSided(Parametrization):
    """What the maps onto half-lines share: all but the curve."""

    bound: float | Tensor
    sign: int | Tensor
    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(self, bound: float | Tensor = 0.0, *, sign: int | Tensor = 1) -> None:
        super().__init__()
        keep(self, "bound", bound)
        keep(self, "sign", sign)

    @property
    def codomain(self) -> Interval:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors with entries on this side."""
        return _side(self.bound, self.sign)

    def bind(self, weight: Tensor) -> None:
        """Check the shapes, and that the weight is real."""
        check_bounds(weight, bound=self.bound, sign=self.sign)
        bound = torch.as_tensor(self.bound)
        if not bound.is_meta and not bool(torch.isfinite(bound).all()):
            raise InvalidTensorError(
                "Expected a finite `bound`. Got NaN or infinity: a weight without a "
                "bound needs no map."
            )
        signs = torch.as_tensor(self.sign)
        if not signs.is_meta and not bool((signs.sign() == signs).all()):
            raise InvalidTensorError(
                f"Expected `sign` of 1, -1 or 0. Got {signs.abs().max():g} in modulus."
            )


class Softplus(OneSided):
    r"""Softplus above a bound, below it, or with given signs.

    .. math::
        X \mapsto b + s\, \tfrac1\beta \log(1 + e^{\beta X}), \qquad
        \mathbb{R} \to \{w : s(w - b) > 0\}

    Entry by entry, and injective. The bound is not reached, but by underflow: an entry
    that is assigned on it is moved inside by one rounding of the matrix. Far from the
    bound the slope is ±1, so that steps are those of a plain weight. The right inverse
    is exact, also for the tiniest distances. Costs one pass over the tensor.

    Args:
        bound: the bound b; a tensor is broadcast to the weight's shape. 1e-6, say,
            keeps entries away from zero.
        sign: 1 for entries above the bound, -1 for entries below it. A tensor of 1, -1
            and 0 gives each entry its own; 0 fixes it at the bound.
        beta: how sharp the bend is; the larger, the closer to ``relu``.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, signs = torch.nn.Linear(2, 1), torch.tensor([1, -1])
        >>> positive = maps.Softplus(sign=signs)
        >>> layer = holdfast.register_parametrization(layer, "weight", positive)
        >>> layer.weight = torch.tensor([[3.0, -0.25]])
        >>> layer.weight.detach()
        tensor([[ 3.0000, -0.2500]])

    References:
        Dugas et al., Incorporating Second-Order Functional Knowledge for Better Option
        Pricing, 2001,
        https://papers.nips.cc/paper/1920-incorporating-second-order-functional-knowledge-for-better-option-pricing
    """

    def __init__(
        self, bound: float | Tensor = 0.0, *, sign: int | Tensor = 1, beta: float = 1.0
    ) -> None:
        super().__init__(bound, sign=sign)
        self.beta = beta

    def bind(self, weight: Tensor) -> None:
        """Check the shapes, the bend, and that the weight is real."""
        super().bind(weight)
        if not self.beta > 0:
            raise ValueError(f"Expected beta to be positive. Got {self.beta}.")

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor at the distance softplus(X) from the bound."""
        return affine(softplus(X, self.beta), self.sign, self.bound)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the inverse of softplus at the distances from the bound."""
        Y = _distance(weight, self.bound, self.sign)
        return softplus_inverse(Y, self.beta).to(weight.dtype)


class Exponential(OneSided):
    r"""The exponential of each entry, above a bound, below it, or with given signs.

    .. math::
        X \mapsto b + s\, e^X, \qquad \mathbb{R} \to \{w : s(w - b) > 0\}

    Entry by entry, and injective; `MatrixExp` is the exponential of a matrix. Steps
    multiply distances from the bound: the map for scales that range over decades, where
    `Softplus` is the calmer one. The bound is not reached, but by underflow: an entry
    that is assigned on it is moved inside by one rounding of the matrix. Where the
    exponential would overflow, the value is about the largest number, of slope zero.
    The right inverse is the logarithm, exact. Costs one pass over the tensor.

    Args:
        bound: the bound b; a tensor is broadcast to the weight's shape.
        sign: 1 for entries above the bound, -1 for entries below it. A tensor of 1, -1
            and 0 gives each entry its own; 0 fixes it at the bound.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Exponential(5.0, sign=-1)(torch.tensor([0.0, -20.0]))
        tensor([4., 5.])

    References:
        Stan Reference Manual, Constraint Transforms, 2024,
        https://mc-stan.org/docs/reference-manual/transforms.html
    """

    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor at the distance exp(X) from the bound."""
        return self._value(below_overflow(X))

    @full_precision
    def _value(self, X: Tensor) -> Tensor:
        return affine(X.exp(), self.sign, self.bound)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the logarithm of the distances from the bound."""
        return _distance(weight, self.bound, self.sign).log().to(weight.dtype)


class Square(OneSided):
    r"""The square of each entry, above a bound, below it, or with given signs.

    .. math::
        X \mapsto b + s\, X^2, \qquad \mathbb{R} \to \{w : s(w - b) \ge 0\}

    Entry by entry; X and −X have the same value. The bound is reached at X = 0, where
    the slope is zero and an entry would stay for good: one that is assigned there is
    moved inside by one rounding of the matrix, from where it can leave. The right
    inverse is the root, exact. Costs one product.

    Args:
        bound: the bound b; a tensor is broadcast to the weight's shape.
        sign: 1 for entries above the bound, -1 for entries below it. A tensor of 1, -1
            and 0 gives each entry its own; 0 fixes it at the bound.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Square(1.0)(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([ 5.,  1., 10.])
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor at the distance X² from the bound."""
        return affine(X * X, self.sign, self.bound)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the root of the distances from the bound."""
        return _distance(weight, self.bound, self.sign).sqrt().to(weight.dtype)


def _side(bound: float | Tensor, sign: int | Tensor) -> Interval:
    if not isinstance(sign, Tensor):
        lower = bound if sign >= 0 else -math.inf
        return Interval(lower, bound if sign <= 0 else math.inf, margin=MARGIN)
    lower = torch.where(sign >= 0, bound, -math.inf)
    upper = torch.where(sign <= 0, bound, math.inf)
    return Interval(lower, upper, margin=MARGIN)


def _distance(weight: Tensor, bound: float | Tensor, sign: int | Tensor) -> Tensor:
    """Return the distances from the bound, positive and in double precision."""
    W = double(weight)
    Y = like(sign, W) * (W - like(bound, W))
    return lift(Y, torch.finfo(weight.dtype).eps)
