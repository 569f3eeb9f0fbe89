"""How to get there: parametrizations, by family."""

from .bounded import Sigmoid, Sine, Tanh
from .cayley import Cayley
from .exponential import MatrixExp
from .half_line import Exponential, Softplus, Square
from .householder import Householder
from .norm import SpectralNorm, WeightNorm
from .order import CumulativeSum
from .orthogonal import Orthogonal
from .quantize import FakeQuantize
from .simplex import Helmert, IsometricLogRatio, Softmax, StickBreaking
from .sparse import Mask
from .structured import Skew, Symmetric, Triangular
from .thin import ThinOrthogonal
from .transport import NorthwestCorner, Sinkhorn

__all__ = [
    "Cayley",
    "CumulativeSum",
    "Exponential",
    "FakeQuantize",
    "Helmert",
    "Householder",
    "IsometricLogRatio",
    "Mask",
    "MatrixExp",
    "NorthwestCorner",
    "Orthogonal",
    "Sigmoid",
    "Sine",
    "Sinkhorn",
    "Skew",
    "Softmax",
    "Softplus",
    "SpectralNorm",
    "Square",
    "StickBreaking",
    "Symmetric",
    "Tanh",
    "ThinOrthogonal",
    "Triangular",
    "WeightNorm",
]
