"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .constraint import Constraint
from .definite import SymmetricPositiveDefinite
from .invertible import GeneralLinear
from .kronecker import KroneckerProducts
from .linear import (
    Real,
    SkewMatrices,
    Sparse,
    SquareMatrices,
    SymmetricMatrices,
    TracelessMatrices,
    TriangularMatrices,
)
from .orthogonal import Stiefel
from .pattern import BandedMatrices, BlockDiagonalMatrices, DiagonalMatrices
from .shift import CirculantMatrices, ToeplitzMatrices
from .spectral import SpectralBall, SpectralSphere

__all__ = [
    "BandedMatrices",
    "BlockDiagonalMatrices",
    "CirculantMatrices",
    "Constraint",
    "DiagonalMatrices",
    "GeneralLinear",
    "KroneckerProducts",
    "Real",
    "SkewMatrices",
    "Sparse",
    "SpectralBall",
    "SpectralSphere",
    "SquareMatrices",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "ToeplitzMatrices",
    "TracelessMatrices",
    "TriangularMatrices",
]
