"""The Cayley transform, the inverse under it, and their derivatives."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast import linalg
from holdfast.errors import InvalidTensorError
from holdfast.linalg import inverse
from holdfast.linalg.closed_form import closed_form
from holdfast.linalg.inverse import invert_skew_part
from holdfast.linalg.near_identity import near_identity
from holdfast.linalg.products import product_into, scaled_product

KINDS = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])


def normal(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def skew_of(n, size, dtype=torch.float64, batch=()):
    A = linalg.skew(normal(*batch, n, n, dtype=dtype))
    norm = torch.linalg.matrix_norm(A, 2, keepdim=True)
    return A * (size / norm.clamp_min(1e-300))


def identity(n, dtype=torch.float64):
    return torch.eye(n, dtype=dtype)


def off(Q):
    """Return ||Q^H Q - I|| in the spectral norm."""
    Q = linalg.double(Q)
    gram = Q.mH @ Q
    return float(torch.linalg.matrix_norm(gram - identity(Q.shape[-1], Q.dtype), 2))


def differentiable(function, *inputs, batched_forward=True):
    """Check every derivative that autograd knows, to second order."""
    assert gradcheck(
        function,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=batched_forward,
    )
    return gradgradcheck(
        function, inputs, check_fwd_over_rev=True, check_batched_grad=True
    )


# ---- Accretive inverses -------------------------------------------------------------


def accretive(n, size, dtype=torch.float64, batch=()):
    G = normal(*batch, n, n, dtype=dtype)
    positive = G @ G.mH
    norm = torch.linalg.matrix_norm(positive, 2, keepdim=True).clamp_min(1e-300)
    return (
        identity(n, dtype) + positive * (size / norm) + skew_of(n, size, dtype, batch)
    )


@KINDS
@pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("n", [1, 2, 17, 65, 200])
@pytest.mark.parametrize(
    "inverse", [linalg.accretive_inverse, linalg.inverse_by_products]
)
def test_accretive_matrices_are_inverted(inverse, n, size, dtype):
    S = accretive(n, size, dtype)
    M = inverse(S)
    assert_close(S @ M, identity(n, dtype), rtol=0, atol=1e-14 * n**0.5 * (1 + size))


@pytest.mark.parametrize("batch", [(0,), (1,), (3,), (9,), (2, 5), (2, 0, 3)])
@pytest.mark.parametrize("n", [3, 40, 70])
def test_batches_are_inverted_one_by_one(n, batch):
    S = accretive(n, 2.0, batch=batch)
    M = linalg.accretive_inverse(S)
    assert M.shape == S.shape
    for index in torch.cartesian_prod(*map(torch.arange, batch)).reshape(
        -1, len(batch)
    ):
        one = tuple(index.tolist())
        assert_close(M[one], torch.linalg.inv(S[one]), rtol=0, atol=1e-13)


def test_negative_control_without_an_accretive_part_there_is_no_inverse_by_halves():
    """The halves have no pivots: a zero block in the corner is fatal to them."""
    from holdfast.linalg.inverse import _by_halves

    n = 80
    S = torch.zeros(n, n, dtype=torch.float64)
    S[: n // 2, n // 2 :] = S[n // 2 :, : n // 2] = identity(n // 2)
    assert not torch.allclose(_by_halves(S, 32) @ S, identity(n))


@KINDS
def test_the_inverse_has_every_derivative(dtype):
    S = accretive(3, 1.0, dtype, (2,)).requires_grad_()
    assert differentiable(linalg.accretive_inverse, S)


# ---- Cayley -------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("n", [1, 2, 3, 33, 130, 300])
def test_the_transform_is_the_formula(n, size, dtype):
    A, B = skew_of(n, size, dtype), linalg.positive_qr(normal(n, n, dtype=dtype))
    half = A / 2
    expected = torch.linalg.solve(identity(n, dtype) - half, identity(n, dtype) + half)
    Q = linalg.cayley_transform(A)
    assert_close(Q, expected, rtol=0, atol=1e-14 * (n + size))
    assert_close(linalg.cayley_transform(A, B), B @ Q, rtol=0, atol=1e-13)


@PRECISIONS
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("n", [8, 64, 300])
def test_single_precision_is_orthogonal_to_a_few_roundings(n, size, dtype):
    A = skew_of(n, size, torch.complex128 if dtype.is_complex else torch.float64)
    assert off(linalg.cayley_transform(A.to(dtype))) < 1e-5


@PRECISIONS
@pytest.mark.parametrize("size", [3e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("n", [65, 66, 129])
def test_enormous_coordinates_are_orthogonal_all_the_same(n, size, dtype):
    one = identity(n, dtype)
    for L in (normal(3, n, n, dtype=dtype) * size / n**0.5).tril(-1):
        A = L - L.mH
        assert off(2 * linalg.accretive_inverse(one - A / 2) - one) < 1e-5
        assert off(4 * invert_skew_part(L) - one) < 1e-5


@pytest.mark.parametrize("size", [3.0, 10.0, 30.0, 100.0])
@pytest.mark.parametrize("kind", ["random", "one block"])
def test_large_coordinates_are_orthogonal_in_a_graph(kind, size):
    A = skew_of(300, size, torch.float32)
    if kind == "one block":
        size = min(size, 30.0)
        X = torch.zeros(300, 300)
        X[150:, :150] = size / 150
        A = X - X.mT
    recorded = make_fx(lambda A: linalg.cayley_transform(A))(A)
    assert off(recorded(A)) < 1e-5


@pytest.mark.parametrize("n", [17, 64, 130])
def test_a_batch_takes_no_steps_that_its_matrices_do_not_need(n, monkeypatch):
    looks, residual = [], inverse._residual
    monkeypatch.setattr(
        inverse, "_residual", lambda *x: looks.append(residual(*x)) or looks[-1]
    )
    few = inverse._ROUNDINGS * torch.finfo(torch.float32).eps
    A = skew_of(n, 10.0, torch.float32, batch=(4,)).repeat(100, 1, 1)
    linalg.cayley_transform(A)
    assert float(looks[0]) <= few
    A[7] = skew_of(n, 3e3, torch.float32)
    linalg.cayley_transform(A)
    assert float(looks[1]) > few


@PRECISIONS
@pytest.mark.parametrize("size", [1e-3, 0.05, 0.3, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("n", [16, 40, 64])
def test_a_batch_of_lower_triangles_is_transformed_as_their_skew_matrices(
    n, size, dtype
):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    X = (normal(9, n, n, dtype=wide) * size / n**0.5).tril(-1)
    X = (X + 5 * torch.ones(n, n).triu()).to(dtype)  # is not read, but for phases
    Q = linalg.cayley_transform_lower(X)
    A, one = linalg.lower_skew(linalg.double(X)), identity(n, wide)
    wanted = torch.linalg.solve(one - A / 2, one + A / 2)
    assert max(map(off, Q)) < 1e-5
    assert (linalg.double(Q) - wanted).abs().max() < 1e-6 * (1 + min(size, 30))


@PRECISIONS
@pytest.mark.parametrize("planes", [1, 8])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-3, 0.01, 0.03, 0.05, 0.07, 0.1, 0.2])
def test_small_coordinates_take_a_series_that_is_exact(size, planes, dtype):
    """Also where all of the norm is in one plane, the worst case of a bound."""
    U, V = normal(2, 16, planes, dtype=dtype)
    A = U @ V.mH - V @ U.mH
    A = A * (size / torch.linalg.matrix_norm(A, 2))
    half = linalg.double(A) / 2
    one = identity(16, half.dtype)
    wanted = torch.linalg.solve(one - half, one + half)
    off = linalg.double(linalg.cayley_transform(A)) - wanted
    assert off.abs().max() < 4 * torch.finfo(dtype).eps
    assert size == 0.1 or (near_identity(A / 2) is not None) == (size < 0.1)


def test_negative_control_a_series_that_is_cut_short_is_not_exact():
    E = skew_of(16, 0.08, torch.float32) / 2
    wanted = torch.linalg.inv(identity(16) + E.double())
    cut = identity(16, torch.float32) - E + E @ E - E @ E @ E
    eps = torch.finfo(torch.float32).eps
    assert (near_identity(E) - wanted).abs().max() < 2 * eps
    assert (cut - wanted).abs().max() > 2 * eps
    assert near_identity(torch.full((2, 2), torch.nan)) is None


def test_a_base_costs_one_product_and_its_roundings():
    n = 512
    A, B = skew_of(n, 1.0).float(), linalg.positive_qr(normal(n, n)).float()
    Q = linalg.cayley_transform(A)
    M = (Q + torch.eye(n)) / 2
    assert off(linalg.cayley_transform(A, B)) < 1.1 * off(B @ Q)
    assert off(2 * B @ M - B) > 1.3 * off(B @ Q)  # negative control


def test_negative_control_halves_alone_lose_digits_for_large_coordinates():
    from holdfast.linalg.inverse import _by_halves

    n = 300
    S = identity(n).float() - skew_of(n, 1000.0).float() / 2
    assert off(2 * _by_halves(S, 64) - identity(n).float()) > 1e-4


@pytest.mark.parametrize("angles", [[1.0] * 4, [0.0, 0.0, 2.0, 2.0], [3.1, 3.1, 3.1]])
def test_repeated_angles_are_nothing_special(angles):
    blocks = [torch.tensor([[0.0, -a], [a, 0.0]], dtype=torch.float64) for a in angles]
    A = torch.block_diag(*[2 * torch.tan(b / 2) for b in blocks]).requires_grad_()
    assert_close(
        linalg.cayley_transform(A), torch.matrix_exp(torch.block_diag(*blocks))
    )
    assert gradcheck(linalg.cayley_transform, A)


@KINDS
def test_the_transform_has_every_derivative(dtype):
    A, B = skew_of(3, 2.0, dtype, (2, 1)), normal(2, 1, 3, 3, dtype=dtype)
    assert differentiable(linalg.cayley_transform, A.requires_grad_())
    assert differentiable(linalg.cayley_transform, A, B.requires_grad_())
    assert differentiable(lambda A: linalg.cayley_transform(A, B[0].detach()), A)


@KINDS
def test_the_transform_of_a_lower_triangle_has_every_derivative(dtype):
    X, B = normal(2, 3, 3, dtype=dtype), normal(2, 3, 3, dtype=dtype)
    function = linalg.cayley_transform_lower
    for base in (None, B):
        expected = linalg.cayley_transform(linalg.lower_skew(X), base)
        assert_close(function(X, base), expected, rtol=0, atol=1e-14)
    assert differentiable(function, X.requires_grad_())
    assert differentiable(function, X, B.requires_grad_())
    assert differentiable(lambda X: function(X, B[0].detach()), X)


def test_function_transforms_agree_with_autograd():
    A, B = skew_of(4, 1.0, batch=(3,)), linalg.positive_qr(normal(4, 4))

    def loss(A):
        return linalg.cayley_transform(A, B).sin().sum()

    hessian = torch.func.vmap(torch.func.hessian(loss))(A)
    expected = torch.stack([torch.autograd.functional.hessian(loss, a) for a in A])
    assert_close(hessian, expected)
    forward = torch.func.vmap(torch.func.jacfwd(torch.func.jacfwd(loss)))(A)
    assert_close(forward, expected)
    mapped = torch.func.vmap(linalg.cayley_transform, in_dims=(2, None), out_dims=1)
    assert_close(mapped(A.movedim(0, 2), B)[:, 1], linalg.cayley_transform(A[1], B))


@pytest.mark.parametrize("n", [1, 5, 70])
def test_the_gradient_is_right_relative_to_any_scale_of_the_loss(n):
    A = skew_of(n, 2.0).float().requires_grad_()
    G = normal(n, n).float()
    exact = A.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(linalg.cayley_transform(exact), exact, G.double())
    errors = []
    for scale in (1e-6, 1.0, 1e6):
        (grad,) = torch.autograd.grad(linalg.cayley_transform(A), A, scale * G)
        errors.append(float((grad / scale - expected).norm() / expected.norm()))
    assert max(errors) < 2e-6


def test_the_gradient_of_the_base_is_made_only_where_it_is_needed():
    A, B = skew_of(3, 1.0).requires_grad_(), identity(3)
    for base, expected in ((B, 2), (B.clone().requires_grad_(), 3)):
        Q = linalg.cayley_transform(A, base)
        with Products() as products:
            Q.sum().backward()
        assert products.count == expected


class Products(TorchDispatchMode):
    """Counts the matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("mm", "addmm")
        return func(*args, **(kwargs or {}))


# ---- Signs --------------------------------------------------------------------------


def one_by_one(W):
    """Return the signs by the textbook's elimination."""
    W, signs = W.clone(), []
    for j in range(W.shape[-1]):
        signs.append(-1 if W[j, j].real < 0 else 1)
        W[j, j] += signs[-1]
        W[j + 1 :, j + 1 :] -= W[j + 1 :, j, None] * W[None, j, j + 1 :] / W[j, j]
    return torch.tensor(signs, dtype=torch.int8)


@KINDS
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 33, 100])
def test_signs_by_blocks_are_those_one_by_one(n, dtype):
    W = linalg.positive_qr(normal(2, n, n, dtype=dtype))
    signs = linalg.cayley_signs(W)
    assert signs.dtype == torch.int8
    for w, s in zip(W, signs, strict=True):
        assert torch.equal(s, one_by_one(w))


@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("kind", ["haar", "minus", "reflection", "permutation"])
def test_every_orthogonal_matrix_is_reached(n, kind):
    W = {
        "haar": lambda: linalg.positive_qr(normal(n, n)),
        "minus": lambda: -identity(n),
        "reflection": lambda: identity(n) - 2 / n,
        "permutation": lambda: identity(n)[torch.randperm(n)],
    }[kind]()
    A, signs = linalg.cayley_inverse(W)
    assert_close(linalg.cayley_transform(A) * signs, W, rtol=0, atol=1e-12)


# ---- The mechanism ------------------------------------------------------------------


class Cube:
    """x^3, which keeps 3x^2 as well; the derivative can be spoilt."""

    slope = 3.0

    @staticmethod
    def forward(X):
        return X**3, Cube.slope * X**2

    @staticmethod
    def keep(inputs, outputs):
        return inputs[0], outputs[1]

    @staticmethod
    def vjp(kept, needs, G, gS):
        X, S = kept
        return (S * G + (0 if gS is None else 2 * Cube.slope * X * gS),)

    @staticmethod
    def jvp(kept, dX):
        X, S = kept
        return S * dX, 2 * Cube.slope * X * dX


def test_what_derivatives_reuse_is_differentiated_as_well(monkeypatch):
    cube, X = closed_form(Cube), normal(3).requires_grad_()
    assert differentiable(cube, X)
    monkeypatch.setattr(Cube, "slope", 4.0)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(cube, X)


def test_a_derivative_of_what_is_reused_alone_is_right():
    X = normal(3).requires_grad_()
    (first,) = torch.autograd.grad(closed_form(Cube)(X).sum(), X, create_graph=True)
    assert_close(torch.autograd.grad(first.sum(), X)[0], 6 * X)


@pytest.mark.parametrize("gradients", [True, False])
def test_the_compiler_and_meta_tensors_need_no_values(gradients):
    A, B = skew_of(70, 1.0).requires_grad_(gradients), identity(70)
    compiled = torch.compile(
        linalg.cayley_transform, backend="aot_eager", fullgraph=True
    )
    value = compiled(A, B)
    assert_close(value, linalg.cayley_transform(A, B))
    if gradients:
        grads = torch.autograd.grad(value.sin().sum(), A)
        assert_close(
            grads, torch.autograd.grad(linalg.cayley_transform(A).sin().sum(), A)
        )
    meta = linalg.cayley_transform(A.detach().to("meta"), B.to("meta"))
    assert meta.is_meta
    assert meta.shape == A.shape


@pytest.mark.parametrize("n", [3, 130])
def test_a_product_is_written_to_a_part_of_a_batch(n):
    A, B, C = torch.randn(3, 2, n, n, dtype=torch.float64).unbind()
    whole = torch.full((2, n + 1, n + 2), torch.nan, dtype=torch.float64)
    part = whole[:, 1:, 2:]
    product_into(part, A, B, alpha=-2)
    assert_close(part, -2 * A @ B)
    part.copy_(C)
    product_into(part, A, B, alpha=3, beta=0.5)
    assert_close(part, 3 * A @ B + C / 2)
    assert whole[:, 0].isnan().all()
    assert whole[..., :2].isnan().all()


@pytest.mark.parametrize(("scale", "looks"), [(1, 0), (100, 1)])
def test_the_inverse_of_a_tame_skew_matrix_is_not_looked_at(scale, looks, monkeypatch):
    seen = []
    residual = inverse._residual
    monkeypatch.setattr(
        inverse, "_residual", lambda *args: seen.append(args) or residual(*args)
    )
    X = scale * torch.randn(9, 24, 24) / 24**0.5
    Q = linalg.cayley_transform_lower(X)
    assert bool(seen) == looks
    assert_close(Q @ Q.mT, torch.eye(24).expand_as(Q), rtol=0, atol=1e-5)


def test_matrices_that_are_only_accretive_are_looked_at(monkeypatch):
    seen = []
    monkeypatch.setattr(inverse, "_residual", lambda *args: seen.append(args) or 0)
    linalg.accretive_inverse(torch.eye(24).expand(9, -1, -1))
    assert seen


@pytest.mark.parametrize("n", [1, 3, 16, 40])
def test_an_inverse_lies_in_memory_row_by_row(n):
    S = torch.eye(n) + linalg.lower_skew(torch.randn(9, n, n))
    for M in (linalg.accretive_inverse(S), linalg.accretive_inverse(S.mT)):
        assert M.is_contiguous()


@pytest.mark.parametrize("function", [linalg.accretive_inverse, linalg.lower_skew])
def test_what_is_not_square_is_refused(function):
    with pytest.raises(InvalidTensorError, match="Expected a square matrix"):
        function(torch.ones(2, 3))


@KINDS
def test_a_skew_matrix_from_the_lower_triangle(dtype):
    X = normal(2, 4, 4, dtype=dtype)
    L = X.tril()
    assert torch.equal(linalg.lower_skew(X), L - L.mH)
    assert differentiable(linalg.lower_skew, X.requires_grad_())


def test_a_scaled_product_reads_no_memory_of_others(monkeypatch):
    """`vmap` takes 0 times the summand that is not there: it must not be NaN."""

    def full_of_nan(self, shape, **options):
        return torch.full(shape, torch.nan, dtype=self.dtype, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", full_of_nan)
    X = torch.randn(3, 2, 2)
    products = torch.func.vmap(lambda x: scaled_product(x, x, 2.0))(X)
    assert_close(products, 2 * X @ X)
