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
from .sparse import Mask, NMSparsity, TopK
from .stable import LRU, Lyapunov, Stein
from .quantize import FakeQuantize
from .simplex import Helmert, IsometricLogRatio, Softmax, StickBreaking
from .sparse import Mask
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal
from .transport import NorthwestCorner, Sinkhorn

__all__ = [
    "LRU",
    "RKO",
    "Cayley",
    "ConvSpectralBound",
    "GradualTopK",
    "Householder",
    "Lyapunov",
    "CumulativeSum",
    "Exponential",
    "FakeQuantize",
    "Helmert",
    "Householder",
    "IsometricLogRatio",
    "Mask",
    "Matricized",
    "MatrixExp",
    "NMSparsity",
    "Orthogonal",
    "Polar",
    "Scaled",
    "NorthwestCorner",
    "Orthogonal",
    "Sigmoid",
    "Sine",
    "Sinkhorn",
    "Skew",
    "Softmax",
    "Softplus",
    "SpectralNorm",
    "Stein",
    "Square",
    "StickBreaking",
    "Symmetric",
    "Tanh",
    "ThinOrthogonal",
    "TopK",
    "Triangular",
    "WeightNorm",
]
