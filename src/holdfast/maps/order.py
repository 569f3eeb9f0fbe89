"""Sequences in order."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.entrywise import lift, require_real, softplus, softplus_inverse
from ..linalg.precision import double, full_precision
from ..sets.simplex import Ordered, require_entries
from .bounds import MARGIN


class CumulativeSum(Parametrization):
    r"""Sums of positive steps: the slices along a dimension increase.

    .. math::
        w_1 = x_1, \quad w_j = w_{j-1} + \log(1 + e^{x_j}), \qquad
        \mathbb{R}^n \to \{w : w_1 < w_2 < \cdots < w_n\}

    Bijective. Equal neighbours are not reached, but by rounding: where they are
    assigned, the step between them becomes a rounding of the mean step. The right
    inverse takes differences and is exact. Costs two passes over the tensor.

    Args:
        dim: the dimension along which the entries increase.
        positive: whether the first entry is a positive step as well, from zero.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.CumulativeSum()(torch.tensor([-1.0, 10.0, 20.0]))
        tensor([-1.0000,  9.0000, 29.0000])

    References:
        Stan Reference Manual, Constraint Transforms, 2024,
        https://mc-stan.org/docs/reference-manual/transforms.html
    """

    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(self, dim: int = -1, *, positive: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.positive = positive

    @property
    def codomain(self) -> Ordered:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose slices do not decrease."""
        return Ordered(self.dim, positive=self.positive, margin=MARGIN)

    def bind(self, weight: Tensor) -> None:
        """Check the dimension, and that the weight is real."""
        require_real(weight)
        require_entries(weight, self.dim)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the sums of the steps."""
        X = X.movedim(self.dim, -1)
        if self.positive:
            steps = softplus(X)
        else:
            steps = torch.cat([X[..., :1], softplus(X[..., 1:])], -1)
        return steps.cumsum(-1).movedim(-1, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the first entry, and the inverse of softplus at the differences."""
        W = double(weight).movedim(self.dim, -1)
        first, eps = W[..., :1], torch.finfo(weight.dtype).eps
        X = softplus_inverse(lift(W.diff(dim=-1), eps))
        first = softplus_inverse(lift(first, eps)) if self.positive else first
        X = torch.cat([first, X], -1).movedim(-1, self.dim)
        return X.to(weight.dtype).contiguous()
