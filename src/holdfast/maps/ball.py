"""Slices of bounded norm: rescaled where they are too long, or along their rays."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.precision import double, full_precision
from ..linalg.rays import (
    Dims,
    from_slices,
    into_ball,
    into_ball_inverse,
    require_slices,
    slice_norm,
    slices,
    spread,
)
from ..sets.slices import LpBall, NormInterval
from .bounds import MARGIN
from .sphere import require_positive, scaled


class ClipNorm(Parametrization):
    r"""Rescale the slices that are too long, or too short.

    .. math::
        v \mapsto v\, \frac{\min(\max(\|v\|_p, a), b)}{\|v\|_p}, \qquad
        \mathbb{R}^N \to \{w : a \le \|w\|_p \le b\}

    ``ClipNorm(b)`` is a max-norm, ``ClipNorm(b, low=a)`` a min-max norm. Surjective,
    and the identity on the set, boundary included, so that the right inverse is the
    weight itself. Beyond a bound the derivative along v is zero: the length of v is
    lost, and returns by weight decay only. `RadialSigmoid` has no such region. A slice
    of zeros stays, or becomes a constant one of norm a. Costs three passes over the
    tensor.

    Args:
        high: b > 0.
        low: a; other than 0 for p = 2 only.
        p: of the norm: 1, 2, ``"inf"`` or any other number above 1.
        dim: the dimension that the slices run along, or several; ``None`` for all.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> W = torch.tensor([[6.0, 8.0], [0.3, 0.4]])
        >>> maps.ClipNorm(5.0)(W)
        tensor([[3.0000, 4.0000],
                [0.3000, 0.4000]])

    References:
        Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from
        Overfitting, 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """

    deterministic = True
    foreach = "vmap"

    def __init__(
        self,
        high: float = 1.0,
        *,
        low: float = 0.0,
        p: float | Literal["inf"] = 2.0,
        dim: Dims = -1,
    ) -> None:
        super().__init__()
        self.high = high
        self.low = low
        self.p: float | Literal["inf"] = p
        self.dim = dim

    @property
    def codomain(self) -> LpBall | NormInterval:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose slices have such norms."""
        if self.low == 0:
            return LpBall(self.p, self.high, self.dim)
        return NormInterval(self.low, self.high, self.dim)

    def bind(self, weight: Tensor) -> None:
        """Check the dimensions, the bounds and the norm."""
        require_slices(weight.shape, self.dim)
        require_positive("high", self.high)
        if not float(self.p) >= 1:
            raise ValueError(f"Expected p of at least 1. Got p={self.p}.")
        if not 0 <= self.low <= self.high:
            raise ValueError(
                f"Expected 0 <= low <= high. Got low={self.low}, high={self.high}."
            )
        if self.low > 0 and float(self.p) != 2:
            raise ValueError(
                f"Expected p=2 for norms of at least `low`. Got p={self.p} and "
                f"low={self.low}. Without `low`, p is free."
            )

    @full_precision
    def forward(self, V: Tensor) -> Tensor:
        """Return the slices of ``V``, rescaled where that is needed."""
        X = slices(V, self.dim)
        norm = slice_norm(X, float(self.p))
        if self.low > 0:
            zero = norm < torch.finfo(X.real.dtype).tiny
            X = X + zero.to(X.real.dtype) * self.low * spread(X, balanced=False)
            norm = slice_norm(X)
        long = norm > self.high
        ratio = torch.where(long, self.high / norm.masked_fill(~long, 1), 1)
        if self.low > 0:
            short = norm < self.low
            ratio = torch.where(short, self.low / norm.masked_fill(~short, 1), ratio)
        return from_slices(X * ratio.to(X.real.dtype), V.shape, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        require_slices(weight.shape, self.dim)
        return weight.contiguous()


class RadialSigmoid(Parametrization):
    r"""A smooth bijection onto the ball: every slice keeps its direction.

    .. math::
        v \mapsto \frac{v}{\sqrt{1 + \|v\|^2 / c^2}}, \qquad
        \mathbb{R}^N \to \{w : \|w\|_2 < c\}

    An algebraic sigmoid function of the norm, with slope 1 at zero: short slices are
    left as they are. The boundary is not reached, but by rounding; the slope falls like
    :math:`\|v\|^{-3}` along v, and not exponentially, as with tanh. The right inverse
    is :math:`w / \sqrt{1 - \|w\|^2 / c^2}`, exact; a slice that is assigned on the
    boundary is moved inside by a rounding. Costs two passes over the tensor, and four
    for the gradient. For p = infinity the same is done by `Tanh` with bounds -c and c.

    Args:
        radius: c > 0.
        dim: the dimension that the slices run along, or several; ``None`` for all.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.RadialSigmoid(5.0)(torch.tensor([[3.0, 4.0], [0.0, 0.01]]))
        tensor([[2.1213, 2.8284],
                [0.0000, 0.0100]])
    """

    deterministic = True
    foreach = "vmap"

    def __init__(self, radius: float = 1.0, dim: Dims = -1) -> None:
        super().__init__()
        self.radius = radius
        self.dim = dim

    @property
    def codomain(self) -> LpBall:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose slices have a norm of at most c."""
        return LpBall(2.0, self.radius, self.dim, margin=MARGIN)

    def bind(self, weight: Tensor) -> None:
        """Check the dimensions and the radius."""
        require_slices(weight.shape, self.dim)
        require_positive("radius", self.radius)

    @full_precision
    def forward(self, V: Tensor) -> Tensor:
        """Return the slices of ``V``, inside of the ball."""
        X = slices(V, self.dim)
        U = into_ball(X if self.radius == 1 else X / self.radius)
        return scaled(U, self.radius, V, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the slices outside of the ball again."""
        require_slices(weight.shape, self.dim)
        eps = torch.finfo(weight.dtype).eps
        U = slices(double(weight), self.dim) / self.radius
        X = from_slices(into_ball_inverse(U, eps), weight.shape, self.dim)
        return (self.radius * X).to(weight.dtype).contiguous()
