"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .combinators import Matricized, Scaled
from .constraint import Constraint
from .convolution import ConvolutionBall, OrthogonalKernels
from .definite import SymmetricPositiveDefinite
from .groups import Orthogonal, SpecialOrthogonal, SpecialUnitary, Unitary
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
from .orthogonal import Grassmann, ScaledOrthogonal, Stiefel
from .simplex import Ordered, Simplex, ZeroSum
from .sparse import KSparse, NMSparse
from .spectral import SpectralBall, SpectralSphere
from .stable import Hurwitz, SchurStable, UnitDisc
from .transport import TransportPolytope

__all__ = [
    "Constraint",
    "ConvolutionBall",
    "GeneralLinear",
    "Grassmann",
    "Grid",
    "Hurwitz",
    "Interval",
    "KSparse",
    "Matricized",
    "NMSparse",
    "Ordered",
    "Orthogonal",
    "OrthogonalKernels",
    "Real",
    "Scaled",
    "ScaledOrthogonal",
    "SchurStable",
    "Simplex",
    "SkewMatrices",
    "Sparse",
    "SpecialOrthogonal",
    "SpecialUnitary",
    "SpectralBall",
    "SpectralSphere",
    "SquareMatrices",
    "Stiefel",
    "SymmetricMatrices",
    "SymmetricPositiveDefinite",
    "TransportPolytope",
    "TriangularMatrices",
    "UnitDisc",
    "Unitary",
    "ZeroSum",
]
