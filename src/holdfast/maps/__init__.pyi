"""How to get there: parametrizations, by family."""

from .ball import ClipNorm, RadialSigmoid
from .block import BlockDiagonal, Kronecker
from .bounded import Sigmoid, Sine, Tanh
from .cayley import Cayley
from .chain import Chain
from .combinators import Cast, Matricized, Scaled, Transposed
from .convolution import RKO, ConvSpectralBound
from .correlation import NormalizedCholesky, PartialCorrelations
from .definite import Cholesky, Gram
from .delta import Delta
from .distributions import FromTransform, from_torch, to_torch
from .exponential import MatrixExp
from .factor_model import LowRankPlusDiagonal
from .gradient_flow import Frozen, StraightThrough
from .gradual import GradualTopK
from .grassmann import Horizontal
from .half_line import Exponential, Softplus, Square
from .householder import Householder
from .invertible import PLU, InvertibleSVD
from .lora import DoRA, LoRA
from .low_rank import FixedRank, LowRank
from .norm import SpectralNorm, WeightNorm
from .oft import OFT
from .order import CumulativeSum
from .orthogonal import Orthogonal
from .per_block import PerBlock
from .polar import Polar
from .quantize import FakeQuantize
from .several import Concatenated, Product
from .shift import Circulant, Toeplitz
from .simplex import Helmert, IsometricLogRatio, Softmax, StickBreaking
from .singular_values import BoundedSVD, SigmaReparam, SpectralBound
from .sparse import Mask, NMSparsity, TopK
from .specs import from_spec
from .spectrum import SpectralLogistic, SpectralSoftplus
from .sphere import Normalize, SphereExp, Standardize
from .stable import LRU, Lyapunov, Stein
from .structured import Banded, Diagonal, Skew, Symmetric, Traceless, Triangular
from .thin import ThinOrthogonal
from .transport import NorthwestCorner, Sinkhorn

__all__ = [
    "LRU",
    "OFT",
    "PLU",
    "RKO",
    "Banded",
    "BlockDiagonal",
    "BoundedSVD",
    "Cast",
    "Cayley",
    "Chain",
    "Cholesky",
    "Circulant",
    "ClipNorm",
    "Concatenated",
    "ConvSpectralBound",
    "CumulativeSum",
    "Delta",
    "Diagonal",
    "DoRA",
    "Exponential",
    "FakeQuantize",
    "FixedRank",
    "FromTransform",
    "Frozen",
    "GradualTopK",
    "Gram",
    "Helmert",
    "Horizontal",
    "Householder",
    "InvertibleSVD",
    "IsometricLogRatio",
    "Kronecker",
    "LoRA",
    "LowRank",
    "LowRankPlusDiagonal",
    "Lyapunov",
    "Mask",
    "Matricized",
    "MatrixExp",
    "NMSparsity",
    "Normalize",
    "NormalizedCholesky",
    "NorthwestCorner",
    "Orthogonal",
    "PartialCorrelations",
    "PerBlock",
    "Polar",
    "Product",
    "RadialSigmoid",
    "Scaled",
    "SigmaReparam",
    "Sigmoid",
    "Sine",
    "Sinkhorn",
    "Skew",
    "Softmax",
    "Softplus",
    "SpectralBound",
    "SpectralLogistic",
    "SpectralNorm",
    "SpectralSoftplus",
    "SphereExp",
    "Square",
    "Standardize",
    "Stein",
    "StickBreaking",
    "StraightThrough",
    "Symmetric",
    "Tanh",
    "ThinOrthogonal",
    "Toeplitz",
    "TopK",
    "Traceless",
    "Transposed",
    "Triangular",
    "WeightNorm",
    "from_spec",
    "from_torch",
    "to_torch",
]
