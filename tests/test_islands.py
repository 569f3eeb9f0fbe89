"""Other types, other gradients, and all compositions compiled."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import holdfast
from cases import CASES
from holdfast import Parametrization, errors, maps, sets
from hosting import refused, registered


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


@pytest.mark.parametrize(
    ("chain", "constraint"),
    [
        (maps.Chain(maps.Skew(), maps.MatrixExp()), sets.SpecialOrthogonal()),
        (maps.Chain(maps.Skew(), maps.Cayley()), sets.SpecialOrthogonal()),
        (maps.Chain(maps.Softmax()), sets.Simplex()),
        (maps.Chain(maps.Normalize()), sets.Sphere()),
        (maps.Chain(maps.NorthwestCorner()), sets.TransportPolytope()),
        (maps.Chain(maps.LowRank(2)), sets.LowRankMatrices(2)),
    ],
    ids=lambda x: repr(x).replace("\n", ""),
)
def test_what_a_narrow_type_has_rounded_is_inside_of_an_island(chain, constraint):
    layer = registered(torch.randn(4, 4), maps.Cast(chain))
    W = constraint.sample((4, 4))
    assert not constraint.contains(W.double())  # which is why it needs saying
    layer.weight = W
    assert_close(layer.weight, W, atol=1e-6, rtol=0)


def test_what_is_outside_is_outside_of_an_island_too():
    layer = registered(torch.rand(4, 4), maps.Cast(maps.Chain(maps.Softmax())))
    with pytest.raises(errors.NotInSetError):
        layer.weight = torch.full((4, 4), 0.2501)
    off = torch.full((2, 2), 0.5 + 1e-8, dtype=torch.float64)
    assert not sets.Simplex().contains(off)
