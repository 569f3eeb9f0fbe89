"""Definite weights: eigenvalue functions, factors, ranks and correlations."""

from __future__ import annotations

import mpmath
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets
from holdfast.linalg.divided import Logistic, Softplus
from holdfast.testing.case import Host

FUNCTIONS = {
    "softplus": (linalg.symmetric_softplus, Softplus),
    "logistic": (linalg.symmetric_logistic, Logistic),
}
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def registered(W, *chain):
    host = Host(torch.eye(W.shape[-1], dtype=W.dtype))
    for link in chain:
        holdfast.register_parametrization(host, "weight", link)
    host.weight = W
    return host


# ---- Eigenvalue functions -----------------------------------------------------------


def test_functions_of_matrices_are_scipys():
    S = sets.SymmetricMatrices().sample((5, 5), dtype=torch.float64)
    E, identity = scipy.linalg.expm(S.numpy()), torch.eye(5).double()
    softplus = torch.from_numpy(scipy.linalg.logm(identity.numpy() + E)).real
    assert_close(linalg.symmetric_softplus(S), softplus)
    logistic = torch.linalg.inv(identity + torch.linalg.inv(torch.from_numpy(E)))
    assert_close(linalg.symmetric_logistic(S), logistic)


MEETING = (
    torch.zeros(3, 3),
    torch.eye(3) * 0.7,
    torch.diag(torch.tensor([0.1, 0.1, -2.0])),
    torch.diag(torch.tensor([0.1, 0.1 + 1e-9, 0.1 - 1e-5])),
)


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_derivatives_are_right_where_eigenvalues_meet(name, dtype):
    function, _ = FUNCTIONS[name]
    for S in MEETING:
        X = S.to(dtype).requires_grad_()
        assert gradcheck(function, X, check_forward_ad=True)
        assert gradgradcheck(function, X)


def test_differentiating_the_eigenvectors_would_not_do():
    S = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    values, V = torch.linalg.eigh(S)
    W = (V * torch.nn.functional.softplus(values)) @ V.mT
    (slope,) = torch.autograd.grad((W * torch.randn(3, 3)).sum(), S)
    assert not bool(slope.isfinite().all())


def exact(name: str, *points: float) -> mpmath.mpf:
    """Return a divided difference of distinct points to fifty digits."""
    with mpmath.workdps(60):
        xs = [mpmath.mpf(x) for x in points]
        if len(xs) == 1:
            e = mpmath.exp(xs[0])
            return mpmath.log1p(e) if name == "softplus" else e / (1 + e)
        return (exact(name, *points[1:]) - exact(name, *points[:-1])) / (xs[-1] - xs[0])


POINTS = (-30.0, -3.0, -2.7, -1e-9, 1e-4, 0.3, 0.499, 0.501, 5.0, 40.0)


@EACH
def test_divided_differences_lose_no_digits(name):
    _, f = FUNCTIONS[name]
    values = torch.tensor(POINTS, dtype=torch.float64)
    first = linalg.first_differences(f, values)
    second = linalg.second_differences(f, values)
    for i, a in enumerate(POINTS):
        for j, b in enumerate(POINTS[:i]):
            expected = exact(name, b, a)
            assert abs(float(first[i, j]) / expected - 1) < 1e-15
            for k, c in enumerate(POINTS[:j]):
                assert abs(float(second[i, j, k]) - exact(name, c, b, a)) < 1e-15
    # the plain quotient does lose them
    plain = (f.value(values[3]) - f.value(values[3] + 1e-12)) / 1e-12
    assert abs(float(plain / first[3, 3]) + 1) > 1e-6


def test_a_third_derivative_is_refused_and_not_wrong():
    S = torch.eye(2, dtype=torch.float64, requires_grad=True)
    W = linalg.symmetric_softplus(S)
    (slope,) = torch.autograd.grad(W.square().sum(), S, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), S, create_graph=True)
    with pytest.raises(NotImplementedError, match="Third derivatives"):
        torch.autograd.grad(second.sum(), S)


@EACH
def test_functions_turn_with_their_argument(name):
    function, _ = FUNCTIONS[name]
    S = sets.SymmetricMatrices().sample((4, 4), dtype=torch.float64)
    Q = sets.Stiefel().sample((4, 4), dtype=torch.float64)
    assert_close(function(Q @ S @ Q.mT), Q @ function(S) @ Q.mT)


def test_softplus_is_exact_where_torch_is_linear():
    x = torch.tensor([25.0], dtype=torch.float64)
    expected = float(exact("softplus", 25.0))
    assert abs(float(linalg.softplus(x)) - expected) < 1e-15 * expected
    assert abs(float(torch.nn.functional.softplus(x)) - expected) > 1e-12
    y = torch.tensor([1e-12, 1e-3, 1.0, 60.0], dtype=torch.float64)
    assert_close(linalg.softplus(linalg.softplus_inverse(y)), y, rtol=1e-14, atol=0)


# ---- Spectra in an interval ---------------------------------------------------------


def test_the_ends_of_the_interval_are_reached_to_rounding():
    for dtype, tol in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        W = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=dtype))
        host = registered(W, maps.Symmetric(), maps.SpectralLogistic(1.0, high=3.0))
        assert_close(host.weight, W, rtol=0, atol=tol)
        slope = torch.autograd.grad(host.weight.sum(), host.parameters())[0]
        assert bool(slope.isfinite().all())


def test_the_condition_is_bounded():
    S = 1e3 * sets.SymmetricMatrices().sample((20, 6, 6), dtype=torch.float64)
    W = maps.SpectralLogistic(1.0, high=4.0)(S)
    assert float(torch.linalg.cond(W).max()) < 4 + 1e-12


def test_an_interval_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="Expected low < high. Got low=2.0"):
        maps.SpectralLogistic(2.0, high=1.0).bind(torch.eye(2))


def test_spectral_maps_ask_for_a_symmetric_argument():
    with pytest.raises(ValueError, match="SymmetricMatrices"):
        holdfast.register_parametrization(
            Host(torch.eye(2)), "weight", maps.SpectralSoftplus()
        )


# ---- Factors ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_the_coordinates_are_those_of_choleskys_factor(dtype):
    W = sets.SymmetricPositiveDefinite().sample((5, 5), dtype=dtype)
    L = torch.linalg.cholesky(W)
    X = maps.Cholesky("exp").right_inverse(W)
    assert_close(X.tril(-1), L.tril(-1))
    assert_close(X.diagonal(), L.diagonal().log())
    X = maps.Cholesky().right_inverse(W)
    assert_close(linalg.softplus(X.diagonal().real), L.diagonal().real)
    assert not bool(X.triu(1).any())


def test_a_semidefinite_matrix_is_reached_to_rounding():
    W = torch.ones(3, 3, dtype=torch.float64)
    for chain in (
        [maps.Cholesky()],
        [maps.Cholesky("exp")],
        [maps.Symmetric(), maps.SpectralSoftplus()],
        [maps.NormalizedCholesky()],
        [maps.PartialCorrelations()],
    ):
        host = registered(W, *chain)
        assert_close(host.weight, W, rtol=0, atol=1e-14)
        slope = torch.autograd.grad(host.weight.sum(), host.parameters())[0]
        assert bool(slope.isfinite().all())


def test_a_rank_is_kept_exactly_and_pivots_are_chosen():
    W = torch.zeros(4, 4, dtype=torch.float64)
    W[2:, 2:] = torch.tensor([[2.0, 1.0], [1.0, 2.0]])  # the first two rows are zero
    host = registered(W, maps.Cholesky(rank=2))
    assert_close(host.weight, W)
    (map_,) = host.parametrizations.weight
    map_.permutation = torch.arange(4)
    assert torch.dist(host.weight, W) > 1
    X = torch.randn(6, 3, dtype=torch.float64)
    map_ = maps.Cholesky(rank=3)
    map_.bind(torch.zeros(6, 6))
    values = torch.linalg.eigvalsh(map_(X))
    assert bool((values[:3].abs() < 1e-12).all())
    assert bool((values[3:] > 1e-6).all())


def test_training_leaves_a_lower_rank():
    for W in (torch.zeros(3, 3), torch.ones(3, 3)):
        B = maps.Gram(2).right_inverse(W).requires_grad_()
        assert_close(maps.Gram(2)(B), W)
        (slope,) = torch.autograd.grad((maps.Gram(2)(B) * torch.randn(3, 3)).sum(), B)
        assert bool(slope.any(0).all())
    zero = torch.zeros(3, 2, requires_grad=True)
    (slope,) = torch.autograd.grad((maps.Gram(2)(zero) * torch.randn(3, 3)).sum(), zero)
    assert not bool(slope.any())


@pytest.mark.parametrize("map_", [maps.Gram(4), maps.Cholesky(rank=4), maps.Gram(0)])
def test_a_rank_beyond_the_size_is_refused(map_):
    with pytest.raises(errors.InvalidTensorError, match="Expected a rank from 1 to 3"):
        map_.bind(torch.eye(3))


def test_an_unknown_function_of_the_diagonal_is_refused():
    with pytest.raises(ValueError, match='has to be "softplus" or "exp"'):
        maps.Cholesky("sqrt").bind(torch.eye(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize(("n", "rank"), [(3, 1), (6, 2), (20, 4), (24, 8)])
def test_rank_and_diagonal_are_told_apart(n, rank, dtype):
    B, d = torch.randn(n, rank, dtype=dtype), 0.1 + torch.rand(n).double()
    W = B @ B.mH + torch.diag(d).to(dtype)
    found, diagonal = linalg.low_rank_plus_diagonal(W, rank, 1e-16)
    assert_close(diagonal, d, rtol=1e-9, atol=1e-9)
    assert_close(linalg.gram(found) + torch.diag(diagonal).to(dtype), W)


def test_training_leaves_a_diagonal_matrix():
    map_ = maps.LowRankPlusDiagonal(1)
    B, x = (t.requires_grad_() for t in map_.right_inverse(torch.eye(4)))
    assert_close(map_(B, x), torch.eye(4))
    (slope,) = torch.autograd.grad((map_(B, x) * torch.randn(4, 4)).sum(), B)
    assert bool(slope.any())


def test_factor_models_are_few_and_small_matrices_have_none():
    factors = sets.LowRankPlusDiagonalMatrices(1)
    W = torch.ones(4, 4).double() + torch.eye(4)
    assert factors.contains(W)
    W[0, 1] = W[1, 0] = 0.9  # the minors off the diagonal are not zero any more
    assert 1e-3 < float(factors.residual(W)) < 0.1
    assert_close(factors.project(W).diagonal(), W.diagonal())
    assert not factors.contains(torch.eye(2))
    with pytest.raises(errors.InvalidTensorError, match="from 1 to a third"):
        maps.LowRankPlusDiagonal(2).bind(torch.eye(5))


# ---- Correlations -------------------------------------------------------------------


def test_partial_correlations_are_those_of_statistics():
    x = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.0, 0.0], [-0.7, 1.5, 0.0]]).double()
    W = maps.PartialCorrelations()(x)
    z = x / (1 + x * x).sqrt()
    r21, r31, r32 = W[1, 0], W[2, 0], W[2, 1]
    assert_close(r21, z[1, 0])
    assert_close(r31, z[2, 0])
    given = (r32 - r21 * r31) / ((1 - r21**2) * (1 - r31**2)).sqrt()
    assert_close(given, z[2, 1])


@pytest.mark.parametrize("kind", [maps.PartialCorrelations, maps.NormalizedCholesky])
def test_the_diagonal_is_one_for_every_size_of_coordinates(kind):
    for size in (0.0, 1e-18, 1.0, 1e9, 1e18):
        W = kind()(size * torch.randn(5, 5, dtype=torch.float64))
        ones = torch.ones(5, dtype=torch.float64)
        assert_close(W.diagonal(), ones, rtol=0, atol=1e-14)


def test_a_covariance_is_projected_to_its_correlations():
    W = sets.SymmetricPositiveDefinite().sample((4, 4), dtype=torch.float64)
    scale = W.diagonal().rsqrt()
    expected = scale[:, None] * W * scale
    assert_close(sets.CorrelationMatrices().project(W), expected)


def test_an_indefinite_matrix_is_shrunk_no_more_than_it_has_to_be():
    W = torch.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.3], [0.0, 0.3, 1.0]]).double()
    P = sets.CorrelationMatrices().project(W)
    kept = P[1, 0] / W[1, 0]
    assert_close(P - torch.eye(3), kept * (W - torch.eye(3)))
    assert 0 <= float(torch.linalg.eigvalsh(P)[0]) < 1e-12
