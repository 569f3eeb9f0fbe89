"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here keeps state, changes an argument or knows about modules.
"""

from .cayley import (
    cayley_inverse,
    cayley_signs,
    cayley_transform,
    cayley_transform_lower,
)
from .convolution import (
    conv_norm_bound,
    conv_operator_norm,
)
from .definite import symmetric_exponential, symmetric_logarithm
from .exponential import (
    matrix_exponential,
    skew_exponential,
    skew_exponential_lower,
)
from .householder import diagonal_signs, reflections, reflectors
from .inverse import accretive_inverse, inverse_by_products
from .logarithm import signed_logarithm, skew_logarithm
from .lyapunov_equation import lyapunov
from .magnitudes import (
    cubic_sparsity,
    keep_masked,
    keep_straight_through,
    largest,
    largest_of_groups,
    require_groups,
)
from .matricization import matricize, matricized_shape, tensorize
from .norms import axis, divide, norm_except, rescale
from .orthonormal import complete, orthogonality, polish, positive_qr
from .polar_factor import (
    nearest_rotation,
    polar,
    polar_by_products,
    unit_determinant,
)
from .power import power_iteration, rayleigh
from .precision import double, full_precision
from .stability import (
    continuous_lyapunov,
    decaying_exponentials,
    decaying_exponentials_inverse,
    decaying_powers,
    decaying_powers_inverse,
    discrete_lyapunov,
)
from .stiefel_exponential import (
    thin_exponential,
    thin_exponential_at,
    thin_exponential_lower,
    thin_logarithm,
)
from .structure import (
    lower_skew,
    positive_signs,
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
    "cayley_inverse",
    "cayley_signs",
    "cayley_transform",
    "cayley_transform_lower",
    "complete",
    "continuous_lyapunov",
    "conv_norm_bound",
    "conv_operator_norm",
    "cubic_sparsity",
    "decaying_exponentials",
    "decaying_exponentials_inverse",
    "decaying_powers",
    "decaying_powers_inverse",
    "diagonal_signs",
    "discrete_lyapunov",
    "divide",
    "double",
    "full_precision",
    "inverse_by_products",
    "keep_masked",
    "keep_straight_through",
    "largest",
    "largest_of_groups",
    "lower_skew",
    "lyapunov",
    "matricize",
    "matricized_shape",
    "matrix_exponential",
    "nearest_rotation",
    "norm_except",
    "orthogonality",
    "polar",
    "polar_by_products",
    "polish",
    "positive_qr",
    "positive_signs",
    "power_iteration",
    "rayleigh",
    "reflections",
    "reflectors",
    "require_groups",
    "require_matrix",
    "require_square",
    "rescale",
    "signed_logarithm",
    "skew",
    "skew_exponential",
    "skew_exponential_lower",
    "skew_logarithm",
    "symmetric",
    "symmetric_exponential",
    "symmetric_logarithm",
    "tall",
    "tensorize",
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
    "tolerance",
    "traceless",
    "turned_like",
    "unit_determinant",
]
