"""Probability vectors, and what sums to zero."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.entrywise import lift, require_real
from ..linalg.precision import double, full_precision
from ..linalg.simplex import (
    helmert,
    helmert_inverse,
    stick_breaking,
    stick_breaking_inverse,
)
from ..sets.simplex import Simplex, ZeroSum, dims_of, require_entries
from .bounds import MARGIN


class Probabilities(Parametrization):
    """What the maps onto probability vectors share: all but the coordinates."""

    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    @property
    def codomain(self) -> Simplex:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors of probability vectors."""
        return Simplex(self.dim, margin=MARGIN)

    def bind(self, weight: Tensor) -> None:
        """Check the dimension, and that the weight is real."""
        require_real(weight)
        require_entries(weight, self.dim)


class Softmax(Probabilities):
    r"""Exponentials over their sum: the slices along a dimension sum to 1.

    .. math::
        X \mapsto e^{x_{ij}} / \textstyle\sum_l e^{x_{il}}, \qquad
        \mathbb{R}^n \to \{w : w_j > 0,\ \textstyle\sum_j w_j = 1\}

    ``Softmax(-1)`` makes row-stochastic matrices, ``Softmax(-2)`` column-stochastic
    ones. All n entries are treated alike; a constant added to x changes nothing. Zeros
    are not reached, but by underflow: an entry of zero that is assigned becomes a
    rounding of the mean. The right inverse is the logarithm, exact for positive
    entries, however small. Costs two passes over the tensor.

    Args:
        dim: the dimension along which the entries sum to 1.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 1)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Softmax())
        >>> layer.weight = torch.tensor([[0.25, 0.75]])
        >>> layer.weight.detach()
        tensor([[0.2500, 0.7500]])

    References:
        Bridle, Probabilistic Interpretation of Feedforward Classification Network
        Outputs, 1990, https://doi.org/10.1007/978-3-642-76153-9_28
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the softmax."""
        return X.softmax(self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the logarithm."""
        return _lifted(weight).log().to(weight.dtype)


class IsometricLogRatio(Probabilities):
    r"""Softmax of n - 1 coordinates, without the one that changes nothing.

    .. math::
        X \mapsto \mathrm{softmax}(H^T x), \qquad
        \mathbb{R}^{n-1} \to \{w : w_j > 0,\ \textstyle\sum_j w_j = 1\}

    with H the Helmert matrix, whose rows are orthonormal and sum to zero. Bijective,
    and the only one of its kind that keeps distances between logarithms of ratios.
    The original has one entry less along the dimension. Zeros are not reached, but by
    underflow: an entry of zero that is assigned becomes a rounding of the mean. The
    right inverse is :math:`H \log w`, exact. Costs a few passes over the tensor.

    Args:
        dim: the dimension along which the entries sum to 1.

    Shape:
        ``(*, n - 1, *) -> (*, n, *)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.IsometricLogRatio()(torch.zeros(3))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])

    References:
        Egozcue et al., Isometric Logratio Transformations for Compositional Data
        Analysis, 2003, https://doi.org/10.1023/A:1023818214614
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the softmax of the tensor of zero sums with the coordinates X."""
        return helmert(X.movedim(self.dim, -1)).softmax(-1).movedim(-1, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates of the logarithm."""
        X = helmert_inverse(_lifted(weight).log().movedim(self.dim, -1))
        return X.movedim(-1, self.dim).to(weight.dtype).contiguous()


class StickBreaking(Probabilities):
    r"""Break a share off what is left of a stick, n - 1 times.

    .. math::
        w_k = \sigma(x_k - \log(n - k)) \left(1 - \textstyle\sum_{j<k} w_j\right),
        \qquad \mathbb{R}^{n-1} \to \{w : w_j > 0,\ \textstyle\sum_j w_j = 1\}

    Bijective, with a triangular derivative; the first entries are moved the most, where
    `IsometricLogRatio` treats all alike. The original has one entry less along the
    dimension, and zero means equal parts. Zeros are not reached, but by underflow: an
    entry of zero that is assigned becomes a rounding of the mean. The right inverse is
    exact. Costs a few passes over the tensor.

    Args:
        dim: the dimension along which the entries sum to 1.

    Shape:
        ``(*, n - 1, *) -> (*, n, *)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.StickBreaking()(torch.tensor([0.0, 1.0]))
        tensor([0.3333, 0.4874, 0.1793])

    References:
        Stan Reference Manual, Constraint Transforms, 2024,
        https://mc-stan.org/docs/reference-manual/transforms.html
    """

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the parts."""
        return stick_breaking(X.movedim(self.dim, -1)).movedim(-1, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the logits of the shares."""
        X = stick_breaking_inverse(_lifted(weight).movedim(self.dim, -1))
        return X.movedim(-1, self.dim).to(weight.dtype).contiguous()


class Helmert(Parametrization):
    r"""Slices that sum to zero, in n - 1 orthonormal coordinates.

    .. math::
        x \mapsto H^T x, \qquad
        \mathbb{R}^{n-1} \to \{w : \textstyle\sum_j w_j = 0\}

    with H the Helmert matrix: a linear isometry, bijective, so that learning rates and
    weight decay act as on a plain weight. The original has one entry less along each
    dimension. The right inverse is H w, exact. Costs a cumulative sum for each
    dimension, and no matrix. Real or complex.

    Args:
        dim: the dimension along which the sums are zero, or several: ``(-2, -1)`` for
            rows and columns.

    Shape:
        ``(*, n - 1, *) -> (*, n, *)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Helmert((-2, -1))(torch.tensor([[2.0]]))
        tensor([[ 1., -1.],
                [-1.,  1.]])

    References:
        Lancaster, The Helmert Matrices, 1965,
        https://doi.org/10.1080/00029890.1965.11970483
    """

    deterministic = True
    foreach = "vmap"

    def __init__(self, dim: int | tuple[int, ...] = -1) -> None:
        super().__init__()
        self.dim = dim

    @property
    def codomain(self) -> ZeroSum:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose slices sum to zero."""
        return ZeroSum(self.dim)

    def bind(self, weight: Tensor) -> None:
        """Check the dimensions."""
        for dim in dims_of(self.dim):
            require_entries(weight, dim)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the tensor of zero sums with the coordinates X."""
        for dim in dims_of(self.dim):
            X = helmert(X.movedim(dim, -1)).movedim(-1, dim)
        return X

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates."""
        W = double(weight)
        for dim in dims_of(self.dim):
            W = helmert_inverse(W.movedim(dim, -1)).movedim(-1, dim)
        return W.to(weight.dtype).contiguous()


def _lifted(weight: Tensor) -> Tensor:
    return lift(double(weight), torch.finfo(weight.dtype).eps)
