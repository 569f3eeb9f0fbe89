"""Exponentials and logarithms of skew and symmetric matrices, against SciPy.

`torch.matrix_exp` of a single matrix is no reference: its polynomial of degree 8 is
wrong by 5e-5 (pytorch #196592). In batches of two or more it is right.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import func
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets
from holdfast.linalg import chebyshev, moments, programs, sweeping

WIDE = {
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
    torch.float64: torch.float64,
    torch.complex128: torch.complex128,
}
ALL = pytest.mark.parametrize("dtype", list(WIDE), ids=str)
KINDS = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def normal(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def skew_of(*shape, size, dtype=torch.float64):
    """Return random skew matrices of a given spectral norm."""
    A = linalg.skew(normal(*shape, dtype=dtype))
    norm = torch.linalg.matrix_norm(A, 2).clamp_min(1e-30)
    return A * (size / norm)[..., None, None]


def planes(*angles, dtype=torch.float64):
    """Return the skew matrix that turns planes of two axes by the angles."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=dtype)
    return torch.block_diag(*[angle * turn for angle in angles])


def rotated(A):
    """Return the matrix in another orthonormal basis."""
    U = linalg.positive_qr(normal(*A.shape, dtype=A.dtype))
    return U @ A @ U.mH


def expm(A):
    return torch.from_numpy(scipy.linalg.expm(A.to(WIDE[A.dtype]).numpy()))


def by_eigenvectors(A):
    """Return the exponential of a skew matrix, good to some 1e-15 times its norm."""
    values, V = torch.linalg.eigh(-1j * A.to(torch.complex128))
    E = (V * (1j * values).exp().unsqueeze(-2)) @ V.mH
    return E if A.is_complex() else E.real


def by_series(A):
    """Return the exponential of one matrix, rounded from extended precision."""
    X = A.numpy().astype(np.clongdouble if A.is_complex() else np.longdouble)
    halvings = 2 + max(0, math.ceil(math.log2(abs(X).sum(-1).max(initial=1e-9))))
    identity = np.eye(len(X), dtype=X.dtype)
    E, X = identity, X / 2**halvings
    for j in range(20, 0, -1):
        E = identity + X @ E / j
    for _ in range(halvings):
        E = E @ E
    return torch.from_numpy(E.astype(A.numpy().dtype))


def exact(A):
    """Return the exponential of skew matrices, much better than their type."""
    if A.dtype != WIDE[A.dtype]:
        return by_eigenvectors(A)
    flat = A.reshape(-1, *A.shape[-2:])
    return torch.stack([by_series(a) for a in flat]).view(A.shape)


def distance(X, Y):
    """Return the spectral norm of the difference, in double precision."""
    wide = WIDE[Y.dtype]
    return float(torch.linalg.matrix_norm(X.to(wide) - Y.to(wide), 2).max())


def orthogonality(Q):
    """Return the spectral norm of Q^H Q - I, in double precision."""
    Q = Q.to(WIDE[Q.dtype])
    return distance(Q.mH @ Q, torch.eye(Q.shape[-1], dtype=Q.dtype))


def slope(function, A, G):
    """Return the gradient of <G, function(A)>."""
    A = A.detach().requires_grad_()
    return torch.autograd.grad(function(A), A, G)[0]


def skew_part(X):
    return (X - X.mH) / 2


def relative(X, Y):
    return float((X.to(Y.dtype) - Y).norm() / Y.norm())


# ---- The polynomials ----------------------------------------------------------------


def scalar(program, x):
    """Evaluate a program at ix, with its slope in x, in double precision."""
    A = torch.tensor(1j * x, dtype=torch.complex128).reshape(-1, 1, 1)
    plan = programs.Plan(program, 0, equal=True)
    none = torch.zeros(len(x), dtype=torch.float64)
    one = torch.ones_like(A)
    value = 1 + chebyshev._run(plan, none, [A]).value
    return value.flatten(), chebyshev.derivative(A, one, plan, none).flatten()


@pytest.mark.parametrize(
    ("program", "error", "steep"),
    [
        (programs.SINGLE[0], 2e-9, 6e-7),
        (programs.SINGLE[1], 1.1e-7, 1.2e-6),
        (programs.SINGLE[2], 1.8e-7, 1.2e-6),
        (programs._FINE, 3.1e-10, 2.6e-8),
        (programs.SINGLE[3], 7.6e-8, 3.2e-7),
        (programs.DOUBLE[0], 1e-15, 5e-15),  # the rounding of the evaluation
    ],
    ids=["4", "6", "8", "fine 12", "12", "18"],
)
def test_a_program_is_the_exponential_up_to_its_limit_and_not_beyond(
    program, error, steep
):
    x = torch.linspace(-program.limit, program.limit, 401).double().numpy()
    exact = torch.from_numpy(1j * x).exp()
    value, slopes = scalar(program, x)
    assert float((value - exact).abs().max()) <= error
    assert float((slopes - exact).abs().max()) <= steep
    beyond, _ = scalar(program, 3 * x)
    assert float((beyond - exact**3).abs().max()) > 1e3 * error


def test_products_of_the_value_and_of_the_gradient():
    """The counts that the docstring promises."""
    for size, value, gradient in [
        (0.07, 2, 3),
        (0.5, 3, 4),
        (0.9, 3, 5),
        (2.2, 4, 6),
        (5, 5, 8),
    ]:
        A = skew_of(8, 8, size=size).float().requires_grad_()
        A.data *= size / moments.bound(A @ A, 2)
        with torch.profiler.profile() as profile:
            E = linalg.skew_exponential(A)
        assert products(profile) == value
        with torch.profiler.profile() as profile:
            E.backward(torch.ones_like(E))
        assert products(profile) == gradient


def degree(*sizes, alike=False):
    """Return that of the program for a batch of matrices of these norms."""
    angles = torch.ones(12) if alike else torch.linspace(0, 1, 12)
    A = rotated(planes(*angles.tolist())).float() * torch.tensor(sizes)[:, None, None]
    plan = chebyshev.evaluate(A - A.mT, fixed=False).plan
    return [4, 6, 8, 12][programs.SINGLE.index(plan.program)]


def test_a_batch_takes_the_smallest_program_for_the_largest_of_its_norms():
    assert degree(0.0, 0.0) == 4
    assert degree(0.01, 0.02) == 4
    assert degree(0.01, 0.1) == 6
    assert degree(0.2, 0.0, alike=True) == 6  # by a closer bound, after a quick look
    assert degree(0.02, 0.4) == 8
    assert degree(1.0, 0.02) == 12
    assert degree(math.nan, 0.01) == 12


def test_a_quick_look_says_when_little_work_will_do(monkeypatch):
    monkeypatch.setattr(chebyshev, "moments", lambda *_: pytest.fail("looked twice"))
    assert degree(0.01, 0.02) == 4
    assert degree(0.1, 0.02) == 6
    with pytest.raises(pytest.fail.Exception, match="looked twice"):
        degree(0.2, alike=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("squarings", [0, 2])
@pytest.mark.parametrize(
    "program", [*programs.SINGLE, programs._FINE, *programs.DOUBLE]
)
def test_the_sweep_is_the_gradient_of_its_program(program, squarings, dtype):
    A = skew_of(2, 6, 6, size=1.0, dtype=dtype).requires_grad_()
    G = normal(2, 6, 6, dtype=dtype)
    plan = programs.Plan(program.halved(squarings), squarings, equal=True)
    E = chebyshev._run(plan, None, [A])
    expected = skew_part(torch.autograd.grad(E.value, A, G)[0])
    with torch.no_grad():
        swept = sweeping.sweep(A, G, plan, None, E.tensors)
    assert relative(skew_part(swept), expected) < 1e-14


@pytest.mark.parametrize("size", [3.0, 10.0, 30.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_large_norms_cost_no_orthogonality_in_single_precision(size, dtype):
    A = skew_of(200, 200, size=size).to(dtype)
    E = linalg.skew_exponential(A).to(torch.complex128)
    off = torch.linalg.matrix_norm(E.mH @ E - torch.eye(200), 2)
    assert float(off) < 3e-6


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_the_gradient_of_any_matrix_is_right_for_enormous_losses(scale, n):
    A, G = normal(2, n, n).float()
    found = slope(linalg.matrix_exponential, A, scale * G).double() / scale
    expected = slope(linalg.matrix_exponential, A, G).double()
    assert relative(found, expected) < 1e-5


ALIKE = {"a row": (slice(1, None), slice(1)), "a block": (slice(256, None), slice(256))}


@pytest.mark.parametrize(
    "size", [0.5, 1.2, 2.5, 2.6, 2.7, 2.8, 2.89, 3.0, 3.5, 5.5, 8.0, 10.0, 30.0]
)
@pytest.mark.parametrize("place", ALIKE)
def test_equal_entries_are_not_rounded_alike(place, size):
    L = torch.zeros(512, 512)
    L[ALIKE[place]] = 1.0
    A = linalg.lower_skew(L)
    A *= size / torch.linalg.matrix_norm(A, 2)
    assert orthogonality(linalg.skew_exponential(A)) < 1e-5


def test_negative_control_equal_entries_lose_digits(monkeypatch):
    L = torch.zeros(512, 512)
    L[1:, 0] = 5.5 / 511**0.5
    A = linalg.lower_skew(L)
    mended = orthogonality(linalg.skew_exponential(A))
    monkeypatch.setattr(chebyshev, "rounded_alike", lambda D, A: False)
    assert orthogonality(linalg.skew_exponential(A)) > max(2e-5, 5 * mended)


def products(profile):
    kinds = ("aten::mm", "aten::addmm", "aten::addmm_")
    return sum(event.count for event in profile.key_averages() if event.key in kinds)


@given(
    st.integers(2, 12),
    st.integers(0, 2**31),
    st.sampled_from([torch.float64, torch.complex128]),
    st.sampled_from(["dense", "low rank", "sparse", "one plane"]),
)
def test_the_bound_is_above_the_norm(n, seed, dtype, kind):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, n, dtype=dtype, generator=generator)
    if kind == "low rank":
        X = X[:, :1] @ X[:1]
    elif kind == "sparse":
        X = X * (torch.rand(n, n, generator=generator) < 0.2)
    elif kind == "one plane":
        X[2:], X[:, 2:] = 0, 0
    A = X - X.mH
    norm = float(torch.linalg.matrix_norm(A, 2)) * (1 - 1e-12)
    assert float(moments.bound(A @ A, 2)) >= norm
    assert float(moments.bound(A @ A @ A, 3)) >= norm
    assert float((A @ A).abs().sum(-1).max().sqrt()) >= norm
    for found in all_moments(A):
        assert norm == 0 or not moments.within(found, norm)
        assert moments.within(found, 1e-20 + norm * (1.1 + n**0.25))


def of_square(square):
    return moments.moments(square, moments.second_moment(square))


def all_moments(A):
    """Return the moments of every kind of basis that the programs have."""
    square, cube = A @ A, A @ A @ A
    known = of_square(square)
    rows = [([cube], (1.0,)), ([cube, cube @ cube], (1.0,))]
    rows += [([square @ (0.4 * A + 0.1 * square)], (0.4, 0.1))]
    more = [moments.higher(known, [A, square, *rest], row) for rest, row in rows]
    return [known, *more]


def test_the_bounds_of_higher_moments_are_close_for_random_matrices():
    A = skew_of(256, 256, size=1.0)
    for found, far in zip(all_moments(A), (1.9, 1.35, 1.2, 1.2), strict=True):
        assert moments.within(found, far)
        assert not moments.within(found, 1.05)


def test_negative_control_the_bound_of_real_matrices_is_no_bound_for_complex_ones():
    A = torch.zeros(3, 3, dtype=torch.complex128)
    A[0, 0] = 1j  # a singular value without a partner
    assert float(moments.bound((A @ A).real, 2)) < 0.9
    assert float(moments.bound(A @ A, 2)) >= 1
    found = of_square(A @ A)
    assert not moments.within(found, 1)
    assert moments.within(of_square((A @ A).real), 1)


# ---- The exponential of skew matrices -----------------------------------------------


@ALL
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 24])
def test_the_exponential_is_right_at_every_norm(n, dtype):
    eps = torch.finfo(dtype).eps
    for size in (0, 1e-8, 0.03, 0.07, 0.3, 0.9, 1.1, 2, 3.2, 9, 30, 100):
        A = skew_of(n, n, size=size, dtype=WIDE[dtype]).to(dtype)
        E = linalg.skew_exponential(A)
        # a few roundings, and those of A itself, which the exponential takes on
        allowed = eps * (4 + math.sqrt(n) + 2 * size)
        assert E.dtype == dtype
        assert distance(E, exact(A)) <= allowed
        assert orthogonality(E) <= 2 * allowed  # to first order, both sides err


@KINDS
def test_the_references_agree_with_scipy(dtype):
    for size in (0.1, 1, 10):
        A = skew_of(9, 9, size=size, dtype=dtype)
        assert distance(by_series(A), expm(A)) <= 2e-15 * (3 + size)
        assert distance(by_eigenvectors(A), expm(A)) <= 2e-15 * (3 + size)


def test_the_comparison_would_see_a_truncated_series():
    A = skew_of(6, 6, size=0.3)
    taylor = sum(torch.matrix_power(A, j) / math.factorial(j) for j in range(11))
    assert distance(taylor, exact(A)) > 3 * 2.2e-16 * (4 + math.sqrt(6))


@pytest.mark.parametrize("n", [200, 300])
@pytest.mark.parametrize("size", [0.5, 3, 60])
def test_large_matrices_are_orthogonal_in_single_precision(n, size):
    A = skew_of(n, n, size=size).float()
    E = linalg.skew_exponential(A)
    torchs = torch.matrix_exp(torch.stack([A, A]))[0]
    assert orthogonality(E) <= min(1e-5, orthogonality(torchs))
    assert distance(E, exact(A)) <= distance(torchs, exact(A))


@pytest.mark.parametrize("size", [1, 3])
def test_512_is_orthogonal_to_1e_5_in_single_precision_and_better_than_torchs(size):
    A = linalg.skew(torch.randn(512, 512))
    A *= size / math.sqrt(4 * 512)  # the norm of such a matrix, up to 2 percent
    E = linalg.skew_exponential(A)
    ours, torchs = orthogonality(E), orthogonality(torch.matrix_exp(A))
    assert ours <= 1e-5
    assert ours <= torchs


@ALL
@pytest.mark.parametrize(
    "angles",
    [
        (0, 0, 0),
        (1.0, 1.0, 1.0),
        (math.pi, math.pi, 0.5),
        (-math.pi, math.pi, 0),
        (2 * math.pi, 2 * math.pi, 2 * math.pi),
        (1e-9, 1.0, 50.0),
    ],
    ids=str,
)
def test_repeated_and_special_eigenvalues(angles, dtype):
    A = planes(*angles).to(WIDE[dtype])
    for B in (A, rotated(A)):
        B = skew_part(B).to(dtype)
        E = linalg.skew_exponential(B)
        eps = torch.finfo(dtype).eps
        assert distance(E, exact(B)) <= eps * (8 + 2 * max(map(abs, angles)))
        assert bool(torch.isfinite(slope(linalg.skew_exponential, B, E * 0 + 1)).all())


@ALL
def test_zero_is_mapped_to_the_identity_with_the_identity_as_derivative(dtype):
    for n in (1, 2, 3, 5):
        A, G = torch.zeros(n, n, dtype=dtype), normal(n, n, dtype=dtype)
        assert torch.equal(linalg.skew_exponential(A), torch.eye(n, dtype=dtype))
        found = slope(linalg.skew_exponential, A, G)
        # the slope of the polynomial of degree 4 is wrong by 1.1e-7
        error = 2.5e-7 if dtype != WIDE[dtype] else 1e-15
        assert_close(found, skew_part(G), rtol=error, atol=0)


def test_blocks_stay_blocks():
    A, B = skew_of(4, 4, size=1.5), skew_of(5, 5, size=0.2)
    E = linalg.skew_exponential(torch.block_diag(A, B))
    assert not E[:4, 4:].any()
    assert not E[4:, :4].any()
    assert_close(E[:4, :4], linalg.skew_exponential(A), rtol=0, atol=1e-14)


@ALL
@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_a_batch_is_its_matrices_whatever_their_norms(n, dtype):
    sizes = torch.tensor([0.0, 0.01, 0.5, 2.0, 20.0, 90.0]).to(WIDE[dtype])
    A = skew_of(6, n, n, size=1.0, dtype=WIDE[dtype]) * sizes[:, None, None]
    A, G = A.to(dtype), normal(6, n, n, dtype=dtype)
    together = linalg.skew_exponential(A)
    slopes = slope(linalg.skew_exponential, A, G)
    for i, size in enumerate(sizes.real.tolist()):
        allowed = torch.finfo(dtype).eps * (6 + 2 * size)
        assert distance(together[i], exact(A[i])) <= allowed
        alone = slope(linalg.skew_exponential, A[i], G[i])
        assert relative(slopes[i], alone.to(slopes.dtype) + 1e-30) <= 1e-5


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 3, 3), (0, 2, 2), (0, 0)], ids=str)
def test_nothing_is_mapped_to_nothing(shape):
    A = torch.zeros(shape, requires_grad=True)
    E = linalg.skew_exponential(A)
    E.sum().backward()
    assert E.shape == A.grad.shape == shape


def test_batches_of_several_dimensions_and_other_strides():
    A = skew_of(2, 3, 5, 5, size=1.3)
    E = linalg.skew_exponential(A)
    other = A.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    assert_close(linalg.skew_exponential(other), E, rtol=0, atol=1e-15)
    assert_close(linalg.skew_exponential(A.mT), E.mT, rtol=0, atol=1e-15)
    assert_close(E[1, 2], linalg.skew_exponential(A[1, 2]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_so_and_harms_no_other_matrix(bad):
    A = skew_of(3, 5, 5, size=1.0)
    A[1, 0, 1] = bad
    E = linalg.skew_exponential(A)
    assert bool(E[1].isnan().any())
    assert distance(E[::2], exact(A[::2])) < 1e-14
    assert bool(linalg.skew_exponential(A[1]).isnan().any())


# ---- Its derivatives ----------------------------------------------------------------


def reference(A, G):
    """Return the gradient on skew matrices from extended precision.

    The derivative in a direction G is a block of the exponential of [[A, G], [0, A]],
    and its adjoint the derivative at A^H.
    """
    A, G = A.to(WIDE[A.dtype]), G.to(WIDE[A.dtype])
    size = G.norm() / (1 + A.norm())
    block = torch.cat(
        [torch.cat([A.mH, G / size], -1), torch.cat([A * 0, A.mH], -1)], -2
    )
    n = len(A)
    return skew_part(by_series(block)[:n, n:]) * size


@ALL
@pytest.mark.parametrize("n", [2, 3, 4, 16])
def test_the_gradient_is_right_at_every_norm(n, dtype):
    for size in (1e-4, 0.06, 0.3, 1, 2, 5, 25, 100):
        A = skew_of(n, n, size=size, dtype=WIDE[dtype]).to(dtype)
        G = normal(n, n, dtype=dtype)
        error = relative(slope(linalg.skew_exponential, A, G), reference(A, G))
        assert error <= torch.finfo(dtype).eps * (15 + 3 * size)


@ALL
@pytest.mark.parametrize("shape", [(5, 5), (3, 5, 5), (2, 3, 5, 5)], ids=str)
def test_the_gradient_has_no_preference_for_strides_and_changes_no_argument(
    shape, dtype
):
    for size in (0.05, 0.8, 1.5, 4):
        A = skew_of(*shape, size=size, dtype=dtype)
        G = normal(*shape, dtype=dtype)
        expected = slope(linalg.skew_exponential, A, G)
        for H in (G.mT.contiguous().mT, G.mH.contiguous().mH):
            before = H.clone()
            found = slope(linalg.skew_exponential, A, H)
            assert relative(found, expected) <= 4 * torch.finfo(dtype).eps
            assert torch.equal(H, before)
        ones = torch.ones((), dtype=dtype).expand(shape)
        found = slope(linalg.skew_exponential, A, ones)
        expected = slope(linalg.skew_exponential, A, ones.contiguous())
        assert torch.equal(found, expected)


@ALL
@pytest.mark.parametrize("n", [3, 8])
def test_the_gradient_does_not_depend_on_the_scale_of_the_loss(n, dtype):
    A = skew_of(n, n, size=1.7, dtype=WIDE[dtype]).to(dtype)
    G = normal(n, n, dtype=dtype)
    expected = reference(A, G)
    for scale in (1e-6, 1e-3, 1.0, 1e3, 1e6):
        found = slope(linalg.skew_exponential, A, scale * G).to(expected.dtype) / scale
        assert relative(found, expected) <= 20 * torch.finfo(dtype).eps


def test_negative_control_torchs_gradient_does():
    A, G = skew_of(16, 16, size=1.7).float(), torch.randn(16, 16)
    found = slope(torch.matrix_exp, torch.stack([A, A]), 1e6 * torch.stack([G, G]))
    assert relative(skew_part(found[0] / 1e6), reference(A, G)) > 1e-6


def of_any(function):
    """Make a function of all matrices out of one of skew matrices."""
    return lambda X: function(X - X.mH)


@KINDS
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 2), 1.0),
        ((3, 3), 0.0),
        ((3, 3), 0.4),
        ((2, 3, 3), 1.5),
        ((4, 4), 0.0),
        ((4, 4), 1.0),
        ((1, 2, 4, 4), 0.1),
        ((1, 1), 0.5),
    ],
    ids=str,
)
def test_derivatives_of_both_orders_and_modes(shape, size, dtype):
    X = (size * normal(*shape, dtype=dtype)).requires_grad_()
    function = of_any(linalg.skew_exponential)
    assert gradcheck(
        function,
        X,
        check_forward_ad=True,
        check_batched_grad=True,
        # torch itself fails an assertion at `X - X.mH` of complex matrices
        check_batched_forward_grad=not dtype.is_complex,
    )
    assert gradgradcheck(function, X, check_fwd_over_rev=True, check_batched_grad=True)


def test_the_second_derivative_of_a_batch_of_unequal_matrices():
    X = normal(3, 4, 4) * torch.tensor([0.0, 0.3, 3.0]).double()[:, None, None]
    function = of_any(linalg.skew_exponential)
    assert gradgradcheck(function, X.requires_grad_(), check_fwd_over_rev=True)


TRANSFORMS = {
    "jacrev": func.jacrev,
    "jacfwd": func.jacfwd,
    "hessian": lambda f: func.hessian(lambda X: f(X).sin().sum()),
    "forward over forward": lambda f: func.jacfwd(
        func.jacfwd(lambda X: f(X).sin().sum())
    ),
    "reverse over reverse": lambda f: func.jacrev(
        func.jacrev(lambda X: f(X).sin().sum())
    ),
    "reverse over forward": lambda f: func.jacrev(
        func.jacfwd(lambda X: f(X).sin().sum())
    ),
    "vmap": lambda f: func.vmap(f, in_dims=1),
    "vmap of grad": lambda f: func.vmap(func.grad(lambda X: f(X).sin().sum())),
    "grad of vmap": lambda f: func.grad(lambda X: func.vmap(f)(X).sin().sum()),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("kind", ["skew", "symmetric"])
def test_the_transforms_of_torch_func(transform, n, kind):
    if kind == "skew":
        ours = of_any(linalg.skew_exponential)
        theirs = of_any(linalg.matrix_exponential)
    else:
        ours = lambda X: linalg.symmetric_exponential(X + X.mT)  # noqa: E731
        theirs = lambda X: linalg.matrix_exponential(X + X.mT)  # noqa: E731
    X = normal(n, n, n) / 2
    X = X[0] if transform in list(TRANSFORMS.values())[:6] else X
    assert_close(transform(ours)(X), transform(theirs)(X), rtol=1e-9, atol=1e-9)


# ---- Where the host may not look ----------------------------------------------------


@ALL
def test_the_fixed_work_is_right_up_to_a_norm_of_1000(dtype):
    sizes = [0.0, 1e-6, 0.5, 3.0, 30.0, 100.0, 1000.0]
    A = skew_of(7, 6, 6, size=1.0, dtype=WIDE[dtype])
    A = (A * torch.tensor(sizes)[:, None, None]).to(dtype).requires_grad_()
    G = normal(7, 6, 6, dtype=dtype)
    E = chebyshev.evaluate(A, fixed=True)
    value = linalg.products.add_to_diagonal(E.value, 1)
    found = skew_part(torch.autograd.grad(value, A, G)[0])
    with torch.no_grad():
        swept = sweeping.sweep(A, G, E.plan, E.halvings, E.tensors)
    for i, size in enumerate(sizes):
        allowed = torch.finfo(dtype).eps * (15 + 3 * size)
        a, g = A[i].detach(), G[i]
        assert distance(value[i].detach(), exact(a)) <= allowed
        assert relative(found[i], reference(a, g)) <= allowed
        assert relative(skew_part(swept[i]), reference(a, g)) <= allowed


def test_the_fixed_work_says_so_where_it_does_not_suffice():
    A = skew_of(2, 4, 4, size=1.0) * torch.tensor([1.0, 1e4]).double()[:, None, None]
    E = linalg.products.add_to_diagonal(chebyshev.evaluate(A, fixed=True).value, 1)
    assert bool(E[1].isnan().all())
    assert distance(E[0], exact(A[0])) < 1e-14


@pytest.mark.parametrize("n", [2, 3, 5])
def test_tensors_without_values_have_shapes(n):
    A = torch.zeros(2, n, n, device="meta", requires_grad=True)
    for function in (linalg.skew_exponential, linalg.symmetric_exponential):
        E = function(A)
        assert E.shape == A.shape
        assert E.is_meta
        assert torch.autograd.grad(E.sum(), A)[0].shape == A.shape


def test_export_records_ordinary_operations():
    class Rotation(torch.nn.Module):
        def forward(self, X):
            return linalg.skew_exponential(X - X.mT)

    X = normal(5, 5)
    exported = torch.export.export(Rotation(), (X,))
    for Y in (X, 20 * X):
        expected = linalg.skew_exponential(Y - Y.mT)
        assert_close(exported.module()(Y), expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["fx, real", "fx, fake", "jit"])
@pytest.mark.parametrize("kind", ["skew", "symmetric"])
def test_other_tracers_record_what_is_right_for_other_norms(how, kind):
    if kind == "skew":
        function, tolerance = of_any(linalg.skew_exponential), 1e-13
    else:
        function, tolerance = (lambda X: linalg.symmetric_exponential(X + X.mT)), 1e-9
    X = normal(4, 4) / 8
    if how == "jit":
        recorded = torch.jit.trace(function, X)
    else:
        recorded = make_fx(function, tracing_mode=how[4:])(X)
    assert_close(recorded(8 * X), function(8 * X), rtol=tolerance, atol=tolerance)


def test_dynamo_records_one_graph():
    compiled = torch.compile(
        of_any(linalg.skew_exponential), backend="aot_eager", fullgraph=True
    )
    X = normal(5, 5).requires_grad_()
    G = normal(5, 5)
    expected = slope(of_any(linalg.skew_exponential), X, G)
    assert_close(torch.autograd.grad(compiled(X), X, G)[0], expected)


# ---- Closed forms -------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3])
def test_closed_forms_are_the_series_at_every_angle(n):
    sizes = torch.tensor([0, 1e-12, 1e-4, 0.5, 0.9999, 1.0, 1.0001, 3.14, 6.3, 100.0])
    A = skew_of(10, n, n, size=1.0) * sizes.double()[:, None, None]
    assert distance(linalg.skew_exponential(A), exact(A)) < 1e-13
    single = linalg.skew_exponential(A.float())
    for i, size in enumerate(sizes.tolist()):
        assert distance(single[i], exact(A[i].float())) < 6e-8 * (6 + size)


def test_closed_forms_read_the_skew_part_alone():
    for n in (2, 3):
        X = normal(n, n)
        E = linalg.skew_exponential(X)
        assert_close(E, linalg.skew_exponential(skew_part(X)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [0.0, 0.4, 2.0])
def test_a_turned_base_has_every_derivative(size):
    X = (size * normal(2, 3, 3)).requires_grad_()
    B = normal(2, 3, 3).requires_grad_()  # orthogonal or not
    expected = B @ linalg.skew_exponential(linalg.lower_skew(X))
    assert_close(linalg.skew_exponential_lower(X, B), expected, rtol=0, atol=1e-14)
    modes = {"check_forward_ad": True, "check_batched_grad": True}
    assert gradcheck(linalg.skew_exponential_lower, (X, B), **modes)
    assert gradgradcheck(linalg.skew_exponential_lower, (X, B))
    b = B.detach()[0]
    ours = func.hessian(lambda X: linalg.skew_exponential_lower(X, b).sin().sum())
    theirs = func.hessian(
        lambda X: (b @ linalg.skew_exponential(linalg.lower_skew(X))).sin().sum()
    )
    assert_close(ours(X.detach()[0]), theirs(X.detach()[0]), rtol=0, atol=1e-13)


@ALL
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("based", [False, True])
def test_the_lower_triangle_and_the_base_are_those_of_single_steps(n, dtype, based):
    for shape in ((n, n), (3, n, n), (2, 2, n, n)):
        X, G = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
        base = exact(skew_of(n, n, size=2.0, dtype=dtype)).to(dtype) if based else None
        steps = lambda X: linalg.skew_exponential(linalg.lower_skew(X))  # noqa: E731
        expected = steps(X) if base is None else base @ steps(X)
        found = linalg.skew_exponential_lower(X, base)
        eps = 40 * torch.finfo(dtype).eps
        assert_close(found, expected, rtol=0, atol=eps)
        ours = slope(lambda X, B=base: linalg.skew_exponential_lower(X, B), X, G)
        theirs = slope(steps, X, G if base is None else base.mH @ G)
        assert_close(ours, theirs, rtol=0, atol=4 * eps)
        assert not ours.triu(1).any()


@KINDS
@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 5)], ids=str)
def test_derivatives_of_both_orders_of_the_lower_triangle(shape, dtype):
    X = normal(*shape, dtype=dtype).requires_grad_()
    base = exact(skew_of(*shape[-2:], size=2.0, dtype=dtype))
    for function in (
        linalg.skew_exponential_lower,
        lambda X: linalg.skew_exponential_lower(X, base),
    ):
        assert gradcheck(function, (X,), check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(function, (X,))
    B = base.requires_grad_()
    assert gradcheck(linalg.skew_exponential_lower, (X, B), check_forward_ad=True)


# ---- The exponential of symmetric matrices ------------------------------------------


def hermitian(*shape, size, dtype=torch.float64):
    S = linalg.symmetric(normal(*shape, dtype=dtype))
    return S * (size / torch.linalg.matrix_norm(S, 2))[..., None, None]


@ALL
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_the_exponential_of_symmetric_matrices_is_scipys(n, dtype):
    for size in (1e-5, 0.3, 3, 20):
        S = hermitian(n, n, size=size, dtype=WIDE[dtype]).to(dtype)
        W = linalg.symmetric_exponential(S)
        assert torch.equal(W, W.mH)
        # SciPy's own error is 1e-13 and more
        assert relative(W, expm(S)) <= 2 * torch.finfo(dtype).eps + 2e-12


@KINDS
@pytest.mark.parametrize("values", [(0, 0, 0, 0), (1, 1, 1, 2), (-1, 3, 3, 3 + 1e-9)])
def test_derivatives_where_eigenvalues_meet(values, dtype):
    S = rotated(torch.diag(torch.tensor(values, dtype=dtype))).requires_grad_()

    def function(X):
        return linalg.symmetric_exponential((X + X.mH) / 2)

    assert gradcheck(function, S, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, S, check_fwd_over_rev=True, check_batched_grad=True)


def test_negative_control_the_eigenvectors_themselves_have_no_derivative_there():
    S = torch.eye(3).requires_grad_()
    values, V = torch.linalg.eigh(S)
    W = (V * values.exp()) @ V.mT
    assert not bool(torch.isfinite(torch.autograd.grad(W[0].sum(), S)[0]).all())


@ALL
def test_the_symmetric_gradient_is_torchs_at_every_scale_of_the_loss(dtype):
    S, G = hermitian(2, 6, 6, size=4, dtype=dtype), normal(2, 6, 6, dtype=dtype)
    wide = WIDE[dtype]
    expected = slope(torch.matrix_exp, S.to(wide), G.to(wide))
    expected = (expected + expected.mH) / 2
    for scale in (1e-6, 1, 1e6):
        found = slope(linalg.symmetric_exponential, S, scale * G).to(wide) / scale
        assert relative(found, expected) <= 2 * torch.finfo(dtype).eps + 1e-13


@settings(max_examples=20)
@given(st.integers(1, 120), st.integers(0, 2**31), st.floats(-6, 1.3), st.booleans())
def test_the_symmetric_exponential_of_any_size_and_norm(n, seed, exponent, repeated):
    generator = torch.Generator().manual_seed(seed)
    V = linalg.positive_qr(torch.randn(n, n, generator=generator).double())
    values = torch.randn(n, generator=generator).double()
    values = values.round() if repeated else values
    values *= 10**exponent / values.abs().max().clamp_min(1e-30)
    S = linalg.symmetric((V * values) @ V.mT)
    W = linalg.symmetric_exponential(S)
    assert relative(W, expm(S)) <= 1e-13 * (10 + n)
    G = torch.randn(n, n, generator=generator)
    slopes = [
        slope(linalg.symmetric_exponential, S.float(), scale * G) / scale
        for scale in (1e-6, 1.0, 1e6)
    ]
    expected = slope(linalg.symmetric_exponential, S.float().double(), G.double())
    for found in slopes:
        assert relative(found, expected) <= 2e-7


def test_large_eigenvalues_do_not_overflow_in_the_quotients():
    S = torch.diag(torch.tensor([80.0, -600.0, 0.0]))
    assert bool(torch.isfinite(slope(linalg.symmetric_exponential, S, S)).all())


# ---- The logarithm of rotations -----------------------------------------------------


def rotation(n, dtype=torch.float64):
    Q = linalg.positive_qr(normal(n, n, dtype=dtype))
    if not dtype.is_complex and torch.linalg.det(Q) < 0:
        Q[:, 0] *= -1
    return Q


@KINDS
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 64, 200])
def test_the_logarithm_inverts_the_exponential(n, dtype):
    Q = rotation(n, dtype)
    A = linalg.skew_logarithm(Q)
    assert torch.equal(A, -A.mH)
    assert A.dtype == dtype
    assert torch.linalg.matrix_norm(A, 2) <= math.pi + 1e-12
    assert distance(by_eigenvectors(A), Q) < 3e-15 * (4 + math.sqrt(n))


@KINDS
def test_the_logarithm_is_scipys_and_the_skew_matrix_it_came_from(dtype):
    A = skew_of(2, 3, 7, 7, size=3.1, dtype=dtype)
    found = linalg.skew_logarithm(linalg.skew_exponential(A))
    assert_close(found, A, rtol=0, atol=1e-12)
    Q = linalg.skew_exponential(A[0, 0])
    expected = torch.from_numpy(scipy.linalg.logm(Q.numpy())).to(dtype)
    assert_close(linalg.skew_logarithm(Q), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "gaps",
    [
        (0.0,),
        (0.0, 0.0, 0.0),
        (0.0, 2.0, 2.0),
        (0.0, 1e-9, 1e-5),
        (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12),
        (0.0, math.pi, math.pi),
        (0.0999, 0.1001, 0.0),
        (1e-16, 1e-15, 1e-14),
    ],
    ids=str,
)
def test_T9_the_logarithm_is_exact_and_real_at_half_turns(gaps):
    angles = [math.pi - gap for gap in gaps]
    for Q in (exact(planes(*angles)), rotated(exact(planes(*angles)))):
        A = linalg.skew_logarithm(Q)
        assert torch.equal(A, -A.mT)
        assert distance(exact(A), Q) < 2e-14
        assert torch.linalg.matrix_norm(A, 2) <= math.pi + 1e-14


def test_negative_control_the_real_part_of_the_complex_logarithm_is_none():
    Q = rotated(exact(planes(math.pi, math.pi)))
    values, V = torch.linalg.eig(Q)
    naive = (V @ torch.diag(values.log()) @ torch.linalg.inv(V)).real
    assert distance(exact(skew_part(naive)), Q) > 0.1


def test_half_turns_in_a_batch():
    half, other = rotated(exact(planes(math.pi, 1.0))), rotation(4)
    Q = torch.stack([other, half, torch.eye(4, dtype=half.dtype), -half @ half])
    assert distance(exact(linalg.skew_logarithm(Q)), Q) < 1e-13


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_reflection_has_no_real_logarithm(n):
    Q = rotation(n)
    Q[:, 0] *= -1
    with pytest.raises(errors.InvalidTensorError, match="determinant -1"):
        linalg.skew_logarithm(Q)


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-12, 1e-9, 1e-6])
@pytest.mark.parametrize("second", [0, 1])
def test_mirrored_eigenvalues_are_told_apart(second, gap):
    """Where the Hermitian matrix has almost equal eigenvalues, Q may not."""
    one, other = (2 * linalg.logarithm._ANGLES[i] for i in (0, second))
    angles = [0.2, one - 0.2 + gap, 1.0, one - 1.0 - gap, -0.3, other + 0.3 + gap]
    U = rotation(6, torch.complex128)
    unitary = (U * (1j * torch.tensor(angles, dtype=torch.float64)).exp()) @ U.mH
    real = rotated(exact(planes(one, one + gap, 0.0, other, other, 0.0)))
    for Q in (unitary, real):
        A = linalg.skew_logarithm(Q)
        assert torch.linalg.matrix_norm(A, 2) <= math.pi + 1e-14
        assert distance(exact(A), Q) < 1e-13
    batch = torch.stack([unitary, U])
    mapped = torch.func.vmap(linalg.skew_logarithm)(batch)  # which may not look
    assert_close(mapped, linalg.skew_logarithm(batch), rtol=0, atol=1e-13)


def test_negative_control_one_hermitian_matrix_does_not_tell_mirrored_ones_apart(
    monkeypatch,
):
    monkeypatch.setattr(linalg.logarithm, "_ANGLES", linalg.logarithm._ANGLES[:1])
    mirror = 2 * linalg.logarithm._ANGLES[0]
    Q = rotated(exact(planes(mirror, mirror, 0.0)))
    assert distance(exact(linalg.skew_logarithm(Q)), Q) > 1e-3


@pytest.mark.parametrize("border", [0.05, 0.1, 0.125, 0.2])
def test_no_rounding_tears_a_pair_of_eigenvalues_apart(border):
    """Where those next to -1 end, both of a pair are on the same side."""
    angles = [math.pi - border + roundings * 4e-16 for roundings in range(-8, 9)]
    Q = rotated(exact(planes(*angles, math.pi, 1.0)))
    A = linalg.skew_logarithm(Q)
    assert torch.linalg.matrix_norm(A, 2) <= math.pi + 1e-14
    assert distance(exact(A), Q) < 4e-14


# ---- The maps -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "chosen"),
    [
        (maps.Skew, linalg.skew_exponential),
        (maps.Symmetric, linalg.symmetric_exponential),
        (None, linalg.matrix_exponential),
    ],
)
def test_the_map_takes_the_function_of_what_it_is_given(first, chosen):
    layer = torch.nn.Linear(4, 4, bias=False)
    if first is not None:
        holdfast.register_parametrization(layer, "weight", first())
    else:
        layer.weight.data = torch.eye(4)
    link = maps.MatrixExp()
    holdfast.register_parametrization(layer, "weight", link)
    assert maps.exponential._EXPONENTIALS[link._given()] is chosen


class Calls:
    """A backend that notes what the graphs call, and changes nothing."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, example_inputs):
        self.graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward

    def mention(self, name):
        return [any(name in call for call in calls) for calls in self.graphs]


@pytest.mark.parametrize("first", [maps.Skew, maps.Symmetric])
def test_the_compiler_knows_what_the_map_is_given(first):
    torch._dynamo.reset()
    layer = torch.nn.Linear(5, 5)
    for link in (first(), maps.MatrixExp()):
        holdfast.register_parametrization(layer, "weight", link)
    calls, x = Calls(), torch.randn(2, 5)
    value = torch.compile(layer, backend=calls, fullgraph=True)(x)
    assert_close(value, layer(x))
    general = first is not maps.Skew  # the negative control
    assert calls.mention("matrix_exp") == [general]


def test_a_graph_is_bound_to_what_the_map_is_given():
    torch._dynamo.reset()
    skew, free = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    free.weight.data = torch.eye(4)
    holdfast.register_parametrization(skew, "weight", maps.Skew())
    for layer in (skew, free):
        holdfast.register_parametrization(layer, "weight", maps.MatrixExp())
    free.parametrizations.weight.original.data.normal_()
    calls = Calls()
    read = torch.compile(lambda layer: layer.weight + 0, backend=calls, fullgraph=True)
    for layer in (skew, free, skew):
        assert_close(read(layer), layer.weight)
    assert calls.mention("matrix_exp") == [False, True]


def test_a_free_matrix_that_happens_to_be_skew_keeps_its_whole_gradient():
    layer = torch.nn.Linear(3, 3, bias=False)
    layer.weight.data = torch.eye(3)
    holdfast.register_parametrization(layer, "weight", maps.MatrixExp())
    layer.weight.sum().backward()
    original = layer.parametrizations.weight.original
    assert not original.any()
    assert_close(original.grad, torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(2, 3), (3,), ()])
@pytest.mark.parametrize(
    "function",
    [linalg.skew_exponential, linalg.symmetric_exponential, linalg.skew_logarithm],
)
def test_what_is_not_square_is_refused(function, shape):
    with pytest.raises(errors.InvalidTensorError, match=r"Expected a square matrix"):
        function(torch.ones(shape))


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 2**31), st.floats(-6, 2))
def test_the_exponential_of_any_size_and_norm_is_orthogonal(n, seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    A = linalg.skew(torch.randn(n, n, generator=generator))
    size = 10**exponent
    A = A * (size / torch.linalg.matrix_norm(A, 2).clamp_min(1e-30))
    E = linalg.skew_exponential(A)
    allowed = 1.2e-7 * (4 + math.sqrt(n) + 2 * size)
    assert orthogonality(E) <= allowed
    assert distance(E, exact(A)) <= allowed
    assert distance(linalg.skew_exponential(-A), E.mT) <= 2 * allowed


@pytest.mark.parametrize(
    ("first", "reached", "other"),
    [
        (maps.Skew, sets.Stiefel, sets.SymmetricPositiveDefinite),
        (maps.Symmetric, sets.SymmetricPositiveDefinite, sets.Stiefel),
    ],
)
def test_the_codomain_is_what_the_map_before_leads_to(first, reached, other):
    layer, map_ = torch.nn.Linear(4, 4), maps.MatrixExp()
    assert isinstance(map_.codomain, sets.GeneralLinear)
    holdfast.register_parametrization(layer, "weight", first())
    holdfast.register_parametrization(layer, "weight", map_)
    assert isinstance(map_.codomain, reached)
    assert map_.codomain.contains(layer.weight)
    (line,) = holdfast.report(layer).tensors
    assert line.set == f"{reached.__name__}()"
    layer.weight = reached().sample((4, 4))
    with pytest.raises(errors.NotInSetError, match=f"not in {reached.__name__}"):
        layer.weight = other().sample((4, 4))
