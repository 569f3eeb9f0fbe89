"""Maps of maps: chains, blocks, products, types, gradients, torch's transforms."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Normal,
    TransformedDistribution,
    constraints,
    transforms,
)
from torch.testing import assert_close

import holdfast
from cases import CASES
from holdfast import Parametrization, errors, linalg, maps, sets
from holdfast.testing.case import Host
from support import state_of, told


def registered(weight: Tensor, *links: Parametrization) -> Host:
    host = Host(weight)
    for link in links:
        holdfast.register_parametrization(host, "weight", link)
    return host


def refused(weight: Tensor, link: Parametrization, kind: type) -> str:
    """Return what is said, and see that nothing has changed."""
    host = Host(weight)
    before = state_of(host)
    with pytest.raises(kind) as caught:
        holdfast.register_parametrization(host, "weight", link)
    assert state_of(host) == before
    assert "Host.weight" in told(caught.value)
    return told(caught.value)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---- Chains -------------------------------------------------------------------------

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


# ---- Blocks -------------------------------------------------------------------------


def recurrent() -> dict[str, tuple[nn.Module, str, int]]:
    return {
        "lstm": (nn.LSTM(3, 5), "weight_hh_l0", 4),
        "gru": (nn.GRU(3, 5), "weight_hh_l0", 3),
        "rnn": (nn.RNN(3, 5), "weight_hh_l0", 1),
    }


@pytest.mark.parametrize("name", recurrent())
@pytest.mark.parametrize(
    "inner", [maps.Orthogonal("cayley"), maps.Orthogonal(), maps.ThinOrthogonal()]
)
def test_gates_have_a_matrix_each(name, inner):
    module, weight, gates = recurrent()[name]
    link = maps.PerBlock(copy.deepcopy(inner), gates)
    holdfast.register_parametrization(module, weight, link)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(2):
        module(torch.randn(4, 2, 3))[0].sum().backward()
        optimizer.step()
        for W in getattr(module, weight).chunk(gates):
            assert sets.Stiefel().contains(W)
    assert getattr(module, weight).is_contiguous()
    W = torch.cat([sets.Stiefel().sample((5, 5)) for _ in range(gates)])
    setattr(module, weight, W)
    assert_close(getattr(module, weight).detach(), W, rtol=0, atol=1e-5)
    twin = copy.deepcopy(module)
    x = torch.randn(4, 2, 3)
    assert torch.equal(twin(x)[0], module(x)[0])


@pytest.mark.parametrize("heads", [1, 2])
def test_heads_have_a_matrix_each(heads):
    attention = nn.MultiheadAttention(8, heads)
    inputs = maps.PerBlock(maps.ThinOrthogonal(), 3 * heads)
    holdfast.register_parametrization(attention, "in_proj_weight", inputs)
    outputs = maps.PerBlock(maps.ThinOrthogonal(), heads, dim=1)
    holdfast.register_parametrization(attention.out_proj, "weight", outputs)
    x = torch.randn(3, 2, 8)
    attention(x, x, x)[0].sum().backward()
    for W in attention.in_proj_weight.chunk(3 * heads):
        assert sets.Stiefel().contains(W)
    for W in attention.out_proj.weight.chunk(heads, 1):
        assert sets.Stiefel().contains(W)
    assert attention.eval()(x, x, x)[0].shape == x.shape


@pytest.mark.parametrize("dim", [0, 1])
def test_blocks_are_the_map_one_by_one(dim):
    W = normal(6, 6)
    host = registered(W.clone(), maps.PerBlock(maps.Orthogonal(), 3, dim))
    X = host.parametrizations.weight.original
    with torch.no_grad():
        X.copy_(torch.randn_like(X))
    for i, block in enumerate(host.weight.chunk(3, dim)):
        alone = registered(W.chunk(3, dim)[i].clone(), maps.Orthogonal())
        with torch.no_grad():
            alone.parametrizations.weight.original.copy_(X[i])
        assert_close(block, alone.weight)


def test_groups_of_a_convolution_are_blocks_of_its_matrix():
    conv = nn.Conv2d(4, 6, 3, groups=2)
    link = maps.Matricized(maps.PerBlock(maps.ThinOrthogonal(), 2))
    holdfast.register_parametrization(conv, "weight", link)
    for W in conv.weight.chunk(2):
        assert sets.Stiefel().contains(W.flatten(1))
    assert conv(torch.randn(1, 4, 5, 5)).shape == (1, 6, 3, 3)


class Mixing(Parametrization):
    def forward(self, X):
        return X - X.mean()

    def right_inverse(self, weight):
        return weight


@pytest.mark.parametrize(
    "inner",
    [
        maps.SpectralNorm(),
        maps.WeightNorm(),
        maps.WeightNorm(None),
        maps.Matricized(maps.ThinOrthogonal()),
        maps.TopK(5),
        Mixing(),
        maps.Chain(maps.Chain(), Mixing()),
    ],
    ids=lambda link: type(link).__name__,
)
def test_a_map_that_takes_all_blocks_together_is_refused(inner):
    for weight in (torch.randn(12, 3), torch.randn(12, 3, dtype=torch.float64)):
        said = refused(weight, maps.PerBlock(inner, 4), errors.InvalidTensorError)
        assert (
            f"`{type(inner).__name__}` does not treat the 4 blocks as a batch" in said
        )
        assert "`Concatenated` takes one of any kind for each block" in said


def test_blocks_must_divide_the_dimension():
    thin = maps.ThinOrthogonal()
    for blocks in (5, 0, -1):
        said = refused(
            torch.randn(12, 3), maps.PerBlock(thin, blocks), errors.InvalidTensorError
        )
        assert f"a dimension 0 that {blocks} blocks divide. Got shape (12, 3)" in said
    said = refused(torch.randn(12, 3), maps.PerBlock(thin, 4, dim=2), IndexError)
    assert "expected to be in range of [-2, 1], but got 2" in said


def test_bases_of_blocks_are_a_batch_and_move():
    link = maps.PerBlock(maps.Orthogonal("cayley"), 2)
    host = registered(normal(6, 3), link)
    assert link.map.base.shape == (2, 3, 3)
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    holdfast.Rebase(host, optimizer, every=1)
    host(normal(6, 3)).backward()
    optimizer.step()
    assert_close(host.weight.detach(), link.map.base.flatten(0, 1))


def test_every_gate_has_a_spectral_norm_of_its_own():
    torch.manual_seed(0)
    module = nn.LSTM(3, 5)
    link = maps.Concatenated(*(maps.SpectralNorm() for _ in range(4)))
    holdfast.register_parametrization(module, "weight_hh_l0", link)
    for _ in range(80):
        module(torch.randn(2, 1, 3))
    for W in module.weight_hh_l0.detach().chunk(4):
        assert_close(
            torch.linalg.matrix_norm(W, 2), torch.tensor(1.0), rtol=0, atol=1e-3
        )
    before = [part._u.clone() for part in link.maps]
    assert module.weight_hh_l0 is not None
    assert all(
        torch.equal(part._u, u) for part, u in zip(link.maps, before, strict=True)
    )


def test_blocks_of_different_maps_and_sizes():
    parts = maps.Orthogonal("cayley"), maps.Chain(), maps.Scaled(maps.Polar())
    link = maps.Concatenated(*parts, sizes=(3, 1, 2))
    host = registered(normal(6, 3), link)
    first, second, third = host.weight.detach().split((3, 1, 2))
    assert sets.Stiefel().contains(first)
    assert sets.ScaledOrthogonal().contains(third)
    shapes = [tuple(x.shape) for x in host.parametrizations.weight.originals()]
    assert shapes == [(3, 3), (1, 3), (), (2, 3)]
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    holdfast.Rebase(host, optimizer, every=1)
    host(normal(6, 3)).backward()
    optimizer.step()
    assert_close(host.weight.detach()[:3], parts[0].base)
    assert not torch.equal(host.weight[3:4].detach(), second)
    with pytest.raises(errors.NotInSetError, match="parts=.*Stiefel"):
        host.weight = torch.ones(6, 3).double()


def test_sizes_of_blocks_add_up():
    parts = maps.Chain(), maps.Skew()
    for sizes in ((2, 2), (6,), (7, -1)):
        link = maps.Concatenated(*parts, sizes=sizes)
        said = refused(torch.ones(6, 3), link, errors.InvalidTensorError)
        assert "Expected 2 sizes that add up to 6, that of dimension 0" in said
    said = refused(torch.ones(6, 3), maps.Concatenated(), ValueError)
    assert "takes at least one map" in said
    link = maps.Concatenated(maps.Cayley(), maps.Chain())
    assert "Put a `Chain` of" in refused(torch.ones(6, 3), link, errors.NotInSetError)


# ---- Products -----------------------------------------------------------------------


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
    """A QR form exists for every matrix; least squares do not lead there."""
    link = maps.Product(maps.Orthogonal("cayley"), maps.Transposed(maps.Triangular()))
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


# ---- Types and gradients ------------------------------------------------------------


def test_an_island_rounds_once():
    X = torch.randn(6, 6)
    value = maps.Cast(Cancelling())(X)
    assert value.dtype == torch.float32
    assert_close(value, X, rtol=1e-6, atol=1e-9)
    with pytest.raises(AssertionError):  # what the island is for
        assert_close(Cancelling()(X), X, rtol=1e-6, atol=1e-9)


def test_an_island_keeps_its_state_in_its_own_type():
    link = maps.Cast(maps.Orthogonal("cayley"))
    host = registered(torch.randn(4, 4), link)
    assert link.map.base.dtype == torch.float64
    assert host.parametrizations.weight.original.dtype == torch.float32
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    holdfast.Rebase(host, optimizer, every=1)
    for _ in range(3):
        host(torch.randn(4, 4)).backward()
        optimizer.step()
    coordinates = host.parametrizations.weight.original.detach()
    assert float(coordinates.tril(-1).abs().max()) == 0
    assert_close(host.weight.detach(), link.map.base.float())
    assert sets.Stiefel().residual(link.map.base) < 1e-14
    host.float()
    assert sets.Stiefel().contains(host.weight)


class Cancelling(Parametrization):
    def forward(self, X):
        return (X + 1e5) - 1e5

    def right_inverse(self, weight):
        return weight


class Plain(Parametrization):
    """A product, as a user would write it."""

    deterministic = True

    def forward(self, X):
        return X @ X.mT

    def right_inverse(self, weight):
        return torch.linalg.cholesky(weight)


def test_autocast_does_not_reach_an_island():
    X = torch.randn(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert maps.Cast(Plain(), torch.float32)(X).dtype == torch.float32
        assert_close(maps.Cast(Plain(), torch.float32)(X), Plain()(X.double()).float())
        assert Plain()(X).dtype == torch.bfloat16


def test_an_island_has_a_real_floating_type():
    for dtype in (torch.int64, torch.complex64):
        said = refused(torch.eye(3), maps.Cast(maps.Polar(), dtype), ValueError)
        assert f"Expected a real floating-point type to compute in. Got {dtype}" in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_a_gradient_passes_straight_through(dtype):
    X = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    G = torch.randn(5, 3, dtype=dtype)
    W = maps.StraightThrough(maps.Polar())(X)
    assert torch.equal(W, maps.Polar()(X))
    assert torch.equal(torch.autograd.grad(W, X, G)[0], G)
    _, tangent = torch.func.jvp(maps.StraightThrough(maps.Polar()), (X.detach(),), (G,))
    assert torch.equal(tangent, G)
    assert_close(maps.Polar()(X.detach() * 0 + 1), maps.Polar()(torch.ones_like(X)))


def test_rounding_trains_straight_through():
    host = registered(torch.randn(4, 4), maps.StraightThrough(Rounding()))
    target = torch.randint(-3, 4, (4, 4)).float()
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (host.weight - target).square().sum().backward()
        optimizer.step()
    assert torch.equal(host.weight.detach(), target)


class Rounding(Parametrization):
    def forward(self, X):
        return X.round()

    def right_inverse(self, weight):
        return weight


@pytest.mark.parametrize(
    "inner", [maps.WeightNorm(), maps.Diagonal(), maps.Circulant()]
)
def test_a_gradient_goes_through_maps_that_keep_the_shape_only(inner):
    said = refused(torch.eye(3), maps.StraightThrough(inner), errors.InvalidTensorError)
    assert "passes straight through a map of one original of the weight's shape" in said


# ---- torch.compile ------------------------------------------------------------------

COMPILED = (
    "chain of skew and cayley",
    "chain of softplus and diagonal",
    "transposed lower",
    "cast orthogonal",
    "straight through polar",
    "orthogonal blocks -2",
    "orthogonal blocks -1",
    "scaled blocks",
    "concatenated",
    "product of singular factors",
    "from SigmoidTransform",
)


@pytest.mark.parametrize("name", COMPILED)
def test_compositions_compile_to_one_graph(name):
    (case,) = (case for case in CASES if case.name == name)
    host = case.registered(torch.randn(4, 4)).eval()
    x = torch.randn(4, 4)
    expected = host(x)
    slopes = torch.autograd.grad(expected, [*host.parameters()])
    torch._dynamo.reset()
    compiled = torch.compile(host, backend="aot_eager", fullgraph=True)(x)
    assert_close(compiled, expected)
    mine = torch.autograd.grad(compiled, [*host.parameters()])
    for slope, other in zip(mine, slopes, strict=True):
        assert_close(slope, other)


# ---- torch.distributions ------------------------------------------------------------

TRANSFORMS = {
    "exp": transforms.ExpTransform(),
    "power": transforms.PowerTransform(torch.tensor(2.0).double()),
    "sigmoid": transforms.SigmoidTransform(),
    "tanh": transforms.TanhTransform(),
    "softplus": transforms.SoftplusTransform(),
    "affine": transforms.AffineTransform(1.0, -2.0),
    "softmax": transforms.SoftmaxTransform(),
    "stick": transforms.StickBreakingTransform(),
    "lower": transforms.LowerCholeskyTransform(),
    "correlation": transforms.CorrCholeskyTransform(),
    "definite": transforms.PositiveDefiniteTransform(),
    "composed": transforms.ComposeTransform(
        [transforms.ExpTransform(), transforms.AffineTransform(2.0, 3.0)]
    ),
    "independent": transforms.IndependentTransform(transforms.ExpTransform(), 1),
    "cached": transforms.ExpTransform(cache_size=1),
    "inverse": transforms.ExpTransform().inv,
}
SQUARE = ("lower", "correlation", "definite")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_a_map(name):
    transform = TRANSFORMS[name]
    link = maps.FromTransform(transform)
    chain = (maps.Softplus(), link) if name in ("power", "inverse") else (link,)
    host = registered(normal(4, 4), *chain)
    first = host.parametrizations.weight.original
    W = host.weight.detach()
    assert bool(transform.codomain.check(W).all())
    assert bool(link.codomain.contains(W))
    value = chain[0](first) if len(chain) > 1 else first
    assert_close(W, transform.with_cache(0)(value).detach())
    host.weight = W
    assert_close(host.weight.detach(), W)
    with torch.no_grad():
        first.add_(0.5 * torch.randn_like(first))
    assert not torch.equal(host.weight.detach(), W)  # no cache has seen that
    assert link.codomain.contains(host.weight.detach())
    if name != "inverse":  # which torch does not copy
        twin = copy.deepcopy(host)
        assert torch.equal(twin.weight, host.weight)


def test_sets_of_transforms_are_ours_where_there_are_some():
    found = {name: maps.FromTransform(t).codomain for name, t in TRANSFORMS.items()}
    assert repr(found["exp"]) == "Interval(lower=0.0, margin=0.01)"
    assert repr(found["tanh"]) == "Interval(lower=-1.0, upper=1.0, margin=0.01)"
    assert repr(found["stick"]) == "Simplex(margin=0.01)"
    assert repr(found["definite"]) == "SymmetricPositiveDefinite()"
    assert type(found["affine"]) is sets.Real
    assert repr(found["correlation"]) == "CorrCholesky()"
    assert repr(maps.FromTransform(TRANSFORMS["inverse"]).domain).startswith("Interval")
    host = registered(torch.rand(3, 3), maps.FromTransform(TRANSFORMS["exp"]))
    with pytest.raises(errors.NotInSetError, match=r"not in Interval\(lower=0.0"):
        host.weight = -torch.ones(3, 3)
    host = registered(torch.rand(3, 3), maps.FromTransform(TRANSFORMS["correlation"]))
    with pytest.raises(errors.NotInSetError, match=r"not in CorrCholesky\(\)"):
        host.weight = torch.ones(3, 3)


def test_a_transform_without_an_inverse_takes_no_value():
    class OneWay(transforms.Transform):
        domain = constraints.real
        codomain = constraints.real

        def _call(self, x):
            return x.sin()

    host = registered(normal(3), maps.FromTransform(OneWay()))
    with pytest.raises(errors.NoRightInverseError, match="transform has no inverse"):
        host.weight = normal(3)


CONSTRAINTS = {
    "real": constraints.real,
    "vector": constraints.real_vector,
    "positive": constraints.positive,
    "nonnegative": constraints.nonnegative,
    "above": constraints.greater_than(torch.tensor(2.0)),
    "below": constraints.less_than(-1.0),
    "unit": constraints.unit_interval,
    "between": constraints.interval(-2.0, 5.0),
    "half open": constraints.half_open_interval(0.0, 3.0),
    "independent": constraints.independent(constraints.positive, 2),
    "simplex": constraints.simplex,
    "lower": constraints.lower_triangular,
    "symmetric": constraints.symmetric,
    "semidefinite": constraints.positive_semidefinite,
    "definite": constraints.positive_definite,
    "lower cholesky": constraints.lower_cholesky,
    "correlation": constraints.corr_cholesky,
}
UNKNOWN = ("lower cholesky", "correlation")


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_every_constraint_has_a_map_and_a_set(name):
    constraint = CONSTRAINTS[name]
    host = registered(torch.randn(4, 4), maps.from_torch(constraint))
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    host(torch.randn(4, 4)).backward()
    optimizer.step()
    W = host.weight.detach()
    assert bool(constraint.check(W).all()) or name == "semidefinite"  # to rounding
    if name in UNKNOWN:
        with pytest.raises(ValueError, match=r"There is no set for .*maps.from_torch"):
            sets.from_torch(constraint)
        return
    known = sets.from_torch(constraint)
    assert known.contains(W)
    inside = sets.from_torch(constraint, margin=0.01).project(torch.randn(4, 4))
    for sample in (known.sample((4, 4)), inside):
        assert bool(constraint.check(sample).all()) or "definite" in name
    if name not in ("real", "vector"):
        wrong = torch.full((4, 4), -0.5).triu() * (100 if name != "below" else 1)
        assert not known.contains(wrong)
        assert not bool(constraint.check(wrong).all())


def test_integers_have_a_set_but_no_map():
    grid = sets.from_torch(constraints.integer_interval(-1, 2))
    assert grid.contains(torch.tensor([-1.0, 0.0, 2.0]))
    assert not grid.contains(torch.tensor([0.0, 3.0]))
    assert not sets.from_torch(constraints.boolean).contains(torch.tensor([2.0]))
    for constraint in (constraints.boolean, constraints.integer_interval(0, 3)):
        with pytest.raises(ValueError, match="There is no map onto"):
            maps.from_torch(constraint)


def test_a_set_is_a_constraint():
    checked = sets.to_torch(sets.Stiefel())
    Q = sets.Stiefel().sample((2, 3, 4, 4))
    Q[1, 2] *= 1.1
    assert checked.check(Q).tolist() == [[True] * 3, [True, True, False]]
    assert checked.event_dim == 2
    assert repr(checked) == "to_torch(Stiefel(), event_dim=2)"
    assert checked.check(torch.eye(2)).shape == ()


@pytest.mark.parametrize(
    ("link", "torchs"),
    [
        (maps.Exponential(), transforms.ExpTransform()),
        (maps.Sigmoid(), transforms.SigmoidTransform()),
        (maps.Softplus(), transforms.SoftplusTransform()),
    ],
)
def test_a_map_is_a_transform_with_its_determinant(link, torchs):
    mine, x = maps.to_torch(link, event_dim=0), normal(3, 2)
    assert_close(mine(x), torchs(x))
    assert_close(mine.inv(mine(x)), x)
    assert_close(
        mine.log_abs_det_jacobian(x, mine(x)), torchs.log_abs_det_jacobian(x, torchs(x))
    )
    base = Normal(torch.zeros(3).double(), 1.0)
    value = torchs(normal(3))
    assert_close(
        TransformedDistribution(base, mine).log_prob(value),
        TransformedDistribution(base, torchs).log_prob(value),
    )
    assert bool(mine.codomain.check(mine(x)).all())


def test_a_map_of_vectors_is_a_transform_of_vectors():
    stick = maps.to_torch(maps.StickBreaking(), event_dim=1)
    x = normal(5, 3)
    assert stick(x).shape == (5, 4)
    assert stick.forward_shape(torch.Size((5, 3))) == (5, 4)
    assert stick.inverse_shape(torch.Size((5, 4))) == (5, 3)
    assert_close(stick.inv(stick(x)), x)
    assert stick.codomain.check(stick(x)).shape == (5,)
    with pytest.raises(NotImplementedError, match="takes 3 numbers to 4"):
        stick.log_abs_det_jacobian(x, stick(x))
    order = maps.to_torch(maps.CumulativeSum(), event_dim=1)
    jacobian = torch.stack([torch.func.jacrev(order)(v) for v in x])
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert_close(order.log_abs_det_jacobian(x, order(x)), expected)


def test_a_transform_does_not_move_the_map():
    link = maps.Orthogonal("cayley")
    host = registered(normal(4, 4), link)
    rotate = maps.to_torch(link)
    before, X = link.base.clone(), host.parametrizations.weight.original
    assert_close(rotate(X), host.weight)
    with pytest.raises(NotImplementedError, match="moves its buffers"):
        rotate.inv(host.weight)
    assert torch.equal(link.base, before)
    with pytest.raises(NotImplementedError, match="2 originals"):
        maps.to_torch(maps.WeightNorm()).inv(normal(4, 4))
    with pytest.raises(errors.InvalidTensorError, match="Put a `Chain`"):
        maps.to_torch(maps.Cayley())
    assert maps.to_torch(link) == rotate
    assert maps.to_torch(copy.deepcopy(link)) != rotate
