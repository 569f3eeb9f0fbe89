"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here keeps state, changes an argument or knows about modules.
"""

from .blocks import block_diagonal, diagonal_blocks, kronecker, nearest_kronecker
from .cayley import cayley_inverse, cayley_signs, cayley_transform
from .definite import symmetric_exponential, symmetric_logarithm
from .exponential import matrix_exponential, skew_exponential
from .householder import diagonal_signs, reflections, reflectors
from .inverse import accretive_inverse, inverse_by_products
from .logarithm import signed_logarithm, skew_logarithm
from .lyapunov_equation import lyapunov
from .norms import axis, divide, norm_except, rescale
from .orthonormal import complete, orthogonality, polish, positive_qr
from .polar_factor import polar, polar_by_products
from .power import matricize, power_iteration, rayleigh
from .precision import double, full_precision
from .shifts import circulant, diagonal_means, diagonal_sums, toeplitz, wrapped_means
from .stiefel_exponential import (
    thin_exponential,
    thin_exponential_at,
    thin_exponential_lower,
    thin_logarithm,
)
from .structure import (
    lower_skew,
    positive_signs,
    rectangular_diagonal,
    require_matrix,
    require_square,
    skew,
    symmetric,
    tall,
    traceless,
    turned_like,
)
from .thin import thin_cayley, thin_cayley_at, thin_cayley_lower
from .thin_coordinates import (
    thin_cayley_inverse,
    thin_cayley_inverse_at,
    thin_cayley_lower_inverse,
)
from .tolerances import tolerance

__all__ = [
    "accretive_inverse",
    "axis",
    "block_diagonal",
    "cayley_inverse",
    "cayley_signs",
    "cayley_transform",
    "circulant",
    "complete",
    "diagonal_blocks",
    "diagonal_means",
    "diagonal_signs",
    "diagonal_sums",
    "divide",
    "double",
    "full_precision",
    "inverse_by_products",
    "kronecker",
    "lower_skew",
    "lyapunov",
    "matricize",
    "matrix_exponential",
    "nearest_kronecker",
    "norm_except",
    "orthogonality",
    "polar",
    "polar_by_products",
    "polish",
    "positive_qr",
    "positive_signs",
    "power_iteration",
    "rayleigh",
    "rectangular_diagonal",
    "reflections",
    "reflectors",
    "require_matrix",
    "require_square",
    "rescale",
    "signed_logarithm",
    "skew",
    "skew_exponential",
    "skew_logarithm",
    "symmetric",
    "symmetric_exponential",
    "symmetric_logarithm",
    "tall",
    "thin_cayley",
    "thin_cayley_at",
    "thin_cayley_inverse",
    "thin_cayley_inverse_at",
    "thin_cayley_lower",
    "thin_cayley_lower_inverse",
    "thin_exponential",
    "thin_exponential_at",
    "thin_exponential_lower",
    "thin_logarithm",
    "toeplitz",
    "tolerance",
    "traceless",
    "turned_like",
    "wrapped_means",
]
