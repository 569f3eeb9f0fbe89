"""The polar factor, by singular vectors and by products, and what is under it."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

from holdfast import linalg
from holdfast.linalg.lyapunov_equation import SCHEDULE, bound, lyapunov_by_products
from test_cayley import KINDS, differentiable, identity, normal, off

SHAPES = [(1, 1), (3, 3), (4, 1), (5, 3), (2, 6, 2), (0, 4, 2)]


def conditioned(n, k, condition, dtype=torch.float64):
    """Return a matrix of norm one and a condition number, and its polar factor."""
    U, V = (linalg.positive_qr(normal(m, k, dtype=dtype)) for m in (n, k))
    exponents = torch.linspace(0, 1, k, dtype=torch.float64)
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


@KINDS
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e5])
@pytest.mark.parametrize(("n", "k"), [(40, 40), (200, 30)])
def test_products_alone_reach_it_for_condition_numbers_up_to_1e5(
    n, k, condition, dtype
):
    W, Q = conditioned(n, k, condition, dtype)
    for scale in (1e-20, 1.0, 1e20):
        found = linalg.polar_by_products(scale * W)
        assert off(found) < 1e-9
        assert_close(found, Q, rtol=0, atol=1e-14 * n * condition)
        single = linalg.polar_by_products((scale * W).to(torch.complex64).real.float())
        assert dtype.is_complex or off(single) < 1e-5


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e12, torch.inf])
def test_singular_vectors_reach_it_for_every_condition_number(condition):
    W, _ = conditioned(50, 20, condition)
    assert off(linalg.polar(W)) < 1e-13
    assert off(linalg.polar(W.float())) < 1e-5


def test_negative_control_products_do_not_reach_it_beyond():
    W, _ = conditioned(50, 20, 1e12)
    assert off(linalg.polar_by_products(W)) > 0.1


def test_each_polynomial_of_the_schedule_is_the_best_one_on_its_range():
    """By Chebyshev's theorem: its errors at four points are equal and alternate."""
    low, high = 1e-5, 1.0
    for step, (a, b, c) in enumerate(SCHEDULE):
        x = torch.linspace(0, 1, 20_001, dtype=torch.float64) ** 2
        x = low + (high - low) * x
        values = a * x + b * x**3 + c * x**5
        safety = 1.0 if step == len(SCHEDULE) - 1 else 1.01
        y = safety * x
        errors = 1 - (a * y + b * y**3 + c * y**5)
        slope = errors.diff()
        turns = errors[1:-1][slope[1:] * slope[:-1] < 0]
        low, high = float(values.min()), float(values.max())
        if errors.abs().max() > 1e-6:  # above rounding
            points = torch.stack([errors[0], *turns, errors[-1]])
            signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
            assert_close(
                points * signs, errors.abs().max().expand(4), rtol=1e-5, atol=0
            )
    assert abs(low - 1) < 1e-12
    assert abs(high - 1) < 1e-12


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
