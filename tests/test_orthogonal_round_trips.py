"""Coordinates of every orthogonal matrix, and the nearest one to any matrix.

On matrices of any size, and on those where inverses are known to fail: of both
determinants, with eigenvalues -1, repeated or nearly so, and without any zero.
"""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import CASES
from families import wide
from holdfast import linalg, sets
from test_orthogonal_properties import (
    distance,
    off,
    property_no_worse,
    sizes,
    slope,
)

DOUBLE = (torch.float64, torch.complex128)
SINGLE = (torch.float32, torch.complex64)


def turns(n, angle):
    """Return the rotation by one angle in as many planes as there are."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return torch.block_diag(
        *[turn] * (n // 2), torch.ones(n % 2, n % 2, dtype=torch.float64)
    )


def orthogonal(kind, n, generator):
    """Return a real orthogonal matrix of a kind."""
    haar = linalg.positive_qr(
        torch.randn(n, n, dtype=torch.float64, generator=generator)
    )
    identity = torch.eye(n, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    return {
        "random": lambda: haar,
        "mirrored": lambda: haar * torch.where(torch.arange(n) == 0, -1, 1),
        "identity": lambda: identity,
        "minus": lambda: -identity,
        "permutation": lambda: identity[order],
        "signed permutation": lambda: identity[order] * haar[0].sign(),
        "reflection": lambda: identity - 2 / n,
        "half turns": lambda: haar @ turns(n, math.pi) @ haar.mT,
        "nearly half turns": lambda: haar @ turns(n, math.pi - 1e-7) @ haar.mT,
        "equal turns": lambda: haar @ turns(n, 1.0) @ haar.mT,
        "exact half turns": lambda: turns(n, math.pi).round(),
    }[kind]()


KINDS = (
    "random",
    "mirrored",
    "identity",
    "minus",
    "permutation",
    "signed permutation",
    "reflection",
    "half turns",
    "nearly half turns",
    "equal turns",
    "exact half turns",
)


@st.composite
def matrices(draw, dtypes=DOUBLE, largest=300, square=True):
    dtype, n = draw(st.sampled_from(dtypes)), min(largest, draw(sizes))
    k = n if square else min(n, draw(sizes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    W = orthogonal(draw(st.sampled_from(KINDS)), n, generator).to(dtype)
    if dtype.is_complex:  # other eigenvalues, or a matrix that happens to be real
        phase = draw(st.sampled_from((1, 1j, -1, math.sqrt(0.5) * (1 + 1j))))
        W = W * phase
    return W[:, :k]


# ---- Coordinates --------------------------------------------------------------------


def base_of(Q):
    generator = torch.Generator().manual_seed(3)
    return linalg.positive_qr(torch.randn(Q.shape, dtype=Q.dtype, generator=generator))


def of_thin(inverse, forward, base=None):
    def round_trip(Q):
        around = () if base is None else (base(Q),)
        *parts, signs = inverse(Q, *around)
        return (*parts, signs), forward(*parts, *around) * signs.unsqueeze(-2)

    return round_trip


def logarithm(Q):
    if not Q.is_complex() and torch.linalg.det(Q) < 0:  # no real logarithm
        Q = torch.cat([-Q[:, :1], Q[:, 1:]], 1)
        A = linalg.skew_logarithm(Q)
        E = linalg.skew_exponential(A)
        return (A,), torch.cat([-E[:, :1], E[:, 1:]], 1)
    A = linalg.skew_logarithm(Q)
    return (A,), linalg.skew_exponential(A)


SQUARE = {
    "cayley": of_thin(linalg.cayley_inverse, linalg.cayley_transform),
    "signed logarithm": of_thin(linalg.signed_logarithm, linalg.skew_exponential),
    "skew logarithm": logarithm,
}
THIN = {
    "thin cayley": of_thin(linalg.thin_cayley_inverse, linalg.thin_cayley),
    "thin cayley, lower": of_thin(
        linalg.thin_cayley_lower_inverse, linalg.thin_cayley_lower
    ),
    "thin cayley at a base": of_thin(
        linalg.thin_cayley_inverse_at, linalg.thin_cayley_at, base_of
    ),
    "reflectors": of_thin(linalg.reflectors, linalg.reflections),
}


def property_round_trip(round_trip, Q) -> None:
    coordinates, back = round_trip(Q)
    assert all(bool(torch.isfinite(part).all()) for part in coordinates)
    # eigenvectors and eliminations of n columns in double precision
    assert distance(back, Q) <= 1e-13 * (10 + len(Q))


@pytest.mark.parametrize("name", SQUARE)
def test_every_square_matrix_has_coordinates(name):
    check = settings(max_examples=40)(
        given(matrices())(lambda Q: property_round_trip(SQUARE[name], Q))
    )
    check()


@pytest.mark.parametrize("name", THIN)
def test_all_orthonormal_columns_have_coordinates(name):
    dtypes = DOUBLE[:1] if name == "reflectors" else DOUBLE
    drawn = matrices(dtypes, square=False)
    settings(max_examples=40)(
        given(drawn)(lambda Q: property_round_trip(THIN[name], Q))
    )()


def test_the_thin_logarithm_finds_coordinates():
    """Which it searches for, slowly: small matrices only."""

    def check(Q):
        Omega, K, signs = linalg.thin_logarithm(Q)
        back = linalg.thin_exponential(Omega, K) * signs.unsqueeze(-2)
        assert distance(back, Q) <= 1e-9

    settings(max_examples=20)(given(matrices(largest=12, square=False))(check))()


@pytest.mark.parametrize("kind", ["minus", "exact half turns"])
def test_negative_control_the_textbooks_inverse_has_none(kind):
    def textbook(Q):
        identity = torch.eye(len(Q), dtype=Q.dtype)
        A = 2 * torch.linalg.solve_ex(Q + identity, Q - identity)[0]
        return (A,), linalg.cayley_transform(A)

    Q = orthogonal(kind, 6, torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError):
        property_round_trip(textbook, Q)


def test_logarithms_are_scipys():
    def check(seed, n):
        A = linalg.skew(torch.randn(n, n, dtype=torch.float64))
        A = A * (2.5 / torch.linalg.matrix_norm(A, 2).clamp_min(1e-9))
        Q = linalg.skew_exponential(A)
        expected = torch.from_numpy(scipy.linalg.logm(Q.numpy()).real)
        assert distance(linalg.skew_logarithm(Q), expected) <= 1e-12 * (1 + n)

    drawn = given(st.integers(0, 99), st.integers(1, 50))
    settings(max_examples=10)(drawn(check))()


@settings(max_examples=30)
@given(matrices((*DOUBLE, *SINGLE), square=False))
def test_columns_are_completed_to_a_square_matrix(Q):
    full = linalg.complete(Q)
    assert torch.equal(full[:, : Q.shape[1]], Q)
    eps = torch.finfo(Q.dtype).eps
    assert off(full) <= eps * (8 + 2 * math.sqrt(len(Q))) + off(Q)


# ---- The nearest orthonormal columns ------------------------------------------------


@st.composite
def conditioned(draw, dtypes, worst=6.0):
    """Return a matrix, its factor with orthonormal columns, and its condition."""
    dtype, n = draw(st.sampled_from(dtypes)), draw(sizes)
    k = min(n, draw(sizes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    double = wide(torch.empty(0, dtype=dtype)).dtype

    def haar(m):
        W = torch.randn(m, k, dtype=double, generator=generator)
        return linalg.positive_qr(W)

    condition = 10 ** draw(st.floats(0, worst))
    spread = torch.linspace(0, 1, k, dtype=torch.float64)
    if draw(st.booleans()):  # many equal singular values
        spread = spread.round()
    scale = draw(st.sampled_from((1e-10, 1.0, 1e10)))
    U, V = haar(n), haar(k)
    return (scale * (U * condition**-spread) @ V.mH).to(dtype), condition


def property_polar(function, W, condition, turned=0.0) -> None:
    Q, eps = function(W), torch.finfo(W.dtype).eps
    expected = torch.from_numpy(scipy.linalg.polar(wide(W).numpy())[0])
    roundings, scipys = 8 + 2 * math.sqrt(len(W)), 1e-15 * len(W)
    assert off(Q) <= 3 * eps * roundings + scipys  # as far as singular vectors are
    # the polar factor itself moves by the condition number times a rounding of W
    allowed = eps * (turned + condition * roundings) + condition * scipys
    assert distance(Q, expected) <= allowed


# The polynomials of `polar_by_products` take some singular values to small ones before
# all become one, and what is rounded there turns the factor, however good the condition
@pytest.mark.parametrize(
    ("function", "worst", "turned"),
    [(linalg.polar, 6.0, 0.0), (linalg.polar_by_products, 4.5, 1e5)],
)
def test_the_polar_factor_is_scipys_for_every_condition(function, worst, turned):
    drawn = conditioned((*DOUBLE, *SINGLE), worst)
    settings(max_examples=30)(
        given(drawn)(lambda case: property_polar(function, *case, turned))
    )()


def test_negative_control_the_factor_q_is_not_the_polar_one():
    W = torch.randn(6, 4, dtype=torch.float64)
    with pytest.raises(AssertionError):
        property_polar(linalg.positive_qr, W, 10.0)


def by_sylvester(W, G):
    """Return the gradient of the polar factor, with SciPy's solver."""
    Q, P = (torch.from_numpy(x) for x in scipy.linalg.polar(W.numpy()))
    C = Q.mH @ G - G.mH @ Q
    X = torch.from_numpy(scipy.linalg.solve_sylvester(P.numpy(), P.numpy(), C.numpy()))
    outside = G - Q @ (Q.mH @ G)
    return Q @ X + torch.linalg.solve(P, outside, left=False)


@settings(max_examples=30)
@given(conditioned((*DOUBLE, *SINGLE), 3.0))
def test_the_gradient_of_the_polar_factor_at_every_scale_of_the_loss(case):
    W, condition = case
    G, eps = torch.randn_like(W), torch.finfo(W.dtype).eps
    expected = by_sylvester(wide(W), wide(G))
    limit = eps * condition * (20 + 2 * math.sqrt(len(W))) + 1e-12 * condition
    for scale in (1e-6, 1.0, 1e6):
        found = slope(linalg.polar, W, scale * G)
        assert bool(torch.isfinite(found).all())
        size = float(expected.norm())
        assert float((wide(found) / scale - expected).norm()) <= limit * max(
            size, float(G.norm() / wide(W).norm())
        )


@settings(max_examples=30)
@given(conditioned((*DOUBLE, *SINGLE)))
def test_the_factor_of_qr_is_scipys(case):
    W, condition = case
    Q, R = scipy.linalg.qr(wide(W).numpy(), mode="economic")
    phases = torch.from_numpy(R).diagonal().sgn()
    expected = torch.from_numpy(Q) * torch.where(phases == 0, 1, phases)
    eps, roundings = torch.finfo(W.dtype).eps, 8 + 2 * math.sqrt(len(W))
    found = linalg.positive_qr(W)
    assert off(found) <= eps * roundings
    allowed = eps * roundings * condition * math.sqrt(W.shape[1])
    assert distance(found, expected) <= allowed


def singular(W):
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return U @ Vh


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (linalg.polar, singular),
        (linalg.polar_by_products, singular),
        (linalg.positive_qr, lambda W: torch.linalg.qr(W).Q),
        (lambda W: linalg.polish(singular(W)), singular),
    ],
    ids=["polar", "polar_by_products", "positive_qr", "polish"],
)
def test_no_factor_is_less_orthonormal_than_torchs(ours, torchs):
    def check(case):
        property_no_worse(ours, torchs, case[0])

    settings(max_examples=15)(given(conditioned(SINGLE, 4.0))(check))()
    W = torch.randn(512, 512)
    assert off(ours(W)) <= 1e-5


# ---- The maps -----------------------------------------------------------------------

MAPS = [
    case
    for case in CASES
    if isinstance(case.codomain((4, 4)), sets.Stiefel)
    and "right_inverse" not in case.exceptions
]


@pytest.mark.parametrize("case", MAPS, ids=str)
def test_the_maps_reach_every_matrix_with_finite_gradients(case):
    square = (5, 3) not in case.shapes

    def check(Q):
        host = case.registered(torch.randn(Q.shape))
        host.weight = Q.float()
        assert distance(host.weight, Q.float()) <= 1e-5 * math.sqrt(len(Q))
        assert off(host.weight) <= max(1e-5, linalg.tolerance(host.weight))
        G, slopes = torch.randn_like(host.weight), []
        for scale in (1e-6, 1.0, 1e6):
            host.zero_grad()
            host(scale * G).backward()
            slopes.append(next(host.parameters()).grad / scale)
            assert bool(torch.isfinite(slopes[-1]).all())
        for found in slopes[::2]:
            assert float((found - slopes[1]).norm()) <= 1e-6 * float(G.norm())

    largest = 12 if case.name == "thin exponential" else 100
    drawn = matrices(DOUBLE[:1], largest, square)
    settings(max_examples=12)(given(drawn)(check))()
