"""How to get there: parametrizations, by family."""

from .cayley import Cayley
from .combinators import Matricized, Scaled
from .convolution import RKO, ConvSpectralBound
from .exponential import MatrixExp
from .gradual import GradualTopK
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .orthogonal import Orthogonal
from .polar import Polar
from .sparse import Mask, NMSparsity, TopK
from .stable import LRU, Lyapunov, Stein
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal

__all__ = [
    "LRU",
    "RKO",
    "Cayley",
    "ConvSpectralBound",
    "GradualTopK",
    "Householder",
    "Lyapunov",
    "Mask",
    "Matricized",
    "MatrixExp",
    "NMSparsity",
    "Orthogonal",
    "Polar",
    "Scaled",
    "Skew",
    "SpectralNorm",
    "Stein",
    "Symmetric",
    "ThinOrthogonal",
    "TopK",
    "Triangular",
    "WeightNorm",
]
