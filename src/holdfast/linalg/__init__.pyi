"""The mathematics: pure functions of tensors, with batches in the leading dimensions.

Nothing here keeps state, changes an argument or knows about modules.
"""

from .balls import ball_projection, ball_sample
from .blocks import block_diagonal, diagonal_blocks, kronecker, nearest_kronecker
from .cayley import (
    cayley_inverse,
    cayley_signs,
    cayley_transform,
    cayley_transform_lower,
)
from .convolution import conv_norm_bound, conv_operator_norm
from .correlation import (
    normalized_factor,
    partial_correlation_factor,
    partial_correlations,
)
from .definite import symmetric_exponential, symmetric_logarithm
from .divided import first_differences, second_differences
from .eigenvalues import (
    eigenvalue_function,
    symmetric_logistic,
    symmetric_softplus,
)
from .entrywise import softplus, softplus_inverse
from .exponential import (
    matrix_exponential,
    skew_exponential,
    skew_exponential_lower,
)
from .factor_model import low_rank_plus_diagonal
from .factoring import (
    factor_shapes,
    middle_factor,
    orthonormal_factors,
    product_of,
    spectral_split,
)
from .gram_matrix import (
    gram,
    lower_trapezoid,
    permutation_of,
    permuted_rows,
    semidefinite_factor,
    triangular_factor,
)
from .horizontal import (
    horizontal_cayley_at,
    horizontal_exponential_at,
    horizontal_slope,
)
from .householder import diagonal_signs, reflections, reflectors
from .inverse import accretive_inverse, inverse_by_products
from .invertible_factors import (
    log_size,
    pivots,
    plu,
    plu_inverse,
    singular_factors,
    size_coordinate,
    with_unit_product,
)
from .logarithm import signed_logarithm, skew_logarithm
from .low_rank import (
    balanced_factors,
    nearest_of_rank,
    require_rank,
    rounding_norm,
    row_multiples,
    row_norms,
    truncated_svd,
)
from .lyapunov_equation import lyapunov
from .magnitudes import (
    cubic_sparsity,
    keep_masked,
    keep_straight_through,
    largest,
    largest_of_groups,
    require_groups,
)
from .matricization import (
    join_blocks,
    matricize,
    matricized_shape,
    stack_blocks,
    stacked_shape,
    tensorize,
)
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
from .rays import into_ball, into_ball_inverse, normalized, slice_norm
from .shifts import circulant, diagonal_means, diagonal_sums, toeplitz, wrapped_means
from .singular_values import (
    interval_coordinate,
    interval_factors,
    largest_singular_value,
)
from .sphere import sphere_exponential
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
from .turned_blocks import (
    column_blocks,
    lower_triangle_size,
    nearest_turn,
    packed_lower,
    turn_columns,
    unpacked_lower,
)

__all__ = [
    "accretive_inverse",
    "axis",
    "balanced_factors",
    "ball_projection",
    "ball_sample",
    "block_diagonal",
    "cayley_inverse",
    "cayley_signs",
    "cayley_transform",
    "cayley_transform_lower",
    "circulant",
    "column_blocks",
    "complete",
    "continuous_lyapunov",
    "conv_norm_bound",
    "conv_operator_norm",
    "cubic_sparsity",
    "decaying_exponentials",
    "decaying_exponentials_inverse",
    "decaying_powers",
    "decaying_powers_inverse",
    "diagonal_blocks",
    "diagonal_means",
    "diagonal_signs",
    "diagonal_sums",
    "discrete_lyapunov",
    "divide",
    "double",
    "eigenvalue_function",
    "factor_shapes",
    "first_differences",
    "full_precision",
    "gram",
    "horizontal_cayley_at",
    "horizontal_exponential_at",
    "horizontal_slope",
    "interval_coordinate",
    "interval_factors",
    "into_ball",
    "into_ball_inverse",
    "inverse_by_products",
    "join_blocks",
    "keep_masked",
    "keep_straight_through",
    "kronecker",
    "largest",
    "largest_of_groups",
    "largest_singular_value",
    "log_size",
    "low_rank_plus_diagonal",
    "lower_skew",
    "lower_trapezoid",
    "lower_triangle_size",
    "lyapunov",
    "matricize",
    "matricized_shape",
    "matrix_exponential",
    "middle_factor",
    "nearest_kronecker",
    "nearest_of_rank",
    "nearest_rotation",
    "nearest_turn",
    "norm_except",
    "normalized",
    "normalized_factor",
    "orthogonality",
    "orthonormal_factors",
    "packed_lower",
    "partial_correlation_factor",
    "partial_correlations",
    "permutation_of",
    "permuted_rows",
    "pivots",
    "plu",
    "plu_inverse",
    "polar",
    "polar_by_products",
    "polish",
    "positive_qr",
    "positive_signs",
    "power_iteration",
    "product_of",
    "rayleigh",
    "rectangular_diagonal",
    "reflections",
    "reflectors",
    "require_groups",
    "require_matrix",
    "require_rank",
    "require_square",
    "rescale",
    "rounding_norm",
    "row_multiples",
    "row_norms",
    "second_differences",
    "semidefinite_factor",
    "signed_logarithm",
    "singular_factors",
    "size_coordinate",
    "skew",
    "skew_exponential",
    "skew_exponential_lower",
    "skew_logarithm",
    "slice_norm",
    "softplus",
    "softplus_inverse",
    "spectral_split",
    "sphere_exponential",
    "stack_blocks",
    "stacked_shape",
    "symmetric",
    "symmetric_exponential",
    "symmetric_logarithm",
    "symmetric_logistic",
    "symmetric_softplus",
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
    "toeplitz",
    "tolerance",
    "traceless",
    "triangular_factor",
    "truncated_svd",
    "turn_columns",
    "turned_like",
    "unit_determinant",
    "unpacked_lower",
    "with_unit_product",
    "wrapped_means",
]
