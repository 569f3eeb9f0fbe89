"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .constraint import Constraint
from .definite import SymmetricPositiveDefinite
from .interval import Grid, Interval
from .invertible import GeneralLinear
from .linear import (
    Real,
    SkewMatrices,
    Sparse,
    SquareMatrices,
    SymmetricMatrices,
    TriangularMatrices,
)
from .orthogonal import Stiefel
from .simplex import Ordered, Simplex, ZeroSum
from .spectral import SpectralBall, SpectralSphere
from .transport import TransportPolytope

__all__ = [
    "Constraint",
    "GeneralLinear",
    "Grid",
    "Interval",
    "Ordered",
    "Real",
    "Simplex",
    "SkewMatrices",
    "Sparse",
    "SpectralBall",
    "SpectralSphere",
    "SquareMatrices",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "TransportPolytope",
    "TriangularMatrices",
    "ZeroSum",
]
