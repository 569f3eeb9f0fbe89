"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .constraint import Constraint
from .convolution import ConvolutionBall, OrthogonalKernels
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
from .stable import Hurwitz, SchurStable, UnitDisc

__all__ = [
    "Constraint",
    "ConvolutionBall",
    "GeneralLinear",
    "Hurwitz",
    "KSparse",
    "NMSparse",
    "OrthogonalKernels",
    "Real",
    "SchurStable",
    "SkewMatrices",
    "Sparse",
    "SpectralBall",
    "SpectralSphere",
    "SquareMatrices",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "TriangularMatrices",
    "UnitDisc",
]
