"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .combinators import Matricized, Scaled
from .constraint import Constraint
from .convolution import ConvolutionBall, OrthogonalKernels
from .correlation import CorrelationMatrices
from .definite import PositiveSemidefinite, SpectrumIn, SymmetricPositiveDefinite
from .factor_model import LowRankPlusDiagonalMatrices
from .groups import Orthogonal, SpecialOrthogonal, SpecialUnitary, Unitary
from .interval import Grid, Interval
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
from .orthogonal import Grassmann, ScaledOrthogonal, Stiefel
from .pattern import BandedMatrices, BlockDiagonalMatrices, DiagonalMatrices
from .shift import CirculantMatrices, ToeplitzMatrices
from .simplex import Ordered, Simplex, ZeroSum
from .singular_values import SingularValuesIn
from .slices import LpBall, NormInterval, Sphere, Standardized
from .sparse import KSparse, NMSparse
from .spectral import SpectralBall, SpectralSphere
from .stable import Hurwitz, SchurStable, UnitDisc
from .transport import TransportPolytope

__all__ = [
    "BandedMatrices",
    "BlockDiagonalMatrices",
    "CirculantMatrices",
    "Constraint",
    "ConvolutionBall",
    "CorrelationMatrices",
    "DiagonalMatrices",
    "GeneralLinear",
    "Grassmann",
    "Grid",
    "Hurwitz",
    "Interval",
    "KSparse",
    "KroneckerProducts",
    "LowRankPlusDiagonalMatrices",
    "LpBall",
    "Matricized",
    "NMSparse",
    "NormInterval",
    "Ordered",
    "Orthogonal",
    "OrthogonalKernels",
    "PositiveDeterminant",
    "PositiveSemidefinite",
    "Real",
    "Scaled",
    "ScaledOrthogonal",
    "SchurStable",
    "Simplex",
    "SingularValuesIn",
    "SkewMatrices",
    "Sparse",
    "SpecialLinear",
    "SpecialOrthogonal",
    "SpecialUnitary",
    "SpectralBall",
    "SpectralSphere",
    "SpectrumIn",
    "Sphere",
    "SquareMatrices",
    "Standardized",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "ToeplitzMatrices",
    "TracelessMatrices",
    "TransportPolytope",
    "TriangularMatrices",
    "UnitDisc",
    "Unitary",
    "ZeroSum",
]
