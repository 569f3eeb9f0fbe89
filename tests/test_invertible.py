"""Invertible weights: determinants, components, and where the factors degenerate."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets
from holdfast.testing.case import Host

MAPS = {"plu": maps.PLU, "svd": maps.InvertibleSVD}
EACH = pytest.mark.parametrize("kind", MAPS)


def registered(map_, W):
    host = Host(W.clone())
    return holdfast.register_parametrization(host, "weight", map_)


@EACH
def test_the_logarithm_of_the_determinant_is_the_sum_of_the_sizes(kind):
    map_, X = MAPS[kind]("nonzero"), torch.randn(5, 5, dtype=torch.float64)
    map_.bind(X)
    sizes = linalg.log_size(X.diagonal())
    assert_close(torch.linalg.slogdet(map_(X)).logabsdet, sizes.sum())


def test_sizes_are_positive_and_finite_for_every_coordinate():
    s = torch.tensor([-1e18, -1e9, -40.0, -0.0, 0.0, 1e-18, 40.0, 1e18])
    for dtype in (torch.float32, torch.float64):
        x = s.to(dtype).requires_grad_()
        logs = linalg.log_size(x)
        sizes = logs.exp()
        assert bool((sizes > 0).all())
        assert bool((sizes.isfinite() & logs.isfinite()).all())
        (slopes,) = torch.autograd.grad(sizes.sum(), x)
        assert bool(slopes.isfinite().all())
        again = linalg.size_coordinate(sizes)
        tol = 1e-4 if dtype == torch.float32 else 1e-12
        assert_close(again, x, rtol=tol, atol=tol)
        plain = torch.nn.functional.softplus(x)  # what it replaces is singular there
        assert not bool((plain > 0).all())


@EACH
def test_large_coordinates_on_the_diagonal_keep_the_determinant_finite(kind):
    for dtype in (torch.float32, torch.float64):
        X = torch.diag(torch.tensor([1e18, -1e18, 0.0], dtype=dtype)).requires_grad_()
        map_ = MAPS[kind]("positive")
        map_.bind(X)
        W = map_(X)
        sign, size = torch.linalg.slogdet(W)
        (slope,) = torch.autograd.grad(size, X)
        assert bool(sign == 1)
        assert bool(size.isfinite() & slope.isfinite().all())


def test_the_product_is_scipys():
    W = torch.randn(5, 5, dtype=torch.float64)
    X, permutation, signs = linalg.plu_inverse(W, unit=False)
    P, L, U = (torch.from_numpy(x) for x in scipy.linalg.lu(W.numpy()))
    assert_close(X.tril(-1), L.tril(-1))
    assert_close(X.triu(1), U.triu(1))
    assert_close(linalg.plu(X, permutation, signs, unit=False), P @ L @ U)


def test_a_matrix_that_needs_pivots_is_reached():
    W = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [0.0, 0.0, 4.0]])
    host = registered(maps.PLU(), W)
    assert_close(host.weight, W)
    unpivoted = torch.arange(3), torch.ones(3, dtype=torch.int8)
    X = host.parametrizations.weight.original
    assert torch.dist(linalg.plu(X, *unpivoted, unit=False), W) > 1


@EACH
def test_training_stays_in_the_component(kind):
    W = torch.diag(torch.tensor([1.0, -1.0, 1.0]))
    host = registered(MAPS[kind]("nonzero"), W)
    optimizer = torch.optim.AdamW(host.parameters(), lr=0.3, weight_decay=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        (-torch.linalg.det(host.weight)).backward()  # towards the other component
        optimizer.step()
        assert bool(torch.linalg.det(host.weight) < 0)


@EACH
def test_a_negative_determinant_is_refused_where_it_has_to_be_positive(kind):
    for word in ("positive", "one"):
        host = registered(MAPS[kind](word), torch.eye(3))
        before = host.weight.clone()
        with pytest.raises(errors.NotInSetError, match="Determinant|SpecialLinear"):
            host.weight = torch.diag(torch.tensor([1.0, -1.0, 1.0]))
        assert torch.equal(host.weight, before)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_complex_unit_determinants_keep_their_phases(n):
    for _ in range(10):  # some of them have phases that add up to a full turn
        W = sets.SpecialLinear().sample((n, n), dtype=torch.complex128)
        map_ = maps.PLU("one")
        X = map_.right_inverse(W)
        assert_close(map_(X), W, rtol=1e-12, atol=1e-12)
        moved = map_(X + torch.randn_like(X))
        assert_close(torch.linalg.det(moved), torch.ones((), dtype=W.dtype))


def test_unit_determinants_are_kept_where_rounding_loses_them():
    for kind in MAPS:
        W = sets.SpecialLinear().project(torch.ones(4, 4, dtype=torch.float64))
        assert float(torch.linalg.cond(W)) > 1e12
        map_ = MAPS[kind]("one")
        error = torch.dist(map_(map_.right_inverse(W)), W) / W.norm()
        assert error < 1e-12


def test_equal_singular_values_have_finite_slopes():
    X = torch.zeros(4, 4, requires_grad=True)
    map_ = maps.InvertibleSVD()
    map_.bind(X)
    G = torch.randn(4, 4)
    (slope,) = torch.autograd.grad((map_(X) * G).sum(), X)
    assert bool(slope.isfinite().all())
    assert bool(slope.any())
    W = torch.eye(4, requires_grad=True)  # what differentiating the factors would give
    U, S, Vh = torch.linalg.svd(W)
    (slope,) = torch.autograd.grad((U * S.exp() @ Vh * G).sum(), W)
    assert not bool(slope.isfinite().all())


@pytest.mark.parametrize(
    ("map_", "W", "error", "message"),
    [
        (maps.PLU(), torch.ones(2, 3), ValueError, "Expected a square matrix"),
        (maps.PLU("positive"), torch.eye(2) * 1j, ValueError, "Expected a real matrix"),
        (maps.InvertibleSVD("one"), torch.eye(2) * 1j, ValueError, "Use `PLU`"),
        (maps.PLU("two"), torch.eye(2), ValueError, 'determinant has to be one of "no'),
    ],
)
def test_what_has_no_such_determinant_is_refused(map_, W, error, message):
    with pytest.raises(error, match=message):
        registered(map_, W)


def test_complex_matrices_are_not_in_the_real_component():
    assert not sets.PositiveDeterminant().contains(torch.eye(2) + 0j)
    with pytest.raises(errors.InvalidTensorError, match="has a sign"):
        sets.PositiveDeterminant().project(torch.eye(2) + 0j)


def test_the_residual_of_a_determinant_is_a_distance():
    """Ill-conditioned matrices lose their determinant to a rounding of an entry."""
    W = torch.diag(torch.tensor([1e6, 1e-6], dtype=torch.float64))
    assert sets.SpecialLinear().contains(W)
    W[1, 1] *= 1.5
    assert float(sets.SpecialLinear().residual(W)) < 1e-12
    assert float(sets.SpecialLinear().residual(1.5 * torch.eye(2))) > 0.3


@pytest.mark.parametrize(
    "link", [maps.InvertibleSVD("nonzero"), maps.BoundedSVD(0.5, high=2.0)]
)
def test_bases_are_plain_tensors(link):
    W = torch.randn(3, 3, dtype=torch.complex128)
    host = Host(link.codomain.project(W))
    holdfast.register_parametrization(host, "weight", link)
    assert not any(tensor.is_conj() for tensor in host.state_dict().values())
