"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from .combinators import Matricized, Scaled
from .constraint import Constraint
from .definite import SymmetricPositiveDefinite
from .groups import Orthogonal, SpecialOrthogonal, SpecialUnitary, Unitary
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
from .spectral import SpectralBall, SpectralSphere

__all__ = [
    "Constraint",
    "GeneralLinear",
    "Grassmann",
    "Matricized",
    "Orthogonal",
    "Real",
    "Scaled",
    "ScaledOrthogonal",
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
    "TriangularMatrices",
    "Unitary",
]
