"""How to get there: parametrizations, by family."""

from .cayley import Cayley
from .exponential import MatrixExp
from .gradual import GradualTopK
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Orthogonal
from .sparse import Mask, NMSparsity, TopK
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal

__all__ = [
    "Cayley",
    "GradualTopK",
    "Householder",
    "Mask",
    "MatrixExp",
    "NMSparsity",
    "Orthogonal",
    "Skew",
    "SpectralNorm",
    "Symmetric",
    "ThinOrthogonal",
    "TopK",
    "Triangular",
    "WeightNorm",
]
