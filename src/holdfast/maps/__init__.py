"""How to get there: parametrizations, by family."""

from .bounded import Sigmoid, Sine, Tanh
from .cayley import Cayley
from .combinators import Matricized, Scaled
from .convolution import RKO, ConvSpectralBound
from .exponential import MatrixExp
from .gradual import GradualTopK
from .half_line import Exponential, Softplus, Square
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .order import CumulativeSum
from .orthogonal import Orthogonal
from .polar import Polar
from .quantize import FakeQuantize
from .simplex import Helmert, IsometricLogRatio, Softmax, StickBreaking
from .sparse import Mask, NMSparsity, TopK
from .stable import LRU, Lyapunov, Stein
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal
from .transport import NorthwestCorner, Sinkhorn

__all__ = [
    "LRU",
    "RKO",
    "Cayley",
    "ConvSpectralBound",
    "CumulativeSum",
    "Exponential",
    "FakeQuantize",
    "GradualTopK",
    "Helmert",
    "Householder",
    "IsometricLogRatio",
    "Lyapunov",
    "Mask",
    "Matricized",
    "MatrixExp",
    "NMSparsity",
    "NorthwestCorner",
    "Orthogonal",
    "Polar",
    "Scaled",
    "Sigmoid",
    "Sine",
    "Sinkhorn",
    "Skew",
    "Softmax",
    "Softplus",
    "SpectralNorm",
    "Square",
    "Stein",
    "StickBreaking",
    "Symmetric",
    "Tanh",
    "ThinOrthogonal",
    "TopK",
    "Triangular",
    "WeightNorm",
]
