"""How to get there: parametrizations, by family."""

from .block import BlockDiagonal, Kronecker
from .bounded import Sigmoid, Sine, Tanh
from .cayley import Cayley
from .combinators import Matricized, Scaled
from .convolution import RKO, ConvSpectralBound
from .correlation import NormalizedCholesky, PartialCorrelations
from .definite import Cholesky, Gram
from .exponential import MatrixExp
from .factor_model import LowRankPlusDiagonal
from .gradual import GradualTopK
from .half_line import Exponential, Softplus, Square
from .householder import Householder
from .invertible import PLU, InvertibleSVD
from .norm import SpectralNorm, WeightNorm
from .order import CumulativeSum
from .orthogonal import Orthogonal
from .polar import Polar
from .quantize import FakeQuantize
from .shift import Circulant, Toeplitz
from .simplex import Helmert, IsometricLogRatio, Softmax, StickBreaking
from .sparse import Mask, NMSparsity, TopK
from .specs import from_spec
from .spectrum import SpectralLogistic, SpectralSoftplus
from .stable import LRU, Lyapunov, Stein
from .structured import Banded, Diagonal, Skew, Symmetric, Traceless, Triangular
from .thin import ThinOrthogonal
from .transport import NorthwestCorner, Sinkhorn

__all__ = [
    "LRU",
    "PLU",
    "RKO",
    "Banded",
    "BlockDiagonal",
    "Cayley",
    "Cholesky",
    "Circulant",
    "ConvSpectralBound",
    "CumulativeSum",
    "Diagonal",
    "Exponential",
    "FakeQuantize",
    "GradualTopK",
    "Gram",
    "Helmert",
    "Householder",
    "InvertibleSVD",
    "IsometricLogRatio",
    "Kronecker",
    "LowRankPlusDiagonal",
    "Lyapunov",
    "Mask",
    "Matricized",
    "MatrixExp",
    "NMSparsity",
    "NormalizedCholesky",
    "NorthwestCorner",
    "Orthogonal",
    "PartialCorrelations",
    "Polar",
    "Scaled",
    "Sigmoid",
    "Sine",
    "Sinkhorn",
    "Skew",
    "Softmax",
    "Softplus",
    "SpectralLogistic",
    "SpectralNorm",
    "SpectralSoftplus",
    "Square",
    "Stein",
    "StickBreaking",
    "Symmetric",
    "Tanh",
    "ThinOrthogonal",
    "Toeplitz",
    "TopK",
    "Traceless",
    "Triangular",
    "WeightNorm",
    "from_spec",
]
