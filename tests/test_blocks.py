"""A map for each of the blocks of a tensor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import Parametrization, errors, maps, sets
from hosting import normal, refused, registered


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
