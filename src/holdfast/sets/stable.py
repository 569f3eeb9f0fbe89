"""Matrices and diagonals of dynamics that decay: stable in continuous or discrete time.

No formula gives the nearest stable matrix. Projections shift or scale the whole matrix,
and go a little further than they must, so that right inverses have room.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.certificates import surely_decays, worth_asking
from ..linalg.decompositions import eigenvalues, singular_values
from ..linalg.precision import double
from ..linalg.structure import require_square
from .constraint import Constraint, Shape, filled, inside, is_square, sizes

# How far inside the boundary a projection ends, relative to the size of the matrix.
_ROOM = 0.05

# What shifting a matrix may add to the radius of its spectrum, in double precision.
_ROUNDING = 1e-9


class Hurwitz(Constraint):
    r"""Square matrices whose eigenvalues have real parts of at most -α.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : \mathrm{Re}\,\lambda(W) \le -\alpha\}

    The solutions of :math:`\dot x = Wx` decay like :math:`e^{-\alpha t}`. The residual
    is how far the largest real part is above -α, relative to the norm of the matrix or
    to α if that is larger; to rounding, the boundary belongs to the set. The cheap
    projection subtracts a multiple of the identity, a twentieth of the size too much.

    Args:
        alpha: α, the rate of decay.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.Hurwitz().contains(torch.tensor([[-1.0, 9.0], [0.0, -2.0]]))
        True
        >>> sets.Hurwitz(1.5).residual(-torch.eye(2))
        tensor(0.3333, dtype=torch.float64)
    """

    def __init__(self, alpha: float = 0.0) -> None:
        self.alpha = alpha

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the rightmost eigenvalue is outside."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if worth_asking(W) and self._surely(W):
            return inside(weight)
        size = self._size(W)
        above = (_abscissa(W) + self.alpha).relu()
        return torch.where(size > 0, above / size, above)

    def project(self, weight: Tensor) -> Tensor:
        """Shift the spectrum of a matrix that is outside to the left."""
        require_square(weight)
        W = double(weight)
        above, size = _abscissa(W) + self.alpha, self._size(W)
        shift = torch.where(above > 0, above + _ROOM * size, 0)
        return (W - _identity(W) * shift[..., None, None]).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a normal matrix over √n, with its spectrum shifted to -α - 1/2."""
        require_square(normal)
        G = double(normal) / max(1, normal.shape[-1]) ** 0.5
        shift = (_abscissa(G) + self.alpha + 0.5)[..., None, None]
        return (G - _identity(G) * shift).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2`, twice that for complex matrices."""
        sizes(shape)
        return math.prod(shape) * (2 if dtype.is_complex else 1)

    def _surely(self, W: Tensor) -> bool:
        """Tell whether the spectrum is in a disc that is inside, about its mean."""
        shifted = W + self.alpha * _identity(W)
        mean = shifted.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        if not bool((mean < 0).all()):
            return False
        off = shifted - mean[..., None, None] * _identity(W)
        return surely_decays(off, -mean * (1 - _ROUNDING))

    def _size(self, W: Tensor) -> Tensor:
        return _norm(W).clamp_min(abs(self.alpha))


class SchurStable(Constraint):
    r"""Square matrices whose eigenvalues are smaller than ρ in modulus.

    .. math::
        \{W \in \mathbb{R}^{n \times n} : |\lambda(W)| < \rho\}

    For ρ = 1 the powers of W decay: :math:`x_{t+1} = W x_t` is stable, though W may
    stretch some vectors before. The residual is how far the spectral radius is above ρ,
    relative to the norm of the matrix or to ρ if that is larger; to rounding, the
    boundary belongs to the set. The cheap projection scales the matrix, to a radius of
    0.95ρ.

    Args:
        rho: ρ > 0, the bound.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.SchurStable().contains(torch.tensor([[0.5, 9.0], [0.0, -0.5]]))
        True
        >>> sets.SchurStable(0.5).project(torch.eye(2))
        tensor([[0.4750, 0.0000],
                [0.0000, 0.4750]])
    """

    def __init__(self, rho: float = 1.0) -> None:
        self.rho = rho

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the largest eigenvalue is outside."""
        if not is_square(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        if worth_asking(W) and surely_decays(W, self.rho):
            return inside(weight)
        size = _norm(W).clamp_min(self.rho)
        return (_radius(W) - self.rho).relu() / size

    def project(self, weight: Tensor) -> Tensor:
        """Scale a matrix that is outside."""
        require_square(weight)
        W = double(weight)
        radius = _radius(W)
        inside = radius <= self.rho
        factor = (1 - _ROOM) * self.rho / torch.where(inside, 1, radius)
        return (W * torch.where(inside, 1, factor)[..., None, None]).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a normal matrix over √n, of spectral radius at most 0.9ρ."""
        require_square(normal)
        G = double(normal) / max(1, normal.shape[-1]) ** 0.5
        factor = 0.9 * self.rho / _radius(G).clamp_min(1)
        return (G * factor[..., None, None]).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`n^2`, twice that for complex matrices."""
        sizes(shape)
        return math.prod(shape) * (2 if dtype.is_complex else 1)


class UnitDisc(Constraint):
    r"""Tensors with all entries in the unit disc, :math:`|\lambda_i| \le 1`.

    The diagonals of stable recurrences :math:`x_{t+1} = \lambda \odot x_t`, mostly
    complex. The residual is by how much the largest modulus of each matrix (or of a
    vector) exceeds 1.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.UnitDisc().project(torch.tensor([3j, 0.5]))
        tensor([0.0000+1.j, 0.5000+0.j])
    """

    def residual(self, weight: Tensor) -> Tensor:
        """Return by how much the largest modulus is above 1."""
        above = (double(weight).abs() - 1).relu()
        if 0 in weight.shape[-2:]:
            return above.sum((-2, -1) if weight.ndim > 1 else -1)
        return above.amax(tuple(range(max(0, weight.ndim - 2), weight.ndim)))

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such tensor: larger entries get modulus 1."""
        wide = double(weight)
        return (wide / wide.abs().clamp_min(1)).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return entries of normal phase and of moduli below 1."""
        wide = double(normal)
        return (wide / (1 + wide.abs() ** 2).sqrt()).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, twice that where they are complex."""
        return math.prod(shape) * (2 if dtype.is_complex else 1)


def _norm(W: Tensor) -> Tensor:
    values = singular_values(W)
    return values[..., 0] if values.shape[-1] else values.sum(-1)


def _abscissa(W: Tensor) -> Tensor:
    parts = eigenvalues(W).real
    return parts.amax(-1) if parts.shape[-1] else parts.sum(-1) - torch.inf


def _radius(W: Tensor) -> Tensor:
    moduli = eigenvalues(W).abs()
    return moduli.amax(-1) if moduli.shape[-1] else moduli.sum(-1)


def _identity(W: Tensor) -> Tensor:
    return torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
