"""How to get there: parametrizations, by family."""

from .block import BlockDiagonal, Kronecker
from .cayley import Cayley
from .exponential import MatrixExp
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Orthogonal
from .shift import Circulant, Toeplitz
from .sparse import Mask
from .structured import Banded, Diagonal, Skew, Symmetric, Traceless, Triangular
from .thin import ThinOrthogonal

__all__ = [
    "Banded",
    "BlockDiagonal",
    "Cayley",
    "Circulant",
    "Diagonal",
    "Householder",
    "Kronecker",
    "Mask",
    "MatrixExp",
    "Orthogonal",
    "Skew",
    "SpectralNorm",
    "Symmetric",
    "ThinOrthogonal",
    "Toeplitz",
    "Traceless",
    "Triangular",
    "WeightNorm",
]
