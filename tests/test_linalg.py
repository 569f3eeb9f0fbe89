"""The mathematics against other implementations: NumPy, SciPy, torch.linalg."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close

from holdfast import errors, linalg

KINDS = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


def normal(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def skew_of(n, size, dtype=torch.float64):
    """Return a random skew matrix of a given spectral norm."""
    A = linalg.skew(normal(n, n, dtype=dtype))
    return A * (size / torch.linalg.matrix_norm(A, 2))


def haar(*shape, dtype=torch.float64):
    return linalg.positive_qr(normal(*shape, dtype=dtype))


def reflection(n):
    v = normal(n, 1)
    return torch.eye(n, dtype=v.dtype) - 2 * v @ v.mT / (v * v).sum()


# ---- Structure ----------------------------------------------------------------------


@KINDS
def test_symmetric_and_skew_read_the_upper_triangle_only(dtype):
    X = normal(2, 4, 4, dtype=dtype)
    Y = X + normal(2, 4, 4, dtype=dtype).tril(-1)
    S, A = linalg.symmetric(X), linalg.skew(X)
    assert torch.equal(S, S.mH)
    assert torch.equal(A, -A.mH)
    assert torch.equal(S.triu(1), X.triu(1))
    assert torch.equal(A.triu(1), X.triu(1))
    assert torch.equal(S, linalg.symmetric(Y))
    assert torch.equal(A, linalg.skew(Y))


def test_the_diagonal_is_real_for_hermitian_and_imaginary_for_skew_hermitian():
    X = normal(3, 3, dtype=torch.complex128)
    assert_close(linalg.symmetric(X).diagonal(), X.diagonal().real.to(X.dtype))
    assert_close(linalg.skew(X).diagonal(), 1j * X.diagonal().imag)


@pytest.mark.parametrize("shape", [(2, 3), (3,), ()])
@pytest.mark.parametrize(
    "function",
    [
        linalg.symmetric,
        linalg.skew,
        linalg.cayley_transform,
        linalg.cayley_signs,
        linalg.matrix_exponential,
        linalg.symmetric_logarithm,
    ],
)
def test_what_is_not_square_is_refused(function, shape):
    with pytest.raises(errors.InvalidTensorError, match=r"Expected a square matrix"):
        function(torch.ones(shape))


# ---- Cayley -------------------------------------------------------------------------


@KINDS
def test_the_cayley_transform_is_the_formula(dtype):
    A = skew_of(6, 5.0, dtype)
    identity = np.eye(6)
    expected = np.linalg.inv(identity - A.numpy() / 2) @ (identity + A.numpy() / 2)
    assert_close(linalg.cayley_transform(A), torch.from_numpy(expected))
    assert linalg.orthogonality(linalg.cayley_transform(A)) < 1e-14


@KINDS
@pytest.mark.parametrize("n", [1, 2, 5, 32])
def test_T9_signs_keep_the_elimination_away_from_zero(n, dtype):
    for W in (haar(4, n, n, dtype=dtype), -torch.eye(n, dtype=dtype).expand(4, n, n)):
        signs = linalg.cayley_signs(W)
        assert set(signs.flatten().tolist()) <= {-1, 1}
        L, U = unpivoted(W + torch.diag_embed(signs.to(W.dtype)))
        assert bool((U.diagonal(dim1=-2, dim2=-1).abs() >= 1).all())
        assert_close(L @ U, W + torch.diag_embed(signs.to(W.dtype)))


def unpivoted(M):
    """Return L and U of M = L U without pivoting."""
    n = M.shape[-1]
    L, U = torch.eye(n, dtype=M.dtype).repeat(*M.shape[:-2], 1, 1), M.clone()
    for j in range(n):
        L[..., j + 1 :, j] = U[..., j + 1 :, j] / U[..., j, j].unsqueeze(-1)
        U[..., j + 1 :, :] -= L[..., j + 1 :, j, None] * U[..., j, None, :]
    return L, U


@KINDS
@pytest.mark.parametrize("n", [1, 2, 3, 17, 64])
def test_T9_the_cayley_inverse_is_exact_on_the_orthogonal_group(n, dtype):
    W = haar(8, n, n, dtype=dtype)
    A, signs = linalg.cayley_inverse(W)
    assert torch.equal(A, -A.mH)
    back = linalg.cayley_transform(A) * signs.unsqueeze(-2)
    assert_close(back, W, rtol=0, atol=1e-12)


def test_the_cayley_inverse_keeps_signs_that_serve():
    A = skew_of(5, 3.0)
    W = linalg.cayley_transform(A)
    assert -1 in linalg.cayley_inverse(-W)[1]
    again, signs = linalg.cayley_inverse(W, torch.ones(5, dtype=torch.int8))
    assert signs.tolist() == [1] * 5
    assert_close(again, A)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_cayley_inverse_renews_signs_that_do_not_serve(n):
    """U + I is singular for a reflection; its skew part may well be finite."""
    for W in (reflection(n), -torch.eye(n, dtype=torch.float64)):
        A, signs = linalg.cayley_inverse(W, torch.ones(n, dtype=torch.int8))
        assert signs.prod() == torch.linalg.det(W).round()
        assert_close(linalg.cayley_transform(A) * signs, W)


def test_the_matrices_of_a_batch_get_signs_of_their_own():
    rotation = linalg.cayley_transform(skew_of(4, 1.0))
    W = torch.stack([rotation, reflection(4)])
    _, signs = linalg.cayley_inverse(W, torch.ones(2, 4, dtype=torch.int8))
    assert signs[0].tolist() == [1] * 4
    assert signs[1].prod() == -1


# ---- Exponential --------------------------------------------------------------------

# Norms around those for which torch's polynomial of degree 8 is wrong
# in double (up to 0.05) and in single precision (up to 0.6), and far from it
SIZES = [0.0, 1e-3, 0.03, 0.045, 0.06, 0.3, 0.5, 1.0, 3.0, 30.0]


@pytest.mark.parametrize("size", SIZES)
def test_the_exponential_is_scipys_also_for_a_single_matrix(size):
    for A in (linalg.skew(normal(6, 6)), linalg.symmetric(normal(6, 6))):
        A = A * (size / torch.linalg.matrix_norm(A, 1))
        expected = torch.from_numpy(scipy.linalg.expm(A.numpy()))
        rounding = (1e-12 if size > 1 else 2e-15) * max(
            1.0, float(expected.abs().max())
        )
        for value in (
            linalg.matrix_exponential(A),
            linalg.matrix_exponential(A[None])[0],
            linalg.matrix_exponential(torch.stack([A, A]))[1],
        ):
            assert_close(value, expected, rtol=0, atol=rounding)
        single = linalg.matrix_exponential(A.float())
        expected = torch.from_numpy(scipy.linalg.expm(A.float().double().numpy()))
        assert_close(single, expected.float(), rtol=1e-6, atol=1e-7)


def test_the_comparison_would_see_a_polynomial_of_order_four():
    A = skew_of(6, 0.03)
    taylor = sum(torch.matrix_power(A, j) / math.factorial(j) for j in range(5))
    expected = torch.from_numpy(scipy.linalg.expm(A.numpy()))
    with pytest.raises(AssertionError):
        assert_close(taylor, expected, rtol=0, atol=2e-15)


def test_the_gradient_of_the_exponential_of_a_single_matrix_is_right():
    A = skew_of(4, 0.3).requires_grad_()
    assert torch.autograd.gradcheck(linalg.matrix_exponential, A)


@KINDS
def test_the_signed_logarithm_is_the_principal_one_near_the_identity(dtype):
    A = skew_of(6, 2.0, dtype)
    W = linalg.matrix_exponential(A)
    again, signs = linalg.signed_logarithm(W, torch.ones(6, dtype=torch.int8))
    assert signs.tolist() == [1] * 6
    assert_close(again, A)
    expected = scipy.linalg.logm(W.numpy())
    assert_close(again, torch.from_numpy(expected).to(dtype))


@KINDS
@pytest.mark.parametrize("n", [1, 2, 3, 17, 64])
def test_T9_the_signed_logarithm_is_exact_on_the_orthogonal_group(n, dtype):
    W = haar(8, n, n, dtype=dtype)
    A, signs = linalg.signed_logarithm(W)
    assert torch.equal(A, -A.mH)
    assert bool((torch.linalg.matrix_norm(A, 2) < torch.pi).all())
    back = linalg.matrix_exponential(A) * signs.unsqueeze(-2)
    assert_close(back, W, rtol=0, atol=1e-12)


@KINDS
def test_the_symmetric_logarithm_is_scipys(dtype):
    G = normal(5, 5, dtype=dtype)
    W = G @ G.mH + torch.eye(5, dtype=dtype)
    S = linalg.symmetric_logarithm(W)
    assert torch.equal(S, S.mH)
    assert_close(S, torch.from_numpy(scipy.linalg.logm(W.numpy())).to(dtype))


def test_the_symmetric_logarithm_lifts_eigenvalues_to_the_floor():
    W = torch.diag(torch.tensor([1.0, -1e-9], dtype=torch.float64))
    S = linalg.symmetric_logarithm(W, floor=1e-8)
    assert_close(S.diagonal().exp(), torch.tensor([1.0, 1e-8], dtype=W.dtype))


# ---- Householder --------------------------------------------------------------------

TALL = [(4, 4), (6, 3), (5, 1), (1, 1), (2, 6, 4), (0, 4, 2)]


@pytest.mark.parametrize("shape", TALL)
def test_reflections_are_torchs_householder_product(shape):
    X = normal(*shape)
    tau = 2 / (1 + X.tril(-1).square().sum(-2))
    expected = torch.linalg.householder_product(X, tau)
    assert_close(linalg.reflections(X), expected)


@pytest.mark.parametrize("name", ["one row", "two rows"])
def test_reflections_of_nearly_parallel_vectors_stay_orthonormal(name):
    X = torch.zeros(256, 256)
    if name == "one row":
        X[-1] = 10.0
    else:
        X[-2:] = 1.0
    Q = linalg.reflections(X).double()
    off = torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(256), 2)
    assert float(off) < 2e-6
    exact = linalg.reflections(X.double())
    assert_close(Q, exact, rtol=0, atol=3e-4)


@pytest.mark.parametrize("shape", TALL)
def test_reflections_do_not_read_the_upper_triangle(shape):
    X = normal(*shape)
    assert torch.equal(linalg.reflections(X), linalg.reflections(X.tril(-1)))


@pytest.mark.parametrize("shape", TALL)
def test_reflectors_invert_reflections(shape):
    W = haar(*shape)
    X, signs = linalg.reflectors(W)
    assert_close(linalg.reflections(X) * signs.unsqueeze(-2), W, rtol=0, atol=1e-13)
    assert torch.equal(X.diagonal(dim1=-2, dim2=-1), signs.to(X.dtype))
    assert not X.triu(1).any()


@pytest.mark.parametrize(
    "W",
    [
        torch.eye(4),
        -torch.eye(4),
        torch.eye(5)[:, [3, 0]],
        torch.diag(torch.tensor([1.0, -1.0, 1.0])),
        torch.eye(1),
    ],
    ids=lambda W: str(tuple(W.shape)),
)
def test_reflectors_invert_where_lapack_reflects_nothing(W):
    X, signs = linalg.reflectors(W.double())
    assert_close(linalg.reflections(X) * signs, W.double())


def test_reflectors_make_a_matrix_orthonormal_by_qr():
    W = normal(5, 3)
    X, signs = linalg.reflectors(W)
    assert_close(linalg.reflections(X) * signs, linalg.positive_qr(W))
    deficient, signs = linalg.reflectors(torch.zeros(4, 2))
    assert linalg.orthogonality(linalg.reflections(deficient) * signs) < 1e-6


# ---- Orthonormal --------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("shape", TALL)
def test_positive_qr_has_a_positive_triangle(shape, dtype):
    W = normal(*shape, dtype=dtype)
    Q = linalg.positive_qr(W)
    R = Q.mH @ W
    assert bool((linalg.orthogonality(Q) < 1e-13).all())
    assert_close(R.tril(-1), torch.zeros_like(R), rtol=0, atol=1e-13)
    assert bool((R.diagonal(dim1=-2, dim2=-1).real > 0).all())
    assert_close(Q @ R, W)


def test_positive_qr_of_a_rank_deficient_matrix_is_orthonormal():
    assert linalg.orthogonality(linalg.positive_qr(torch.zeros(4, 3))) < 1e-6
    assert linalg.orthogonality(linalg.positive_qr(torch.ones(4, 3))) < 1e-6


@KINDS
def test_polar_is_scipys(dtype):
    W = normal(5, 3, dtype=dtype)
    assert_close(linalg.polar(W), torch.from_numpy(scipy.linalg.polar(W.numpy())[0]))


@KINDS
def test_polish_goes_to_the_polar_factor(dtype):
    W = haar(6, 4, dtype=dtype) + 1e-4 * normal(6, 4, dtype=dtype)
    assert_close(linalg.polish(W), linalg.polar(W), rtol=0, atol=1e-13)
    assert linalg.orthogonality(W) > 1e-5


@KINDS
@pytest.mark.parametrize("shape", TALL)
def test_complete_adds_the_missing_columns_and_draws_no_numbers(shape, dtype):
    Q = haar(*shape, dtype=dtype)
    state = torch.get_rng_state()
    full = linalg.complete(Q)
    assert torch.equal(torch.get_rng_state(), state)
    assert full.shape == (*shape[:-1], shape[-2])
    assert torch.equal(full[..., : shape[-1]], Q)
    assert bool((linalg.orthogonality(full) < 1e-13).all())
    assert torch.equal(linalg.complete(Q), full)


# ---- Norms --------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, 2, 3, None])
def test_norms_and_rescaling_are_torchs(dim):
    V = normal(3, 4, 2, 5)
    whole = -1 if dim is None else dim
    norms = torch.norm_except_dim(V, 2, whole)
    assert_close(linalg.norm_except(V, dim), norms)
    g = normal(*norms.shape)
    assert_close(linalg.rescale(V, g, dim), torch._weight_norm(V, g, whole))


def test_N3_a_negative_dim_is_the_axis():
    V = normal(3, 4, 2)
    for dim in (-1, -2, -3):
        assert torch.equal(linalg.norm_except(V, dim), linalg.norm_except(V, dim + 3))
    assert linalg.norm_except(V, -1).shape == (1, 1, 2)
    assert torch.equal(linalg.norm_except(V[0, 0], -1), V[0, 0].abs())


@pytest.mark.parametrize("dim", [2, -3])
def test_a_dim_out_of_range_is_an_index_error(dim):
    with pytest.raises(IndexError, match=r"Dimension out of range .*\[-2, 1\]"):
        linalg.norm_except(torch.ones(2, 2), dim)


@KINDS
@pytest.mark.parametrize("dim", [0, 1, None])
def test_N2_values_and_derivatives_are_finite_at_zero(dim, dtype):
    V = normal(3, 3, dtype=dtype)
    V[0], V[:, 1] = 0, 0
    V = V if dim is not None else torch.zeros_like(V)
    V.requires_grad_()
    g = torch.ones_like(linalg.norm_except(V, dim)).requires_grad_()
    value = linalg.rescale(V, g, dim)
    first = torch.autograd.grad(value.abs().pow(2).sum(), (V, g), create_graph=True)
    second = torch.autograd.grad(sum(x.abs().pow(2).sum() for x in first), (V, g))
    for tensor in (value, *first, *second):
        assert bool(torch.isfinite(tensor).all())
    assert not value[0].any() if dim == 0 else True


def test_N2_negative_control_torch_has_nan_there():
    V, g = torch.zeros(2, 2), torch.ones(2, 1)
    assert bool(torch._weight_norm(V, g, 0).isnan().all())


def lengths_of(V, dim):
    return torch.randn_like(linalg.norm_except(V, dim).real).requires_grad_()


@KINDS
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_rescaling_has_all_derivatives_by_kernels_and_without(dim, dtype):
    V = normal(3, 2, 4, dtype=dtype).requires_grad_()
    pair = V, lengths_of(V.detach(), dim)

    def rescaled(V, g):
        return linalg.rescale(V, g, dim)

    assert torch.autograd.gradcheck(
        rescaled, pair, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(rescaled, pair, check_fwd_over_rev=True)


def test_negative_control_what_torch_derives_from_its_kernels_derivative_is_wrong():
    V = normal(3, 4).requires_grad_()
    pair = V, lengths_of(V.detach(), 0)
    assert torch.autograd.gradgradcheck(lambda V, g: linalg.rescale(V, g, 0), pair)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradgradcheck(lambda V, g: torch._weight_norm(V, g, 0), pair)


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e-13, 1e17, 1e19, 1e30])
def test_rescaling_is_right_for_slices_of_any_size(size, dim):
    V = torch.randn(4, 50)
    V = size * (V.mT.contiguous() if dim == 1 else V)
    pair = V.requires_grad_(), lengths_of(V.detach(), dim)
    wide = [x.detach().double().requires_grad_() for x in pair]
    G = torch.randn_like(V)
    value, expected = linalg.rescale(*pair, dim), linalg.rescale(*wide, dim)
    assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    slopes = torch.autograd.grad(value, pair, G)
    expected = torch.autograd.grad(expected, wide, G.double())
    assert_close(slopes[0].double() * size, expected[0] * size, rtol=1e-4, atol=1e-5)
    assert_close(slopes[1].double(), expected[1], rtol=1e-4, atol=1e-5)


def test_negative_control_the_squares_of_torchs_kernel_overflow():
    V, g = torch.full((1, 4), 1e30), torch.ones(1, 1)
    assert_close(linalg.rescale(V, g, 0), torch.full((1, 4), 0.5))
    assert not bool(torch._weight_norm(V, g, 0).any())


@pytest.mark.parametrize("shape", [(3,), (3, 4), (1, 4), (4, 1), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_a_stack_of_tensors_is_rescaled_by_a_stack_of_lengths(shape, dim):
    if dim is not None and not -len(shape) <= dim < len(shape):
        pytest.skip("no such dimension")
    V = torch.randn(5, *shape, requires_grad=True)
    g = torch.stack([linalg.norm_except(v, dim).detach() + 1 for v in V])
    g.requires_grad_()
    expected = torch.stack(
        [linalg.rescale(v, length, dim) for v, length in zip(V, g, strict=True)]
    )
    found = linalg.rescale(V, g, dim)
    assert_close(found, expected)
    G = torch.randn_like(V)
    assert_close(
        torch.autograd.grad(found, (V, g), G), torch.autograd.grad(expected, (V, g), G)
    )


@pytest.mark.parametrize("dim", [0, 1, 2, None])
@pytest.mark.parametrize("size", [1.0, 0.0, 1e30])
def test_a_rescaled_tensor_has_the_same_bits_in_every_grad_mode(size, dim):
    V = torch.randn(5, 3, 4)
    V[0] *= size
    pair = V.requires_grad_(), lengths_of(V.detach(), dim)
    value = linalg.rescale(*pair, dim)
    with torch.no_grad():
        assert torch.equal(linalg.rescale(*pair, dim), value)
    with torch.inference_mode():
        assert torch.equal(linalg.rescale(*pair, dim), value)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(V.detach(), torch.ones_like(V))
        value_of_dual = linalg.rescale(dual, pair[1].detach(), dim)
        assert torch.equal(forward_ad.unpack_dual(value_of_dual).primal, value)
    for i in (0, 1):  # one of the two frozen
        some = [x.detach().requires_grad_(j == i) for j, x in enumerate(pair)]
        alone = linalg.rescale(*some, dim)
        assert torch.equal(alone, value)
        assert torch.equal(
            torch.autograd.grad(alone.sum(), some[i])[0],
            torch.autograd.grad(value.sum(), pair[i], retain_graph=True)[0],
        )


def test_lengths_that_do_not_belong_to_the_slices_never_reach_a_kernel():
    V = torch.randn(3, 3)
    assert_close(linalg.rescale(V, torch.tensor(2.0), 0).norm(dim=1), 2 * torch.ones(3))
    with pytest.raises(RuntimeError, match="expand"):
        linalg.rescale(V, torch.ones(1, 3), 0)
    with pytest.raises(RuntimeError, match="expand"):
        linalg.rescale(V, torch.ones(2, 1), 0)


# ---- Power iteration ----------------------------------------------------------------


@KINDS
def test_power_iteration_finds_the_top_singular_pair(dtype):
    M = normal(6, 4, dtype=dtype)
    u, v = normal(6, dtype=dtype), normal(4, dtype=dtype)
    u, v = linalg.power_iteration(M, u, v, count=300, eps=1e-12)
    U, values, Vh = torch.linalg.svd(M)
    assert_close(linalg.rayleigh(M, u, v), values[0].to(dtype))
    assert_close((U[:, 0].conj() @ u).abs(), torch.tensor(1.0, dtype=torch.float64))
    assert_close((Vh[0] @ v).abs(), torch.tensor(1.0, dtype=torch.float64))


def test_N2_a_zero_matrix_leaves_the_vectors_alone():
    u, v = torch.ones(3) / 3**0.5, torch.ones(2) / 2**0.5
    after = linalg.power_iteration(torch.zeros(3, 2), u, v, count=5, eps=1e-12)
    assert torch.equal(after[0], u)
    assert torch.equal(after[1], v)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_matricize_puts_one_dimension_in_rows(dim):
    W = normal(2, 3, 4)
    M = linalg.matricize(W, dim)
    assert M.shape == (W.shape[dim], W.numel() // W.shape[dim])
    rows = W.movedim(dim, 0)
    for i in range(len(M)):
        assert torch.equal(M[i], rows[i].flatten())


# ---- Precision and tolerance --------------------------------------------------------


FACTORED = {  # what LAPACK has no kernels for in half types
    "cayley_inverse": linalg.skew_exponential,
    "decaying_powers": lambda X: X,
    "decaying_powers_inverse": linalg.decaying_powers,
    "nearest_rotation": lambda X: X,
    "orthonormal_factors": lambda X: X,
    "polar": lambda X: X,
    "positive_qr": lambda X: X,
    "reflectors": lambda X: X,
    "signed_logarithm": linalg.skew_exponential,
    "symmetric_logarithm": lambda X: X @ X.mT + torch.eye(4),
    "triangular_factor": lambda X: X,
    "unit_determinant": linalg.skew_exponential,
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FACTORED)
def test_factors_of_half_types_are_computed_in_float32(name, dtype):
    function = getattr(linalg, name)
    X = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    X = X - X.mT if FACTORED[name] is linalg.skew_exponential else X
    W = FACTORED[name](X / 2).to(dtype)
    mine, wide = function(W), function(W.float())
    if isinstance(wide, torch.Tensor):
        mine, wide = (mine,), (wide,)
    for a, b in zip(mine, wide, strict=True):
        assert a.dtype in (dtype, torch.int8, torch.complex64)
        assert torch.equal(a, b.to(a.dtype))


@linalg.full_precision
def product_and_type(X, Y):
    return X @ Y, torch.zeros((), dtype=X.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_N1_half_types_are_computed_in_float32_and_cast_last(dtype):
    X = torch.full((1, 4096), 1.0, dtype=dtype)
    Y = torch.full((4096, 1), 0.1, dtype=dtype)
    value, zero = product_and_type(X, Y)
    assert value.dtype == zero.dtype == dtype
    assert torch.equal(value, (X.float() @ Y.float()).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_N1_other_types_are_left_alone_and_autocast_is_off(dtype):
    X, Y = normal(3, 3, dtype=dtype), normal(3, 3, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, zero = product_and_type(X, Y)
        assert torch.is_autocast_enabled("cpu")
    assert zero.dtype == dtype
    assert torch.equal(value, X @ Y)


def test_double_is_the_widest_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert linalg.double(torch.zeros(1, dtype=dtype)).dtype == torch.float64
    assert (
        linalg.double(torch.zeros(1, dtype=torch.complex64)).dtype == torch.complex128
    )


def test_a_number_has_the_tolerance_of_a_small_matrix():
    assert linalg.tolerance(torch.tensor(1.0)) == linalg.tolerance(torch.eye(2))


def test_tolerances_grow_with_size_and_with_the_rounding_unit():
    def at(n, dtype):
        return linalg.tolerance(torch.empty(n, 3, dtype=dtype))

    assert at(4, torch.float32) == at(16, torch.float32) < at(64, torch.float32)
    assert at(64, torch.float32) == at(64, torch.complex64)
    assert at(64, torch.float64) < 1e-13 < at(64, torch.float32) < 2e-5
    assert at(64, torch.float32) < at(64, torch.float16) < at(64, torch.bfloat16) < 0.04
    assert at(4096, torch.bfloat16) < 0.04
    assert at(4, torch.int64) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [8, 256])
def test_the_tolerance_accepts_a_rounded_orthogonal_matrix_and_no_random_one(n, dtype):
    Q = haar(n, n).to(dtype)
    limit = linalg.tolerance(Q)
    assert linalg.orthogonality(Q.double()) <= limit
    assert linalg.orthogonality(Q.double() * (1 + 2 * limit)) > limit
    assert linalg.orthogonality(normal(n, n) / n**0.5) > limit
