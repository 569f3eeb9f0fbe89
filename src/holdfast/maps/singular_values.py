"""Matrices by their singular values: the largest bounded or learnt, or all bounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.norms import divide
from ..linalg.precision import double, full_precision
from ..linalg.rays import slice_norm
from ..linalg.singular_values import (
    interval_coordinate,
    interval_factors,
    largest_singular_value,
)
from ..linalg.structure import (
    positive_signs,
    rectangular_diagonal,
    require_matrix,
    tall,
    turned_like,
)
from ..linalg.thin_coordinates import thin_cayley_lower_inverse
from ..sets.singular_values import SingularValuesIn
from ..sets.spectral import SpectralBall
from .bounds import MARGIN
from .norm import SpectralNorm
from .sphere import require_positive

# A weight below that is measured in units of its own norm.
_SMALL = 1e-6


class SpectralBound(Parametrization):
    r"""Divide by the largest singular value where it is above a bound.

    .. math::
        X \mapsto X \min(1, c / \sigma_1(X)), \qquad
        \mathbb{R}^{n \times k} \to \{W : \sigma_1(W) \le c\}

    The linear map has the Lipschitz constant c, for certain: the singular value is
    exact, not estimated. Surjective, and the identity on the set, boundary included, so
    that the right inverse is the weight itself; one from outside becomes the original,
    and is divided. Costs a product and the eigenvalues of a matrix of the smaller size,
    in double precision; `SpectralNorm` costs two products with vectors, and estimates.
    For a kernel as one matrix: ``Matricized(SpectralBound(), 0)``; for the norm of the
    convolution itself: `ConvSpectralBound`.

    Args:
        radius: c > 0.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.SpectralBound(2.0)(torch.diag(torch.tensor([4.0, 1.0])))
        tensor([[2.0000, 0.0000],
                [0.0000, 0.5000]])

    References:
        Gouk et al., Regularisation of Neural Networks by Enforcing Lipschitz
        Continuity, 2018, https://arxiv.org/abs/1804.04368
    """

    deterministic = True
    foreach = "stack"
    outside = "project"

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__()
        self.radius = radius

    @property
    def codomain(self) -> SpectralBall:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices of so small a norm."""
        return SpectralBall(self.radius)

    def bind(self, weight: Tensor) -> None:
        """Check that the weight is a matrix, and the bound positive."""
        require_matrix(weight)
        require_positive("radius", self.radius)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the matrix, divided if its norm is too large."""
        excess = (largest_singular_value(X) / self.radius).clamp_min(1)
        return X / excess[..., None, None]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        require_matrix(weight)
        return weight.contiguous()


class SigmaReparam(Parametrization):
    r"""Spectral norm with a learnt gain, which keeps the weight that is there.

    .. math::
        (\gamma, X) \mapsto \gamma\, X / \sigma(X), \quad \sigma(X) = u^H X v, \qquad
        \mathbb{R} \times \mathbb{R}^{n \times k} \to \mathbb{R}^{n \times k}

    It bounds how fast the logits of attention can grow. u and v are the vectors of
    `SpectralNorm`, and move as they do there: once in every training forward, never on
    a read. The right inverse is exact: X is the weight, and :math:`\gamma` what the
    same vectors estimate of its norm. A zero weight gets a constant X, so that training
    can leave zero. Surjective; the length of X changes nothing. Costs two products of
    matrix and vector, and two more in training.

    Args:
        n_power_iterations: steps per training forward, at most 10,000.
        dim: the dimension that makes the rows of the matrix; all others, flattened, are
            its columns. Negative ones count from the end.
        eps: a norm below it counts as zero.

    Shape:
        ``(), (d_0, ..., d_m) -> (d_0, ..., d_m)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 5)
        >>> before = layer.weight.detach().clone()
        >>> sigma = maps.SigmaReparam()
        >>> layer = holdfast.register_parametrization(layer, "weight", sigma)
        >>> torch.allclose(layer.weight, before)
        True

    References:
        Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy
        Collapse, 2023, https://arxiv.org/abs/2303.06296
    """

    deterministic = True
    foreach = "vmap"
    decays = (True, False)
    moves = True
    # as in `SpectralNorm`: where no host advances, a training forward does
    advanced_by_host = False
    # but not the first one, which has to return the value that was assigned
    _assigned = False

    def __init__(
        self, n_power_iterations: int = 1, *, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps
        self.norm = SpectralNorm(n_power_iterations, dim=dim, eps=eps)

    def bind(self, weight: Tensor) -> None:
        """Bring the vectors near the top singular pair."""
        self.norm.bind(weight)

    def forward(self, gain: Tensor, X: Tensor) -> Tensor:
        """Return ``X`` over its estimated spectral norm, times the gain."""
        if self.training and not self.advanced_by_host:
            if not self._assigned:
                self.refine_(gain, X)
            self._assigned = False
        return self._value(gain, X)

    @full_precision
    def _value(self, gain: Tensor, X: Tensor) -> Tensor:
        return gain * divide(X, self.norm.estimate(X), self.eps)

    def refine_(self, *originals: Tensor) -> None:
        """Move the vectors towards the top singular pair of ``X``, in place."""
        self.norm.refine_(originals[1])

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is estimated of the norm, and the weight."""
        X = self.norm.right_inverse(_with_direction(weight))
        self._assigned = True
        return self.norm.estimate(weight).real, X


@full_precision
def _with_direction(weight: Tensor) -> Tensor:
    """Return the weight, or one of norm 1 if it is too small to be divided by that."""
    size = slice_norm(weight.flatten()).reshape(()).to(weight.real.dtype)
    uniform = 1 / math.sqrt(max(1, weight.numel()))
    unit = weight / torch.where(size > 0, size, 1)
    unit = torch.where(size > 0, unit, uniform)
    return torch.where(size > _SMALL, weight, unit).contiguous()


class BoundedSVD(Parametrization):
    r"""Orthonormal factors, and singular values in an interval.

    .. math::
        X \mapsto U\, \mathrm{diag}(s_1, \ldots, s_k)\, V^H, \quad
        s_i = m + r \sin(x_{ii} / r), \qquad
        \mathbb{R}^{n \times k} \to \{W : a \le \sigma_i(W) \le b\}

    with m the middle and r half the length of the interval. The condition is at most
    b/a; around m = 1 the matrices are almost orthogonal. U and V are Cayley transforms
    of what X has below and above its diagonal, with signs in the buffer ``signs`` and
    around a base point in the buffer ``base``. Wide matrices are transposed. No
    decomposition is differentiated, and equal singular values are as good as others.

    The ends are reached, at finite X, and left again. The right inverse is exact on the
    whole set: it sets both buffers. A singular value that is assigned on an end is
    moved inside by a rounding, because the slope is zero there. Around any base all of
    the set but measure zero is reached; not injective. Costs a thin Cayley transform of
    U, one of size k, and two thin products.

    Args:
        low: a >= 0.
        high: b >= a, and positive.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, svd = torch.nn.Linear(3, 5), maps.BoundedSVD(0.5, high=2.0)
        >>> layer = holdfast.register_parametrization(layer, "weight", svd)
        >>> bool(torch.linalg.cond(layer.weight) < 4.001)
        True

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501; Zhang, Lei and Dhillon, Stabilizing
        Gradients for Deep Neural Networks via Efficient SVD Parameterization, 2018,
        https://arxiv.org/abs/1803.09327
    """

    signs: Tensor | None
    base: Tensor | None
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, low: float, *, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.register_buffer("signs", None)
        self.register_buffer("base", None)

    @property
    def codomain(self) -> SingularValuesIn:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with singular values in the interval."""
        return SingularValuesIn(self.low, high=self.high, margin=MARGIN)

    def bind(self, weight: Tensor) -> None:
        """Start at positive signs and the identity."""
        require_matrix(weight)
        require_positive("high", self.high)
        if not 0 <= self.low <= self.high:
            raise ValueError(
                f"Expected 0 <= low <= high. Got low={self.low}, high={self.high}."
            )
        self.signs = positive_signs(weight)
        k = min(weight.shape[-2:])
        identity = torch.eye(k, dtype=weight.dtype, device=weight.device)
        self.base = identity.expand(*weight.shape[:-2], k, k).contiguous()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the product of the factors."""
        assert self.signs is not None
        assert self.base is not None
        base = self.base.to(X.dtype)
        bounds = {"low": self.low, "high": self.high}
        return turned_like(interval_factors(tall(X), self.signs, base, **bounds), X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates, set the signs and move the base."""
        require_matrix(weight)
        W, eps = double(tall(weight)), torch.finfo(weight.dtype).eps
        U, values, Vh = torch.linalg.svd(W, full_matrices=False)
        self.base = Vh.mH.to(weight.dtype).resolve_conj().contiguous()
        X, self.signs = thin_cayley_lower_inverse(U)
        x = interval_coordinate(values, eps, low=self.low, high=self.high)
        X = X.tril() + rectangular_diagonal(x.to(X.dtype), *W.shape[-2:])
        return turned_like(X, weight).to(weight.dtype).contiguous()
