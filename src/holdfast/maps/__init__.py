"""How to get there: parametrizations, by family."""

from .block import BlockDiagonal, Kronecker
from .cayley import Cayley
from .correlation import NormalizedCholesky, PartialCorrelations
from .definite import Cholesky, Gram
from .exponential import MatrixExp
from .factor_model import LowRankPlusDiagonal
from .householder import Householder
from .invertible import PLU, InvertibleSVD
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Orthogonal
from .shift import Circulant, Toeplitz
from .sparse import Mask
from .spectrum import SpectralLogistic, SpectralSoftplus
from .structured import Banded, Diagonal, Skew, Symmetric, Traceless, Triangular
from .thin import ThinOrthogonal

__all__ = [
    "PLU",
    "Banded",
    "BlockDiagonal",
    "Cayley",
    "Cholesky",
    "Circulant",
    "Diagonal",
    "Gram",
    "Householder",
    "InvertibleSVD",
    "Kronecker",
    "LowRankPlusDiagonal",
    "Mask",
    "MatrixExp",
    "NormalizedCholesky",
    "Orthogonal",
    "PartialCorrelations",
    "Skew",
    "SpectralLogistic",
    "SpectralNorm",
    "SpectralSoftplus",
    "Symmetric",
    "ThinOrthogonal",
    "Toeplitz",
    "Traceless",
    "Triangular",
    "WeightNorm",
]
