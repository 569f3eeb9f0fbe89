"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .constraint import Constraint
from .correlation import CorrelationMatrices
from .definite import PositiveSemidefinite, SpectrumIn, SymmetricPositiveDefinite
from .factor_model import LowRankPlusDiagonalMatrices
from .invertible import GeneralLinear, PositiveDeterminant, SpecialLinear
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
    "CorrelationMatrices",
    "DiagonalMatrices",
    "GeneralLinear",
    "KroneckerProducts",
    "LowRankPlusDiagonalMatrices",
    "PositiveDeterminant",
    "PositiveSemidefinite",
    "Real",
    "SkewMatrices",
    "Sparse",
    "SpecialLinear",
    "SpectralBall",
    "SpectralSphere",
    "SpectrumIn",
    "SquareMatrices",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "ToeplitzMatrices",
    "TracelessMatrices",
    "TriangularMatrices",
]
