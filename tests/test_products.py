"""Matrix products of the values of several maps."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from holdfast import errors, linalg, maps, sets
from hosting import normal, refused, registered


def svd(**sizes) -> maps.Product:
    scales = maps.Chain(maps.Softplus(), maps.Diagonal())
    return maps.Product(maps.ThinOrthogonal(), scales, maps.ThinOrthogonal(), **sizes)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_singular_factors_are_found(shape, dtype):
    W = torch.randn(shape, dtype=dtype)
    link = maps.Product(maps.ThinOrthogonal(), maps.Diagonal(), maps.ThinOrthogonal())
    host = registered(W.clone(), link)
    assert host.parametrizations.weight.moved == 0
    assert_close(host.weight.detach(), W)
    parts = zip(link.maps, host.parametrizations.weight.originals(), strict=True)
    U, S, V = (map_(X).detach() for map_, X in parts)
    assert sets.Stiefel().contains(U)
    assert sets.Stiefel().contains(V)
    assert_close(S.diagonal(dim1=-2, dim2=-1).real, torch.linalg.svdvals(W))


def test_singular_factors_of_equal_and_of_positive_values():
    Q = sets.Stiefel().sample((4, 4), dtype=torch.float64)
    for W in (Q, 3 * Q, torch.eye(4).double()):
        assert_close(registered(W.clone(), svd()).weight.detach(), W)


def test_a_product_has_the_rank_of_its_sizes():
    W = normal(6, 4)
    host = registered(W.clone(), svd(sizes=2))
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    assert_close(host.weight.detach(), U[:, :2] * S[:2] @ V[:2])
    expected = torch.linalg.vector_norm(S[2:]) / torch.linalg.vector_norm(S)
    assert_close(host.parametrizations.weight.moved, float(expected))
    assert torch.linalg.matrix_rank(host.weight.detach(), rtol=1e-9) == 2
    with pytest.raises(errors.NotInSetError, match="sizes=2.* of `Product`: residual"):
        host.weight = W
    shapes = [tuple(x.shape) for x in host.parametrizations.weight.originals()]
    assert shapes == [(6, 2), (2,), (2, 4)]


def test_low_rank_starts_at_zero_and_leaves_it():
    host = registered(torch.zeros(4, 3), maps.Product(maps.Chain(), maps.Chain()))
    assert float(host.weight.detach().abs().max()) == 0
    host(torch.ones(4, 3)).backward()
    A, B = host.parametrizations.weight.originals()
    assert float(A.grad.abs().max()) + float(B.grad.abs().max()) > 0
    host = registered(torch.zeros(4, 3), maps.Product(*[maps.Chain()] * 2, sizes=2))
    host(torch.ones(4, 3)).backward()
    assert float(host.parametrizations.weight.original1.grad.abs().max()) > 0


def test_identities_stand_beside_a_factor():
    W = sets.SymmetricPositiveDefinite().sample((3, 3), dtype=torch.float64)
    link = maps.Product(maps.Orthogonal("cayley"), maps.Cholesky())
    host = registered(W.clone(), link)
    assert_close(host.weight.detach(), W)
    assert_close(link.maps[0].base, torch.eye(3).double())
    Q = sets.Stiefel().sample((3, 3), dtype=torch.float64)
    host.weight = Q
    assert_close(host.weight.detach(), Q)


def test_factors_that_a_search_does_not_find_move_the_value_and_say_so():
    """Every matrix is a product of two symmetric ones; least squares do not see it."""
    link = maps.Product(maps.Symmetric(), maps.Symmetric())
    W = normal(4, 4)
    host = registered(W.clone(), link)
    off = torch.dist(host.weight.detach(), W) / torch.linalg.vector_norm(W)
    assert_close(host.parametrizations.weight.moved, float(off))
    assert 1e-6 < float(off) < 1
    before = host.weight.detach()
    with pytest.raises(errors.NotInSetError, match="of `Product`: residual"):
        host.weight = W
    assert torch.equal(host.weight, before)


def test_sizes_of_factors():
    shapes = linalg.factor_shapes((2, 6, 4), 3, (5, 2))
    assert shapes == [(2, 6, 5), (2, 5, 2), (2, 2, 4)]
    host = registered(normal(6, 4), maps.Product(*[maps.Chain()] * 3, sizes=(5, 7)))
    assert host.parametrizations.weight.moved == 0
    for sizes in ((1,), (1, 2, 3), (0, 1), -1):
        link = maps.Product(maps.Chain(), maps.Chain(), maps.Chain(), sizes=sizes)
        said = refused(torch.eye(3), link, errors.InvalidTensorError)
        assert "Expected 2 positive sizes between 3 factors" in said
    said = refused(torch.ones(3), maps.Product(maps.Chain()), errors.InvalidTensorError)
    assert "Expected a matrix" in said


def test_a_frozen_factor_does_not_train():
    link = maps.Product(maps.Frozen(maps.Orthogonal("cayley")), maps.Chain())
    host = registered(normal(4, 4), link)
    Q, X = host.parametrizations.weight.originals()
    before = [x.detach().clone() for x in (Q, X)]
    optimizer = torch.optim.AdamW(host.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        host(normal(4, 4)).backward()
        optimizer.step()
    assert Q.grad is None
    assert torch.equal(Q, before[0])
    assert not torch.equal(X, before[1])
    W = normal(4, 4)
    host.weight = W  # it can still be assigned
    assert_close(host.weight.detach(), W)
    whole = registered(normal(3, 3), maps.Frozen(maps.Symmetric()))
    assert not whole.weight.requires_grad


def test_the_free_factor_has_the_gradient_that_it_has_without():
    link = maps.Product(maps.Frozen(maps.Symmetric()), maps.Symmetric())
    link.bind(normal(3, 3))
    A, B = normal(3, 3), normal(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: link(A, X), [B])
    A.requires_grad_()
    assert torch.autograd.grad(link(A, B).sum(), A, allow_unused=True) == (None,)
