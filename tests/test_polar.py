"""The polar factor, by singular vectors and by products, and what is under it."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from holdfast import linalg, sets
from holdfast.linalg import polar_factor
from holdfast.linalg.lyapunov_equation import bound, lyapunov_by_products
from holdfast.linalg.odd_polynomials import GROWTH, TAIL, sign_schedule
from test_cayley import KINDS, PRECISIONS, differentiable, identity, normal, off

SHAPES = [(1, 1), (3, 3), (4, 1), (5, 3), (2, 6, 2), (0, 4, 2)]


def conditioned(n, k, condition, dtype=torch.float64, profile=None):
    """Return a matrix of norm one and a condition number, and its polar factor."""
    U, V = (linalg.positive_qr(normal(m, k, dtype=dtype)) for m in (n, k))
    exponents = (PROFILES["evenly"] if profile is None else profile)(k)
    return (U * condition**-exponents) @ V.mH, U @ V.mH


@KINDS
@pytest.mark.parametrize("function", [linalg.polar, linalg.polar_by_products])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_polar_factor_is_scipys(shape, function, dtype):
    W = normal(*shape, dtype=dtype)
    Q = function(W)
    assert Q.shape == W.shape
    for w, q in zip(
        W.reshape(-1, *shape[-2:]), Q.reshape(-1, *shape[-2:]), strict=True
    ):
        expected = torch.from_numpy(scipy.linalg.polar(w.numpy())[0])
        assert_close(q, expected, rtol=0, atol=1e-10)


# in roundings: of the columns from orthonormal ones, and of these from the nearest ones
# times the condition number
ROUNDINGS = {torch.float32: (16, 16), torch.float64: (32, 64)}
SINGLE = (torch.float32, torch.complex64)
DOUBLE = (torch.float64, torch.complex128)
CONDITIONS = [
    *((dtype, c) for dtype in SINGLE for c in (1.0, 3.0, 10.0, 1e3, 1e5)),
    *((dtype, c) for dtype in DOUBLE for c in (1.0, 3.0, 10.0, 1e3, 1e6)),
]
PROFILES = {
    "evenly": lambda k: torch.linspace(0, 1, k, dtype=torch.float64),
    "one small": lambda k: torch.linspace(0, 1, k, dtype=torch.float64).floor(),
    "one large": lambda k: torch.linspace(0, 1, k, dtype=torch.float64).ceil(),
}


@pytest.mark.parametrize(("dtype", "condition"), CONDITIONS)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("n", "k"), [(2, 2), (17, 17), (100, 100), (300, 40), (9, 8)])
def test_products_alone_are_as_good_as_singular_vectors(
    n, k, condition, profile, dtype
):
    orthonormal, close = ROUNDINGS[dtype.to_real()]
    eps = torch.finfo(dtype).eps
    wide = torch.complex128 if dtype.is_complex else torch.float64
    W = conditioned(n, k, condition, wide, PROFILES[profile])[0].to(dtype)
    for scale in (1e-15, 1.0, 1e15):
        found = linalg.polar_by_products(scale * W)
        assert off(found) < orthonormal * eps
        # the nearest of the rounded matrix, which is off by as much itself
        expected = torch.from_numpy(scipy.linalg.polar(W.to(wide).numpy())[0])
        error = torch.linalg.matrix_norm(found.to(wide) - expected, 2)
        assert float(error) < close * condition * eps


@pytest.mark.parametrize("n", [1, 2, 3, 5, 30, 100, 300])
def test_random_matrices_of_all_sizes_in_single_precision(n):
    for shape in ((n, n), (2 * n, n), (3, n, n)):
        W = normal(*shape, dtype=torch.float32)
        found = linalg.polar_by_products(W)
        U, values, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        condition = float((values[..., 0] / values[..., -1]).max())
        assert off_at_most(found, 16 * 1.2e-7)
        error = torch.linalg.matrix_norm(found - U @ Vh, 2).max()
        assert float(error) < 4 * max(4, condition) * 1.2e-7


@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 43), (torch.float64, 52)])
def test_it_takes_the_products_that_are_stated(dtype, count):
    for W in (normal(30, 30, dtype=dtype), 1e-6 * torch.eye(30, dtype=dtype)):
        with FlopCounterMode(display=False) as counter:
            linalg.polar_by_products(W)
        assert counter.get_total_flops() == count * 2 * 30**3


def off_at_most(Q, bound):
    return all(off(q) < bound for q in Q.reshape(-1, *Q.shape[-2:]))


def test_negative_control_the_fastest_polynomials_lose_digits():
    """Those best on what is left of [1e-5, 1], which have been here before."""
    W, expected = conditioned(100, 100, 10.0)
    Q = (W / bound(W)).float()
    for a, b, c in (
        (8.429564732300472, -24.536523872844505, 17.85526176719508),
        (4.21425860765636, -3.0667764593654305, 0.5579629643229218),
        (4.211873611803194, -3.0651677627865, 0.5577854657857283),
        (4.20185761858712, -3.058409342454333, 0.5570397845873123),
        (4.160284274273862, -3.0303125010030243, 0.5539401468620254),
        (3.995848232114309, -2.9184433117045376, 0.541606010136783),
        (3.4554876396244114, -2.541051695560704, 0.5001351367730515),
        (2.4570236002752615, -1.7790466270379652, 0.4181542464080563),
        (1.9043221793739604, -1.270220628418209, 0.3670926975591441),
        (1.858006479181967, -1.2162908221213513, 0.35828302345931384),
        (1.8750077239045533, -1.250015447856369, 0.3750077239518158),
    ):
        A = Q.mH @ Q
        Q = a * Q + Q @ (b * A + c * A @ A)
    lost = torch.linalg.matrix_norm(Q - expected, 2)
    found = linalg.polar_by_products(W.float())
    kept = torch.linalg.matrix_norm(found - expected, 2)
    assert float(kept) < 16 * 10 * 1.2e-7
    assert float(lost) > 8 * float(kept)


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e12, torch.inf])
def test_singular_vectors_reach_it_for_every_condition_number(condition):
    W, _ = conditioned(50, 20, condition)
    assert off(linalg.polar(W)) < 1e-13
    assert off(linalg.polar(W.float())) < 1e-5


@pytest.mark.parametrize("condition", [1e9, 1e12, torch.inf])
def test_beyond_products_end_too_short_which_is_seen(condition):
    W, _ = conditioned(50, 20, condition)
    for dtype in (torch.float64, torch.float32):
        found = linalg.polar_by_products(W.to(dtype))
        values = torch.linalg.svdvals(found)
        assert bool((values < 1 + 1e-5).all())
        assert float(values[-1]) < 0.5
        assert not sets.Stiefel().contains(found)
    large = conditioned(50, 20, condition, profile=PROFILES["one small"])
    U, _, Vh = torch.linalg.svd(large[0], full_matrices=False)
    along = U[:, :-1].mH @ linalg.polar_by_products(large[0]) @ Vh[:-1].mH
    assert_close(along, torch.eye(19).double(), rtol=0, atol=1e-13)
    assert not linalg.polar_by_products(torch.zeros(3, 2)).any()


def test_each_polynomial_of_the_schedule_is_the_best_one_on_its_range():
    """By Chebyshev's theorem: its errors at four points are equal and alternate."""
    best_on(GROWTH, 0.25, 1.0, scaled=True)
    low, high = 0.25, 1.0
    for coefficients in TAIL[:-1]:
        best_on(coefficients, low, high)
        x = torch.linspace(low, high, 20_001, dtype=torch.float64)
        values = polynomial(coefficients, x)
        low, high = float(values.min()), float(values.max())
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    assert_close(polynomial(TAIL[-1], x), torch.ones_like(x), rtol=0, atol=1e-15)


def polynomial(coefficients, x):
    a, b, c = coefficients
    return a * x + b * x**3 + c * x**5


def best_on(coefficients, low, high, *, scaled=False):
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    values = polynomial(coefficients, 1.01 * x)
    if scaled:  # the growing one, whose largest value is one
        assert abs(float(values.max()) - 1) < 1e-6
        values = values * 2 / (values.max() + values.min())
    errors = 1 - values
    slope = errors.diff()
    turns = errors[1:-1][slope[1:] * slope[:-1] < 0]
    points = torch.stack([errors[0], *turns, errors[-1]])
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    assert_close(points * signs, errors.abs().max().expand(4), rtol=1e-4, atol=0)


def test_no_step_takes_a_large_value_to_a_small_one():
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    values = polynomial(GROWTH, x)
    assert bool((values <= 1).all())
    assert bool((values[x >= 0.25] > 0.72).all())
    below = (x > 0) & (x < 0.25)
    growth = values[below] / x[below]
    assert 2.9 < float(growth.min()) < float(growth.max()) < 3.3


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 1.8e-6), (torch.float64, 5.2e-8)]
)
def test_all_of_the_stated_range_becomes_one(dtype, least):
    def ended(x):
        for coefficients in sign_schedule(dtype):
            x = polynomial(coefficients, x)
        return x

    x = torch.logspace(0, math.log10(least), 20_001, dtype=torch.float64)
    assert_close(ended(x), torch.ones_like(x), rtol=0, atol=3e-15)
    assert float(ended(x[-1] / 4)) < 0.99, "negative control"


@PRECISIONS
@pytest.mark.parametrize("condition", [1.0, 3.0, 100.0])
def test_the_derivative_by_products_is_right_to_the_condition_number(condition, dtype):
    """What CUDA takes: no singular vectors are given."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    W = conditioned(60, 40, condition, wide)[0].to(dtype)
    dW = normal(60, 40, dtype=wide).to(dtype)
    found = polar_factor._derivative((W, linalg.polar_by_products(W)), dW)
    U, values, Vh = torch.linalg.svd(W.to(wide), full_matrices=False)
    expected = polar_factor._derivative((W.to(wide), U @ Vh, values, Vh), dW.to(wide))
    eps = torch.finfo(dtype).eps
    error = torch.dist(found.to(wide), expected) / torch.linalg.vector_norm(expected)
    assert float(error) < 64 * condition * eps


@KINDS
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 1), (2, 1, 4, 2)])
def test_the_polar_factor_has_every_derivative(shape, dtype):
    W = normal(*shape, dtype=dtype).requires_grad_()
    assert differentiable(linalg.polar, W)


def test_the_derivative_is_that_of_the_other_way_to_find_it():
    W = normal(6, 4).requires_grad_()
    loss = normal(6, 4)
    (implicit,) = torch.autograd.grad(linalg.polar(W), W, loss)
    (unrolled,) = torch.autograd.grad(linalg.polar_by_products(W), W, loss)
    assert_close(implicit, unrolled, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "W", [torch.eye(4), -torch.eye(3), torch.diag(torch.tensor([2.0, 2.0, 1.0]))]
)
def test_repeated_singular_values_have_a_derivative(W):
    W = W.double().requires_grad_()
    assert differentiable(linalg.polar, W)


def test_negative_control_torch_has_nan_there():
    W = identity(3).requires_grad_()
    U, _, Vh = torch.linalg.svd(W)
    (grad,) = torch.autograd.grad((U @ Vh).sum(), W)
    assert not torch.isfinite(grad).all()


@pytest.mark.parametrize("W", [torch.zeros(4, 2), torch.ones(4, 2), torch.zeros(3, 3)])
def test_gradients_are_finite_where_the_rank_is_deficient(W):
    W.requires_grad_()
    (grad,) = torch.autograd.grad(linalg.polar(W).sin().sum(), W)
    assert torch.isfinite(grad).all()


def test_function_transforms_agree_with_autograd():
    W = normal(3, 4, 2)

    def loss(W):
        return linalg.polar(W).sin().sum()

    hessian = torch.func.vmap(torch.func.hessian(loss))(W)
    expected = torch.stack([torch.autograd.functional.hessian(loss, w) for w in W])
    assert_close(hessian, expected)


@pytest.mark.parametrize("function", [linalg.polar, linalg.polar_by_products])
def test_the_compiler_and_meta_tensors_need_no_values(function):
    W = normal(7, 3).requires_grad_()
    value = torch.compile(function, backend="aot_eager", fullgraph=True)(W)
    assert_close(value, function(W))
    grads = torch.autograd.grad(value.sin().sum(), W)
    assert_close(grads, torch.autograd.grad(function(W).sin().sum(), W))
    assert function(W.detach().to("meta")).shape == W.shape


@KINDS
@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_the_lyapunov_equation_is_solved(k, dtype):
    G, C = normal(2, k, k, dtype=dtype), normal(2, k, k, dtype=dtype)
    P = G @ G.mH + identity(k)
    for X in (linalg.lyapunov(P, C, *torch.linalg.eigh(P)), lyapunov_by_products(P, C)):
        assert_close(P @ X + X @ P, C, rtol=0, atol=1e-10)


@KINDS
@pytest.mark.parametrize("by_products", [True, False])
def test_the_lyapunov_equation_has_every_derivative(by_products, dtype):
    G, C = normal(3, 3, dtype=dtype), normal(3, 3, dtype=dtype)

    def solve(G, C):
        P = G @ G.mH + identity(3)
        known = (None, None) if by_products else torch.linalg.eigh(P.detach())
        return linalg.lyapunov(P, C, *known)

    assert differentiable(
        solve, G.requires_grad_(), C.requires_grad_(), batched_forward=False
    )


@KINDS
@pytest.mark.parametrize("shape", [*SHAPES[:-1], (60, 40)])
def test_the_bound_is_one_of_the_spectral_norm(shape, dtype):
    for scale in (0.0, 1e-30, 1.0, 1e30):
        W = scale * normal(*shape, dtype=dtype)
        norm = torch.linalg.matrix_norm(W, 2, keepdim=True)
        assert bool((bound(W) >= norm * (1 - 1e-12)).all())
        assert bool((bound(W) <= 3 * norm).all())


def test_polish_in_one_step_squares_the_residual():
    Q = linalg.positive_qr(normal(9, 4)) + 1e-3 * normal(9, 4)
    before, after = off(Q), off(linalg.polish(Q, steps=1))
    assert after < before**2
    assert off(linalg.polish(Q)) < after**2 + 1e-14
