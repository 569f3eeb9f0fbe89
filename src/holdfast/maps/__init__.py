"""How to get there: parametrizations, by family."""

from .exponential import MatrixExp
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Cayley, Householder, Orthogonal
from .sparse import Mask
from .structured import Skew, Symmetric, Triangular

__all__ = [
    "Cayley",
    "Householder",
    "Mask",
    "MatrixExp",
    "Orthogonal",
    "Skew",
    "SpectralNorm",
    "Symmetric",
    "Triangular",
    "WeightNorm",
]
