"""Linear structure: the closed forms against other people's, boundaries and errors."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

import holdfast
from cases_linear import LINEAR
from holdfast import errors, linalg, maps, sets
from holdfast.testing.case import Host

BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


@BOTH
@pytest.mark.parametrize(("n", "k"), [(4, 3), (3, 4), (1, 3), (3, 1), (1, 1)])
def test_toeplitz_matrices_are_scipys(n, k, dtype):
    t = torch.randn(n + k - 1, dtype=dtype)
    row, column = t[:k].flip(0), t[k - 1 :]
    expected = scipy.linalg.toeplitz(column.numpy(), row.numpy())
    assert_close(linalg.toeplitz(t, k), torch.from_numpy(expected))


@BOTH
def test_circulant_matrices_are_scipys_and_convolve(dtype):
    c, x = torch.randn(2, 5, dtype=dtype)
    W = linalg.circulant(c)
    assert_close(W, torch.from_numpy(scipy.linalg.circulant(c.numpy())))
    convolved = torch.fft.ifft(torch.fft.fft(c) * torch.fft.fft(x))
    assert_close((W @ x).to(convolved.dtype), convolved)


def test_sums_along_diagonals_are_the_adjoint_of_toeplitz():
    t, W = torch.randn(6, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    assert_close((linalg.toeplitz(t, 3) * W).sum(), (t * linalg.diagonal_sums(W)).sum())
    assert_close(
        linalg.diagonal_sums(W),
        torch.stack([W.diagonal(2 - m).sum() for m in range(6)]),
    )


@BOTH
def test_products_and_blocks_are_those_of_others(dtype):
    A, B = torch.randn(2, 3, dtype=dtype), torch.randn(3, 2, dtype=dtype)
    assert_close(linalg.kronecker(A, B), torch.kron(A, B))
    blocks = torch.randn(3, 2, 1, dtype=dtype)
    assert_close(linalg.block_diagonal(blocks), torch.block_diag(*blocks))
    assert_close(linalg.diagonal_blocks(torch.block_diag(*blocks), 3), blocks)


def test_no_alternating_least_squares_finds_a_nearer_product():
    W = torch.randn(6, 4, dtype=torch.float64)
    A, B = linalg.nearest_kronecker(W, 3, 2)
    best = torch.dist(torch.kron(A, B), W)
    for _ in range(5):
        A, B = torch.randn(3, 2).double(), torch.randn(2, 2).double()
        for _ in range(50):
            cut = W.reshape(3, 2, 2, 2).transpose(1, 2)
            B = torch.einsum("ij,ijpq->pq", A, cut) / A.square().sum()
            A = torch.einsum("pq,ijpq->ij", B, cut) / B.square().sum()
        assert best <= torch.dist(torch.kron(A, B), W) + 1e-12


def test_training_leaves_a_kronecker_product_that_is_zero():
    def moves(A, B) -> bool:
        A, B = A.requires_grad_(), B.requires_grad_()
        value = maps.Kronecker((2, 2))(A, B)
        slopes = torch.autograd.grad((value * torch.randn(4, 4)).sum(), (A, B))
        return any(bool(slope.any()) for slope in slopes)

    A, B = maps.Kronecker((2, 2)).right_inverse(torch.zeros(4, 4))
    assert torch.equal(torch.kron(A, B), torch.zeros(4, 4))
    assert moves(A, B)
    assert not moves(torch.zeros(2, 2), torch.zeros(2, 2))


def test_complex_symmetric_weights_are_hermitian_and_skew_ones_skew_hermitian():
    X = torch.randn(3, 3, dtype=torch.complex128)
    for map_, sign in ((maps.Symmetric(), 1), (maps.Skew(), -1)):
        W = map_(X)
        assert_close(W, sign * W.mH)
        assert not torch.allclose(W, sign * W.mT)


BIJECTIONS = ("diagonal", "toeplitz", "circulant", "block diagonal")


@pytest.mark.parametrize("name", BIJECTIONS)
def test_a_bijection_has_as_many_numbers_as_its_set_dimensions(name):
    (case,) = (case for case in LINEAR if case.name == name)
    for shape in ((4, 4), (2, 4, 4)):
        host = case.registered(torch.randn(shape))
        count = sum(x.numel() for x in host.parameters())
        assert count == case.codomain(shape).dim(shape)


def test_a_map_before_blocks_works_on_each_block():
    host = Host(torch.eye(4))
    holdfast.register_parametrization(host, "weight", maps.BlockDiagonal(2))
    W = torch.block_diag(torch.ones(2, 2), torch.zeros(2, 2))
    host.weight = W
    blocks = host.parametrizations.weight.original
    assert_close(linalg.block_diagonal(maps.Symmetric()(blocks)), W)


@pytest.mark.parametrize(
    ("map_", "shape", "message"),
    [
        (maps.Diagonal(), (3,), "Expected a matrix or batch of matrices"),
        (maps.Toeplitz(), (3,), "Expected a matrix or batch of matrices"),
        (maps.Circulant(), (3, 2), "Expected a square matrix"),
        (maps.Traceless(), (3, 2), "Expected a square matrix"),
        (maps.BlockDiagonal(2), (4, 3), "cut into 2 x 2 equal blocks"),
        (maps.BlockDiagonal(0), (4, 4), "cut into 0 x 0 equal blocks"),
        (maps.Kronecker((2, 3)), (4, 4), "cut into 2 x 3 equal blocks"),
    ],
)
def test_a_weight_of_the_wrong_shape_is_refused(map_, shape, message):
    host = Host(torch.randn(shape))
    with pytest.raises(errors.InvalidTensorError, match=message):
        holdfast.register_parametrization(host, "weight", map_)
    assert list(dict(host.named_parameters())) == ["weight"]


def test_blocks_that_do_not_fit_are_outside():
    assert not sets.BlockDiagonalMatrices(2).contains(torch.zeros(3, 4))
    assert not sets.KroneckerProducts((2, 3)).contains(torch.zeros(4, 4))
    assert not sets.ToeplitzMatrices().contains(torch.zeros(3))


def test_bands_are_those_of_textbooks():
    ones = torch.ones(4, 4)
    assert torch.equal(maps.Banded()(ones), ones.tril(1).triu(-1))
    assert torch.equal(maps.Banded(1, upper=4)(ones), ones.triu(-1))
    assert torch.equal(maps.Banded(0, upper=0)(ones), torch.eye(4))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)])
def test_a_toeplitz_matrix_may_be_empty(shape):
    host = Host(sets.ToeplitzMatrices().sample(shape))
    holdfast.register_parametrization(host, "weight", maps.Toeplitz())
    assert host.weight.shape == shape
    assert bool(host.parametrizations.weight.original.isfinite().all())
