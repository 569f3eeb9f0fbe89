"""Stable dynamics: matrices by the equations of Lyapunov and Stein, and diagonals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError, describe
from ..linalg.precision import double, full_precision
from ..linalg.stability import (
    decaying_exponentials,
    decaying_exponentials_inverse,
    decaying_powers,
    decaying_powers_inverse,
)
from ..linalg.structure import require_square
from ..sets.linear import SquareMatrices
from ..sets.stable import Hurwitz, SchurStable, UnitDisc


class Lyapunov(Parametrization):
    r"""Matrices whose eigenvalues have real parts below -α: stable in continuous time.

    .. math::
        X \mapsto P^{-1}(S - I) - \alpha I, \quad P^{-1} = L L^T, \qquad
        \mathbb{R}^{n \times n} \to \{W : \mathrm{Re}\,\lambda(W) < -\alpha\}

    L is lower triangular with a positive diagonal, S is skew, and both are read off X:
    the lower and the upper triangle over √n; the diagonal of L is
    :math:`(x + \sqrt{x^2 + 4})/2`. Complex matrices get skew-Hermitian S.

    P solves the equation of Lyapunov :math:`PA + A^T P = -2I` of :math:`A = W + \alpha
    I`, which has just one solution. So the map is one to one and onto, from as many
    numbers as the matrix has. The right inverse solves the equation, in O(n³) and
    without eigenvectors; its relative error is the rounding unit times the condition of
    P. The boundary is not attained but to rounding; where the right inverse would miss
    by 1e-4, or in narrower types by the root of the rounding unit, it refuses. Two
    products forward, four backward.

    Args:
        alpha: α, the rate at which solutions of :math:`\dot x = Wx` decay.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, map_ = torch.nn.Linear(2, 2), maps.Lyapunov(0.1)
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> bool((torch.linalg.eigvals(layer.weight).real < -0.1).all())
        True
        >>> W = torch.tensor([[-1.0, 5.0], [0.0, -0.5]])
        >>> layer.weight = W
        >>> torch.allclose(layer.weight, W, atol=1e-5)
        True

    References:
        Gillis and Sharma, On Computing the Distance to Stability for Matrices Using
        Linear Dissipative Hamiltonian Systems, 2017, https://arxiv.org/abs/1611.00595
    """

    domain = SquareMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        self.alpha = alpha

    @property
    def codomain(self) -> Hurwitz:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with this rate of decay."""
        return Hurwitz(self.alpha)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the stable matrix with the coordinates ``X``."""
        A = decaying_exponentials(X)
        if not self.alpha:
            return A
        return A - self.alpha * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Solve the equation of Lyapunov."""
        require_square(weight)
        A = double(weight)
        A = A + self.alpha * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return _rounded(self, decaying_exponentials_inverse(A), weight)


class Stein(Parametrization):
    r"""Matrices of spectral radius below ρ: stable in discrete time.

    .. math::
        X \mapsto \rho\, (P + I - S)^{-1} (P - I + S), \quad P = L L^T, \qquad
        \mathbb{R}^{n \times n} \to \{W : |\lambda(W)| < \rho\}

    with L and S as in `Lyapunov`: this is its matrix A after the transform of Cayley,
    without the inverse of P. P solves the equation of Stein, the discrete one of
    Lyapunov: :math:`P - V^T P V = (I + V)^T (I + V)` for :math:`V = W/\rho`, and no
    other matrix does. So the map is one to one and onto, from as many numbers as the
    matrix has. W may have any norm, unlike with `SpectralNorm`.

    The right inverse solves the equation by doubling, in O(n³) and without
    eigenvectors; its relative error is the rounding unit times the condition of P. The
    boundary is not attained but to rounding; where the right inverse would miss by
    1e-4, or in narrower types by the root of the rounding unit, it refuses. A product
    and a solve, whose Hermitian part is at least I, so that every original gives
    finite values.

    Args:
        rho: ρ > 0, the bound of the spectral radius.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, map_ = torch.nn.Linear(2, 2), maps.Stein(0.9)
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> bool((torch.linalg.eigvals(layer.weight).abs() < 0.9).all())
        True
        >>> W = torch.tensor([[0.5, 5.0], [0.0, 0.5]])
        >>> layer.weight = W
        >>> torch.allclose(layer.weight, W, atol=1e-5)
        True

    References:
        Revay, Wang and Manchester, Recurrent Equilibrium Networks, 2021,
        https://arxiv.org/abs/2104.05942
    """

    domain = SquareMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, rho: float = 1.0) -> None:
        super().__init__()
        self.rho = rho

    @property
    def codomain(self) -> SchurStable:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices of this spectral radius."""
        return SchurStable(self.rho)

    def bind(self, weight: Tensor) -> None:
        """Check the bound."""
        if not 0 < self.rho < math.inf:
            raise ValueError(
                f"Expected `rho` to be positive and finite. Got {self.rho}."
            )

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the stable matrix with the coordinates ``X``."""
        return self.rho * decaying_powers(X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Solve the equation of Stein."""
        require_square(weight)
        V = double(weight) / self.rho
        return _rounded(self, decaying_powers_inverse(V), weight)


class LRU(Parametrization):
    r"""Complex entries inside the unit disc, by modulus and phase.

    .. math::
        (\nu, \varphi) \mapsto \exp(-e^{\nu} + i e^{\varphi}), \qquad
        \mathbb{R}^n \times \mathbb{R}^n \to \{\lambda \in \mathbb{C}^n :
        0 < |\lambda_i| < 1\}

    The diagonal of a linear recurrent unit, for parameters of a complex type; both
    originals are real. Onto; one to one but for whole turns of the phase. The right
    inverse is exact: :math:`\nu = \log(-\log |\lambda|)`, and φ the logarithm of the
    phase in (0, 2π]. 0 and the unit circle, which are not attained, are to rounding.
    Entrywise; ν counts as at most 7, beyond which λ is zero to rounding, and φ as at
    most 20.

    Shape:
        ``(*), (*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> map_ = maps.LRU()
        >>> nu, phi = map_.right_inverse(torch.tensor([0.5j]))
        >>> nu.exp(), phi.exp()
        (tensor([0.6931]), tensor([1.5708]))
        >>> map_(nu, phi).abs()
        tensor([0.5000])

    References:
        Orvieto et al., Resurrecting Recurrent Neural Networks for Long Sequences, 2023,
        https://arxiv.org/abs/2303.06349
    """

    codomain = UnitDisc()
    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Refuse real tensors, whose entries have no phase."""
        if not weight.is_complex():
            raise InvalidTensorError(
                f"Expected a tensor of a complex type. Got {describe(weight)}. Make "
                "the parameter complex; for real rates of decay take a sigmoid or tanh."
            )

    def forward(self, nu: Tensor, phi: Tensor) -> Tensor:
        """Return the entries with these moduli and phases."""
        modulus = torch.exp(-nu.clamp_max(_LARGEST_RATE).exp())
        return torch.polar(modulus, phi.clamp_max(_LARGEST_PHASE).exp())

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the double logarithm of the moduli, and that of the phases."""
        self.bind(weight)
        wide = double(weight)
        smallest = torch.finfo(weight.dtype).eps / 4
        rate = (-wide.abs().log()).clamp(smallest, math.exp(_LARGEST_RATE))
        angle = wide.angle()
        angle = torch.where(angle > 0, angle, angle + 2 * math.pi)
        kind = weight.dtype.to_real()
        return rate.log().to(kind), angle.log().to(kind)


def _rounded(map_: Lyapunov | Stein, X: Tensor, weight: Tensor) -> Tensor:
    """Return ``X`` in the type of the weight, or NaN if its value misses by far.

    Near the boundary the condition of P makes much of the rounding of X alone.
    """
    X = X.to(weight.dtype).contiguous()
    norm, expected = torch.linalg.matrix_norm, double(weight)
    limit = max(_MISSED, torch.finfo(weight.dtype).eps ** 0.5) * norm(expected)
    missed = norm(double(map_.forward(X)) - expected) > limit
    return torch.where(missed[..., None, None], torch.nan, X)


# A right inverse whose value would be off by more than this part of the matrix is none.
_MISSED = 1e-4

# exp(-exp(7)) is zero in double precision.
_LARGEST_RATE = 7.0

# So many turns, of which rounding has left nothing, stay finite.
_LARGEST_PHASE = 20.0
