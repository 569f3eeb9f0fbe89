"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .around import Isometric, Shifted
from .combinators import Matricized, PerBlock, Scaled, Transposed
from .constraint import Constraint
from .convolution import ConvolutionBall, OrthogonalKernels
from .correlation import CorrelationMatrices
from .definite import PositiveSemidefinite, SpectrumIn, SymmetricPositiveDefinite
from .distributions import from_torch, to_torch
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
from .low_rank import FixedRankMatrices, LowRankMatrices
from .orthogonal import Grassmann, ScaledOrthogonal, Stiefel
from .pattern import BandedMatrices, BlockDiagonalMatrices, DiagonalMatrices
from .products import Concatenations, MatrixProducts
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
    "Concatenations",
    "Constraint",
    "ConvolutionBall",
    "CorrelationMatrices",
    "DiagonalMatrices",
    "FixedRankMatrices",
    "GeneralLinear",
    "Grassmann",
    "Grid",
    "Hurwitz",
    "Interval",
    "Isometric",
    "KSparse",
    "KroneckerProducts",
    "LowRankMatrices",
    "LowRankPlusDiagonalMatrices",
    "LpBall",
    "Matricized",
    "MatrixProducts",
    "NMSparse",
    "NormInterval",
    "Ordered",
    "Orthogonal",
    "OrthogonalKernels",
    "PerBlock",
    "PositiveDeterminant",
    "PositiveSemidefinite",
    "Real",
    "Scaled",
    "ScaledOrthogonal",
    "SchurStable",
    "Shifted",
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
    "Transposed",
    "TriangularMatrices",
    "UnitDisc",
    "Unitary",
    "ZeroSum",
    "from_torch",
    "to_torch",
]
