"""Orthonormal columns without a square matrix: thin maps and reflections."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from holdfast import linalg
from holdfast.errors import InvalidTensorError
from holdfast.linalg import householder
from test_cayley import (
    KINDS,
    PRECISIONS,
    differentiable,
    identity,
    normal,
    off,
    skew_of,
)

SHAPES = [(1, 1), (3, 3), (4, 1), (5, 4), (9, 3), (2, 6, 2), (0, 4, 2), (2, 3, 5, 3)]
LARGE = [(70, 70), (150, 70), (300, 40)]
MAPS = {
    "cayley": (linalg.thin_cayley, linalg.thin_cayley_at, linalg.cayley_transform),
    "exponential": (
        linalg.thin_exponential,
        linalg.thin_exponential_at,
        torch.matrix_exp,
    ),
}
BOTH = pytest.mark.parametrize("kind", MAPS)


def coordinates(*shape, size=1.0, dtype=torch.float64):
    """Return Omega, K, and the square matrix that they stand for, of a given norm."""
    *batch, n, k = shape
    K = normal(*batch, n - k, k, dtype=dtype)
    Omega = linalg.skew(normal(*batch, k, k, dtype=dtype))
    A = padded(Omega, K)
    norm = torch.linalg.matrix_norm(A, 2, keepdim=True).clamp_min(1e-300)
    return Omega * (size / norm), K * (size / norm), A * (size / norm)


def padded(Omega, K):
    k, m = K.shape[-1], K.shape[-2]
    upper = torch.cat([Omega, -K.mH], -1)
    lower = torch.cat([K, K.new_zeros(*K.shape[:-2], m, m)], -1)
    return torch.cat([upper, lower], -2)[..., : k + m]


def haar(*shape, dtype=torch.float64):
    return linalg.positive_qr(normal(*shape, dtype=dtype))


# ---- Values -------------------------------------------------------------------------


@BOTH
@KINDS
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE])
def test_thin_is_the_first_columns_of_the_square_map(shape, size, dtype, kind):
    thin, _, square = MAPS[kind]
    Omega, K, A = coordinates(*shape, size=size, dtype=dtype)
    expected = square(A)[..., : shape[-1]]
    assert_close(thin(Omega, K), expected, rtol=0, atol=2e-14 * (5 + size))


@BOTH
@PRECISIONS
@pytest.mark.parametrize("size", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("shape", [(40, 40), (300, 70), (200, 8)])
def test_single_precision_is_orthonormal_to_a_few_roundings(shape, size, dtype, kind):
    thin, at, _ = MAPS[kind]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    Omega, K, _ = coordinates(*shape, size=size, dtype=wide)
    K[:, ::2] *= 1e-3  # lengths of all kinds
    assert off(thin(Omega.to(dtype), K.to(dtype))) < 1e-5
    base, Z = haar(*shape, dtype=wide).to(dtype), normal(*shape, dtype=dtype)
    Z *= size / torch.linalg.matrix_norm(Z, 2)
    assert off(at(Z, base)) < 1e-5


@BOTH
@PRECISIONS
def test_one_long_direction_does_not_round_the_others(kind, dtype):
    """K^H K has the square of its length, 10000, in all entries."""
    thin, at, _ = MAPS[kind]
    K = normal(60, 1, dtype=dtype) @ normal(1, 8, dtype=dtype)
    K *= 100 / torch.linalg.matrix_norm(K, 2)
    assert off(thin(torch.zeros(8, 8, dtype=dtype), K)) < 2e-5
    base = torch.eye(68, 8, dtype=dtype)
    assert off(at(torch.cat([torch.zeros(8, 8), K]), base)) < 2e-5


@BOTH
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_no_rank_of_the_lower_part_is_special(rank, kind):
    thin, _, square = MAPS[kind]
    Omega, K = skew_of(3, 2.0), normal(5, rank) @ normal(rank, 3)
    assert_close(thin(Omega, K), square(padded(Omega, K))[:, :3], rtol=0, atol=1e-13)
    assert differentiable(thin, Omega.requires_grad_(), K.requires_grad_())


@BOTH
@KINDS
@pytest.mark.parametrize("shape", [*SHAPES, (150, 70)])
def test_around_a_base_it_is_the_square_map_around_a_completed_base(shape, dtype, kind):
    _, at, square = MAPS[kind]
    base, Z = haar(*shape, dtype=dtype), normal(*shape, dtype=dtype)
    C = base.mH @ Z
    full = linalg.complete(base)
    K = full[..., shape[-1] :].mH @ Z
    A = padded(C - C.mH, K)
    expected = (full @ square(A))[..., : shape[-1]]
    assert_close(at(Z, base), expected, rtol=0, atol=1e-12)
    assert_close(at(torch.zeros_like(Z), base), base, rtol=0, atol=1e-14)


@BOTH
def test_the_base_may_lack_the_batch(kind):
    _, at, _ = MAPS[kind]
    base, Z = haar(5, 2), normal(3, 5, 2)
    assert_close(at(Z, base)[1], at(Z[1], base))


@BOTH
@KINDS
def test_the_derivative_at_the_base_is_as_stated(dtype, kind):
    _, at, _ = MAPS[kind]
    base, dZ = haar(6, 3, dtype=dtype), normal(6, 3, dtype=dtype)
    zero = torch.zeros_like(dZ)
    _, moved = torch.func.jvp(lambda Z: at(Z, base), (zero,), (dZ,))
    assert_close(moved, dZ - base @ dZ.mH @ base)


def slope_at(at, Z, base, G, *, base_moves=False):
    """Return the value and the gradient of the coordinates."""
    Z, base = Z.clone().requires_grad_(), base.clone().requires_grad_(base_moves)
    Q = at(Z, base)
    return Q.detach(), torch.autograd.grad(Q, Z, G)[0]


@BOTH
@PRECISIONS
@pytest.mark.parametrize("base_moves", [False, True])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6])
@pytest.mark.parametrize("shape", [(5, 5), (40, 3), (200, 70)])
def test_single_precision_is_right_to_rounding_at_the_base(
    shape, size, base_moves, dtype, kind
):
    _, at, _ = MAPS[kind]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    base = haar(*shape, dtype=wide).to(dtype)
    Z, G = size * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
    Q, found = slope_at(at, Z, base, G, base_moves=base_moves)
    B = base.to(wide)
    expected = slope_at(at, Z.to(wide), B, G.to(wide))
    for single, double in zip((Q, found), expected, strict=True):
        assert torch.dist(single.to(wide), double) < 1e-6 * double.norm()
    if size < 1e-6:
        assert_close(Q, base, rtol=0, atol=1e-7)
        stated = G.to(wide) - B @ G.to(wide).mH @ B
        assert torch.dist(found.to(wide), stated) < 1e-6 * stated.norm()
        projected = G.to(wide) - B @ B.mH @ G.to(wide)  # negative control
        assert torch.dist(found.to(wide), projected) > 0.1 * stated.norm()


# ---- Derivatives --------------------------------------------------------------------


@BOTH
@KINDS
@pytest.mark.parametrize("shape", [(3, 3), (4, 1), (2, 1, 3, 2)])
def test_the_thin_maps_have_every_derivative(shape, dtype, kind):
    thin, at, _ = MAPS[kind]
    Omega, K, _ = coordinates(*shape, size=2.0, dtype=dtype)
    assert differentiable(thin, Omega.requires_grad_(), K.requires_grad_())
    Z, base = normal(*shape, dtype=dtype).requires_grad_(), haar(*shape, dtype=dtype)
    assert differentiable(lambda Z: at(Z, base), Z)
    if len(shape) == 2:
        assert differentiable(at, Z, base.requires_grad_())


@KINDS
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE])
def test_one_matrix_of_coordinates_is_the_same_as_two(shape, dtype):
    X, k = normal(*shape, dtype=dtype), shape[-1]
    expected = linalg.thin_cayley(linalg.lower_skew(X[..., :k, :]), X[..., k:, :])
    assert_close(linalg.thin_cayley_lower(X), expected, rtol=0, atol=1e-13)
    upper = X.tril() + normal(*shape, dtype=dtype).triu(1)
    assert torch.equal(linalg.thin_cayley_lower(X), linalg.thin_cayley_lower(upper))
    signs = torch.where(torch.rand(*shape[:-2], k) < 0.5, -1, 1).to(torch.int8)
    signed = linalg.thin_cayley_lower(X, signs)
    assert_close(signed, expected * signs.unsqueeze(-2), rtol=0, atol=1e-13)
    if X.numel() and X.shape[-2] < 6:
        X.requires_grad_()
        assert differentiable(linalg.thin_cayley_lower, X)
        assert differentiable(lambda X: linalg.thin_cayley_lower(X, signs), X)


@BOTH
def test_function_transforms_agree_with_autograd(kind):
    _, at, _ = MAPS[kind]
    base, Z = haar(4, 2), normal(3, 4, 2)

    def loss(Z):
        return at(Z, base).sin().sum()

    hessian = torch.func.vmap(torch.func.hessian(loss))(Z)
    expected = torch.stack([torch.autograd.functional.hessian(loss, z) for z in Z])
    assert_close(hessian, expected)


def reference(X):
    tau = 2 / (1 + X.tril(-1).square().sum(-2))
    return torch.linalg.householder_product(X, tau)


@pytest.mark.parametrize("shape", [(97, 97), (130, 97), (300, 40), (2, 100, 98)])
def test_blocks_of_reflections_are_torchs_product(shape):
    X = normal(*shape)
    assert_close(linalg.reflections(X), reference(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", [1, 2, 100])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 1), (2, 1, 4, 3)])
def test_reflections_have_every_derivative(shape, block, monkeypatch):
    monkeypatch.setattr(householder, "_REFLECTIONS", block)
    X = normal(*shape).requires_grad_()
    assert differentiable(linalg.reflections, X)
    base = normal(*shape[:-1], shape[-2]).requires_grad_()
    assert_close(linalg.reflections(X, base), base @ reference(X), rtol=0, atol=1e-12)
    assert differentiable(linalg.reflections, X, base)
    assert differentiable(lambda X: linalg.reflections(X, base.detach()), X)


@pytest.mark.parametrize("size", [0.03, 0.2, 0.7, 1.5, 30.0, 1e4])
@pytest.mark.parametrize("kind", ["alike", "almost alike", "one row", "two rows"])
def test_nearly_parallel_reflections_stay_orthonormal(kind, size):
    n = 256
    X = torch.zeros(n, n)
    if kind in ("one row", "two rows"):
        X[-1 if kind == "one row" else -2 :] = size
    else:
        spread = 0.03 * size * torch.randn(n, n)
        X += size * torch.randn(n, 1) + (0 if kind == "alike" else spread)
    base = haar(n, n).float()
    assert off(linalg.reflections(X)) < 4e-6
    assert off(linalg.reflections(X, base)) < 6e-6


def test_negative_control_parallel_vectors_in_single_precision(monkeypatch):
    X = torch.zeros(256, 256)
    X[-2:] = 3.0
    mended = off(linalg.reflections(X))
    monkeypatch.setattr(householder, "parallel", lambda V: False)
    assert off(linalg.reflections(X)) > 20 * mended


@pytest.mark.parametrize("size", [1e14, 1e16, 1e19, 1e25, 1e37])
@pytest.mark.parametrize("shape", [(2, 2), (9, 4), (130, 130)])
def test_reflections_of_very_long_vectors_are_orthonormal(shape, size):
    X = (size * normal(*shape)).float().requires_grad_()
    Q = linalg.reflections(X)
    assert_close(Q.double(), linalg.reflections(X.double()), rtol=0, atol=1e-6)
    assert off(Q.detach()) < 2e-6
    (gradient,) = torch.autograd.grad(Q.sum(), X)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.03, 1.0, 30.0])
@pytest.mark.parametrize("shape", [(200, 200), (300, 64)])
def test_reflections_in_single_precision_are_orthonormal(shape, size):
    assert off(linalg.reflections(size * normal(*shape).float())) < 5e-6


def test_negative_control_squares_added_to_one_lose_a_digit():
    """The Gram matrix as it comes, in single precision, next to the identity."""
    n, k = 512, 128
    V = (1e-3 * normal(n, k)).float().tril(-1) + torch.eye(n, k)
    gram = V.mT @ V
    S = gram.triu(1) + torch.diag_embed(gram.diagonal() / 2)
    W = torch.linalg.solve_triangular(S, V[:k].mT, upper=True)
    naive = off(torch.eye(n, k) - V @ W)
    assert naive > 3 * off(linalg.reflections(V))


@pytest.mark.parametrize("around_base", [True, False])
def test_the_gradient_is_right_relative_to_any_scale_of_the_loss(around_base):
    base, Z, G = haar(30, 8).float(), normal(30, 8).float(), normal(30, 8).float()

    def gradient(Z, G):
        Z = Z.clone().requires_grad_()
        at = linalg.thin_cayley_at(Z, base.to(Z)) if around_base else None
        value = linalg.reflections(Z) if at is None else at
        return torch.autograd.grad(value, Z, G)[0]

    expected = gradient(Z.double(), G.double())
    errors = [
        float((gradient(Z, scale * G) / scale - expected).norm() / expected.norm())
        for scale in (1e-6, 1.0, 1e6)
    ]
    assert max(errors) < 5e-6
    assert max(errors) < 2 * min(errors)


# ---- Inverses -----------------------------------------------------------------------


def hard(n, k, dtype):
    """Return matrices at which a plain Cayley or logarithm has no coordinates."""
    E = torch.eye(n, k, dtype=dtype)
    flipped = E.clone()
    flipped[0, 0] = -1
    rolled = E.roll(1, 0)
    return [E, -E, flipped, rolled, -rolled]


@KINDS
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 3), (4, 1), (5, 4), (9, 3), (3, 6, 2), (60, 60), (100, 33)]
)
def test_every_matrix_with_orthonormal_columns_has_thin_coordinates(shape, dtype):
    *_, n, k = shape
    for Q in (haar(*shape, dtype=dtype), *hard(n, k, dtype)):
        Omega, K, signs = linalg.thin_cayley_inverse(Q)
        assert torch.equal(Omega, -Omega.mH)
        back = linalg.thin_cayley(Omega, K) * signs.unsqueeze(-2)
        assert_close(back, Q, rtol=0, atol=1e-12)
        base = haar(*shape, dtype=dtype).expand_as(Q) if Q.ndim > 2 else haar(n, k)
        base = base.to(dtype)
        Z, signs = linalg.thin_cayley_inverse_at(Q, base)
        inside = base.mH @ Z
        assert_close(inside, -inside.mH, rtol=0, atol=1e-12)
        back = linalg.thin_cayley_at(Z, base) * signs.unsqueeze(-2)
        assert_close(back, Q, rtol=0, atol=1e-12)


def test_signs_that_are_given_are_kept():
    Omega, K, _ = coordinates(6, 3, size=1.0)
    ones = torch.ones(3, dtype=torch.int8)
    again = linalg.thin_cayley_inverse(linalg.thin_cayley(Omega, K), ones)
    assert_close(again[:2], (Omega, K))
    again = linalg.thin_logarithm(linalg.thin_exponential(Omega, K), ones)
    assert_close(again[:2], (Omega, K))


@KINDS
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 1), (5, 4), (9, 3), (3, 6, 2)])
def test_the_thin_exponential_has_coordinates_for_every_matrix(shape, dtype):
    *_, n, k = shape
    for Q in (haar(*shape, dtype=dtype), *hard(n, k, dtype)):
        Omega, K, signs = linalg.thin_logarithm(Q)
        back = linalg.thin_exponential(Omega, K) * signs.unsqueeze(-2)
        assert_close(back, Q, rtol=0, atol=1e-9)


@pytest.mark.parametrize("function", [linalg.thin_cayley, linalg.thin_exponential])
def test_parts_that_do_not_fit_are_refused(function):
    with pytest.raises(InvalidTensorError, match="Expected as many columns"):
        function(torch.zeros(2, 2), torch.zeros(3, 3))


@pytest.mark.parametrize(
    "function",
    [
        linalg.thin_cayley_inverse,
        linalg.thin_logarithm,
        lambda Q: linalg.thin_cayley_at(Q, Q),
    ],
)
def test_wide_matrices_are_refused(function):
    with pytest.raises(InvalidTensorError, match="at least as many rows as columns"):
        function(identity(3)[:2])


# ---- Without values -----------------------------------------------------------------


@pytest.mark.parametrize("gradients", [True, False])
def test_the_compiler_and_meta_tensors_need_no_values(gradients):
    base, signs = haar(70, 5), torch.tensor([1, -1, 1, 1, -1], dtype=torch.int8)

    def all_of_them(Z):
        Omega, K = Z.split([5, 65])
        thin = linalg.thin_cayley(linalg.lower_skew(Omega), K)
        at = linalg.thin_cayley_at(Z, base.to(Z.device))
        exponential = linalg.thin_exponential_at(Z, base.to(Z.device))
        lower = linalg.thin_cayley_lower(Z, signs.to(Z.device))
        return thin + at + exponential + lower + linalg.reflections(Z)

    Z = normal(70, 5).requires_grad_(gradients)
    value = torch.compile(all_of_them, backend="aot_eager", fullgraph=True)(Z)
    assert_close(value, all_of_them(Z))
    if gradients:
        grads = torch.autograd.grad(value.sin().sum(), Z)
        assert_close(grads, torch.autograd.grad(all_of_them(Z).sin().sum(), Z))
    meta = all_of_them(Z.detach().to("meta"))
    assert meta.is_meta
    assert meta.shape == Z.shape
