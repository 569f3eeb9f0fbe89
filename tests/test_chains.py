"""Several maps as one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributions import (
    transforms,
)
from torch.testing import assert_close

import holdfast
from holdfast import Parametrization, errors, maps, sets
from hosting import normal, refused, registered

CHAINS = {
    "cayley": lambda: (maps.Skew(), maps.Cayley()),
    "definite": lambda: (maps.Symmetric(), maps.MatrixExp()),
    "two originals": lambda: (maps.WeightNorm(), maps.Skew()),
    "spectral": lambda: (maps.Symmetric(), maps.SpectralNorm()),
    "based": lambda: (maps.Orthogonal("cayley"), maps.Scaled(maps.Chain(), 2.0)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_its_maps_one_by_one(name):
    W, x = normal(4, 4), normal(4, 4)
    apart = registered(W.clone(), *CHAINS[name]())
    whole = registered(W.clone(), maps.Chain(*CHAINS[name]()))
    mine, theirs = (host.parametrizations.weight for host in (whole, apart))
    states = [[*chain.originals(), *chain.buffers()] for chain in (mine, theirs)]
    with torch.no_grad():  # a value is kept by a chain that keeps it one by one
        for a, b in zip(*states, strict=True):
            assert a.shape == b.shape
            a.copy_(b)
    assert_close(whole.weight, apart.weight)
    slopes = [
        torch.autograd.grad(host(x), host.parametrizations.weight.originals())
        for host in (whole, apart)
    ]
    for mine, theirs in zip(*slopes, strict=True):
        assert_close(mine, theirs)


def test_a_positive_diagonal_is_a_chain():
    host = registered(normal(3, 3), maps.Chain(maps.Softplus(), maps.Diagonal()))
    chain = host.parametrizations.weight
    assert chain.original.shape == (3,)
    assert bool((host.weight.diagonal() > 0).all())
    before = host.weight.detach()
    said = r"not in DiagonalMatrices\(\) made of Interval\(lower=0.0, margin=0.01\) of"
    with pytest.raises(errors.NotInSetError, match=said):
        host.weight = -torch.eye(3).double()
    assert torch.equal(host.weight, before)
    host.weight = torch.diag(torch.tensor([1e-3, 1.0, 30.0])).double()
    assert_close(
        host.weight.diagonal().detach(),
        normal(3).copy_(torch.tensor([1e-3, 1.0, 30.0])),
        rtol=1e-6,
        atol=1e-9,
    )
    assert sets.Stiefel().residual(host.weight).shape == ()
    assert chain[0].codomain.dim((3, 3)) == 3


@pytest.mark.parametrize("n", [1, 8, 64])
@pytest.mark.parametrize("first", [maps.Symmetric, maps.Skew])
def test_samples_of_what_an_exponential_reaches_are_in_it(first, n):
    chain = maps.Chain(first(), maps.MatrixExp())
    chain.bind(torch.eye(n))
    W = chain.codomain.sample((n, n), generator=torch.Generator())
    assert chain.codomain.contains(W)
    assert n == 1 or not torch.allclose(W, torch.eye(n))


def test_links_must_lead_to_what_the_next_one_takes():
    said = refused(
        torch.eye(3),
        maps.Chain(maps.Symmetric(), maps.Cayley()),
        errors.NotInSetError,
    )
    assert "`Cayley` takes SkewMatrices(), which `Symmetric` before it does not" in said
    later = maps.Chain(maps.Skew(), maps.Cayley(), maps.Triangular(), maps.Cayley())
    assert "which `Triangular` before" in refused(
        torch.eye(3), later, errors.NotInSetError
    )
    inside = maps.Scaled(maps.Chain(maps.Symmetric(), maps.Cayley()), 2.0)
    assert "does not lead to" in refused(torch.eye(3), inside, errors.NotInSetError)


@pytest.mark.parametrize(
    "first",
    [
        maps.Chain(maps.Cayley()),
        maps.Cast(maps.Cayley()),
        maps.PerBlock(maps.Cayley(), 1),
        maps.Transposed(maps.Cayley()),
    ],
    ids=lambda link: type(link).__name__,
)
def test_the_domain_of_the_first_map_is_that_of_the_whole(first):
    said = refused(torch.eye(3), first, errors.NotInSetError)
    assert "a free tensor does not stay there while it trains" in said


def test_a_chain_may_follow_another_map():
    host = registered(torch.eye(3).double(), maps.Skew())
    link = maps.Chain(maps.Cayley(), maps.Scaled(maps.Chain(), 2.0))
    holdfast.register_parametrization(host, "weight", link)
    assert sets.Scaled(sets.Stiefel(), 2.0).contains(host.weight)
    W = 2 * sets.Stiefel().sample((3, 3), dtype=torch.float64)
    host.weight = W
    assert_close(host.weight.detach(), W)
    lone = registered(torch.eye(3), maps.Symmetric())
    with pytest.raises(errors.NotInSetError, match="`Chain` takes SkewMatrices"):
        holdfast.register_parametrization(
            lone, "weight", maps.Chain(maps.Cayley(), maps.Triangular())
        )


def test_what_lies_between_the_links_is_checked_too():
    link = maps.Chain(maps.Triangular(), maps.Transposed(maps.Chain()))
    host = registered(normal(3, 3), link)
    W = normal(3, 3).triu()
    host.weight = W
    assert_close(host.weight.detach(), W)
    with pytest.raises(errors.NotInSetError, match=r"made of TriangularMatrices\(\)"):
        host.weight = W.mT
    with pytest.raises(errors.NotInSetError, match=r"in TriangularMatrices\(\)"):
        link.right_inverse(W.mT)  # also where nobody has asked before


def test_moving_state_inside_a_chain_moves_once_in_a_forward():
    torch.manual_seed(0)
    layer = nn.Linear(5, 5, bias=False)
    link = maps.Chain(maps.Symmetric(), maps.SpectralNorm())
    holdfast.register_parametrization(layer, "weight", link)
    spectral = link.maps[1]
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.randn(5, 5))
    before = spectral._u.clone()
    for _ in range(60):
        layer(torch.randn(1, 5))
        moved = spectral._u.clone()
        assert layer.weight is not None
        assert torch.equal(spectral._u, moved)
    assert not torch.equal(spectral._u, before)
    norm = torch.linalg.matrix_norm(layer.weight.detach(), 2)
    assert_close(norm, torch.tensor(1.0), rtol=0, atol=1e-3)
    assert sets.SymmetricMatrices().contains(layer.weight.detach())
    assert spectral.advanced_by_host


def test_the_base_of_the_first_link_follows():
    link = maps.Chain(maps.Orthogonal("cayley"), maps.Scaled(maps.Chain(), 2.0))
    host = registered(normal(4, 4), link)
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    holdfast.Rebase(host, optimizer, every=1)
    host(normal(4, 4)).backward()
    optimizer.step()
    original = host.parametrizations.weight.original.detach()
    assert float(original.tril(-1).abs().max()) == 0
    assert_close(host.weight.detach(), 2 * link.maps[0].base)


def test_values_of_chains_are_remembered():
    """Their parts are maps: a container among them would say nothing of itself."""
    for link in (
        maps.Chain(maps.Skew(), maps.Cayley()),
        maps.Product(maps.Chain(), maps.Chain()),
    ):
        host = registered(torch.randn(3, 3), link)
        assert host.parametrizations.weight.is_deterministic()
    told_otherwise = maps.FromTransform(transforms.ExpTransform())
    host = registered(torch.rand(3, 3), maps.Chain(told_otherwise))
    assert not host.parametrizations.weight.is_deterministic()


class Failing(Parametrization):
    def forward(self, X):
        return X

    def right_inverse(self, weight):
        return self.missing_kernel()

    def missing_kernel(self):
        raise NotImplementedError("no kernel")


ONE_WAY = maps.Orthogonal("cayley", use_trivialization=False)


@pytest.mark.parametrize(
    "outer",
    [maps.Chain, maps.Transposed, maps.Cast, maps.Frozen, maps.StraightThrough],
)
def test_a_missing_right_inverse_is_told_apart_from_an_error(outer):
    host = registered(normal(4, 4), outer(copy.deepcopy(ONE_WAY)))
    assert sets.Stiefel().contains(host.weight)
    with pytest.raises(errors.NoRightInverseError, match="use_trivialization=False"):
        host.weight = host.weight.detach()
    said = refused(normal(4, 4), outer(Failing()), NotImplementedError)
    assert "no kernel" in said


def test_a_map_of_several_tensors_comes_first():
    wrong = maps.Chain(maps.Softplus(), maps.LowRank(1))
    told = refused(torch.randn(3, 3), wrong, errors.InvalidTensorError)
    assert "`LowRank` takes 2 tensors" in told
    layer = registered(torch.randn(3, 3), maps.Chain(maps.LowRank(1), maps.Softplus()))
    assert bool((layer.weight > 0).all())


@pytest.mark.parametrize(
    "link",
    [
        maps.Chain(maps.Softplus()),
        maps.Chain(maps.Skew(), maps.MatrixExp()),
        maps.PerBlock(maps.Chain(maps.Softmax()), 2),
        maps.Concatenated(maps.Chain(maps.Softplus()), maps.Chain()),
    ],
    ids=lambda x: repr(x).replace("\n", ""),
)
def test_a_block_that_its_map_does_not_make_is_moved_when_registered(link):
    W = torch.randn(4, 8) - 1
    layer = registered(W.clone(), maps.Concatenated(link, maps.Chain(), dim=-1))
    block, free = layer.weight.detach().split(4, -1)
    assert link.codomain.contains(block)
    assert_close(free, W[:, 4:])


@pytest.mark.parametrize("kind", [maps.Chain, maps.Concatenated, maps.Product])
def test_a_map_with_state_has_one_place_in_a_combinator(kind):
    twice = maps.Orthogonal()
    with pytest.raises(errors.SharedMapError, match=f"two places in `{kind.__name__}`"):
        kind(twice, maps.Transposed(twice))
    assert len(kind(maps.Skew(), *[maps.Chain()] * 2).maps) == 3


NOTING = pytest.mark.parametrize(
    "map_", [maps.Toeplitz(), maps.Matricized(maps.Chain())], ids=["toeplitz", "around"]
)


@NOTING
def test_a_map_that_notes_a_shape_has_places_of_one_shape(map_):
    """Though it has no tensors that tell."""
    map_ = copy.deepcopy(map_)
    equal = maps.Concatenated(map_, map_, dim=-1)
    assert registered(torch.ones(3, 4), equal).weight.shape == (3, 4)
    twice = copy.deepcopy(map_)
    unequal = maps.Concatenated(twice, twice, sizes=(2, 3), dim=-1)
    told = refused(torch.ones(3, 5), unequal, errors.SharedMapError)
    assert f"`{type(map_).__name__}` notes the shape" in told
    apart = copy.deepcopy(twice), copy.deepcopy(twice)
    host = registered(torch.ones(3, 5), maps.Concatenated(*apart, sizes=(2, 3), dim=-1))
    assert host.weight.shape == (3, 5)


@NOTING
def test_a_map_that_notes_a_shape_serves_tensors_of_one_shape(map_):
    map_ = copy.deepcopy(map_)
    hosts = [registered(torch.ones(3, 4), map_) for _ in range(2)]
    for link in (map_, maps.Scaled(map_, 2.0)):
        told = refused(torch.ones(2, 5), link, errors.SharedMapError)
        assert f"`{type(map_).__name__}` notes `" in told
        assert "Pass a copy" in told
    for host in hosts:
        assert_close(host.weight, torch.ones(3, 4))


@pytest.mark.parametrize(
    "map_",
    [
        maps.LowRank(1),
        maps.WeightNorm(),
        maps.Product(maps.Chain(), maps.Chain(), sizes=1),
    ],
    ids=["low rank", "weight norm", "product"],
)
def test_a_map_of_several_tensors_is_registered_first(map_):
    host = registered(torch.rand(3, 3) + 1, maps.Softplus())
    before = host.weight.detach()
    with pytest.raises(errors.InvalidTensorError, match="takes 2 tensors"):
        holdfast.register_parametrization(host, "weight", map_)
    with pytest.raises(errors.InvalidTensorError, match="takes 2 tensors"):
        holdfast.insert_link(host, "weight", 1, map_, keep="nearest")
    assert torch.equal(host.weight, before)
    assert len(host.parametrizations.weight) == 1


def test_a_product_that_was_never_bound_says_so():
    product = maps.Product(maps.Chain(), maps.Chain())
    with pytest.raises(errors.InvalidTensorError, match="known when it is bound"):
        product(torch.eye(2), torch.eye(2))


@pytest.mark.parametrize("wrapped_first", [False, True])
@pytest.mark.parametrize("wrap", [maps.Transposed, maps.Chain, maps.Concatenated])
def test_a_map_inside_of_another_serves_one_tensor(wrap, wrapped_first):
    shared = maps.Orthogonal()
    first, second = shared, wrap(shared)
    if wrapped_first:
        first, second = second, first
    W = sets.Stiefel().sample((3, 3))
    layer = registered(W.clone(), first)
    told = refused(torch.randn(3, 3), second, errors.SharedMapError)
    assert "Pass a copy" in told
    assert_close(layer.weight, W)
    registered(torch.randn(3, 3), copy.deepcopy(second))
    assert_close(layer.weight, W)
