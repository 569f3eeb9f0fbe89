"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .constraint import Constraint
from .definite import SymmetricPositiveDefinite
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
from .sparse import KSparse, NMSparse
from .spectral import SpectralBall, SpectralSphere

__all__ = [
    "Constraint",
    "GeneralLinear",
    "KSparse",
    "NMSparse",
    "Real",
    "SkewMatrices",
    "Sparse",
    "SpectralBall",
    "SpectralSphere",
    "SquareMatrices",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "TriangularMatrices",
]
