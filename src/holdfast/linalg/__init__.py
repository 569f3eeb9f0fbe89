"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here keeps state, changes an argument or knows about modules.
"""

from .cayley import cayley_inverse, cayley_signs, cayley_transform
from .exponential import matrix_exponential, signed_logarithm, symmetric_logarithm
from .householder import diagonal_signs, reflections, reflectors
from .norms import axis, divide, norm_except, rescale
from .orthonormal import complete, orthogonality, polish, positive_qr
from .polar import polar
from .power import matricize, power_iteration, rayleigh
from .precision import double, full_precision
from .structure import require_square, skew, symmetric
from .tolerances import tolerance

__all__ = [
    "axis",
    "cayley_inverse",
    "cayley_signs",
    "cayley_transform",
    "complete",
    "diagonal_signs",
    "divide",
    "double",
    "full_precision",
    "matricize",
    "matrix_exponential",
    "norm_except",
    "orthogonality",
    "polar",
    "polish",
    "positive_qr",
    "power_iteration",
    "rayleigh",
    "reflections",
    "reflectors",
    "require_square",
    "rescale",
    "signed_logarithm",
    "skew",
    "symmetric",
    "symmetric_logarithm",
    "tolerance",
]
