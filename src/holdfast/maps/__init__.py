"""How to get there: parametrizations, by family."""

from .cayley import Cayley
from .exponential import MatrixExp
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Orthogonal
from .sparse import Mask
from .specs import from_spec
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal

__all__ = [
    "Cayley",
    "Householder",
    "Mask",
    "MatrixExp",
    "Orthogonal",
    "Skew",
    "SpectralNorm",
    "Symmetric",
    "ThinOrthogonal",
    "Triangular",
    "WeightNorm",
    "from_spec",
]
