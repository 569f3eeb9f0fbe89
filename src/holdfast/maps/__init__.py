"""How to get there: parametrizations, by family."""

from .cayley import Cayley
from .combinators import Matricized, Scaled
from .exponential import MatrixExp
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Orthogonal
from .polar import Polar
from .sparse import Mask
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal

__all__ = [
    "Cayley",
    "Householder",
    "Mask",
    "Matricized",
    "MatrixExp",
    "Orthogonal",
    "Polar",
    "Scaled",
    "Skew",
    "SpectralNorm",
    "Symmetric",
    "ThinOrthogonal",
    "Triangular",
    "WeightNorm",
]
