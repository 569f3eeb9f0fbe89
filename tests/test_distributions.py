"""The sets and transforms of `torch.distributions`."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.distributions import (
    Normal,
    TransformedDistribution,
    constraints,
    transforms,
)
from torch.testing import assert_close

from holdfast import errors, maps, sets
from hosting import normal, registered

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
        maps.to_torch(maps.Product(maps.Chain(), maps.Chain())).inv(normal(4, 4))
    with pytest.raises(errors.InvalidTensorError, match="takes 2 tensors, and a trans"):
        maps.to_torch(maps.LowRank(1))
    with pytest.raises(errors.InvalidTensorError, match="Put a `Chain`"):
        maps.to_torch(maps.Cayley())
    assert maps.to_torch(link) == rotate
    assert maps.to_torch(copy.deepcopy(link)) != rotate


@pytest.mark.parametrize(
    "transform",
    [
        transforms.StackTransform(
            [transforms.ExpTransform(), transforms.TanhTransform()], dim=0
        ),
        transforms.CatTransform(
            [transforms.ExpTransform(), transforms.TanhTransform()], lengths=[1, 1]
        ),
    ],
    ids=["stack", "cat"],
)
def test_a_set_of_single_entries_that_only_torch_knows(transform):
    constraint = maps.FromTransform(transform).codomain
    outside = torch.full((2, 3), -2.0)
    assert not constraint.contains(outside)
    assert constraint.contains(constraint.project(outside))
    assert constraint.contains(constraint.sample((2, 3)))


def test_an_interval_without_ends_is_free():
    free = maps.from_torch(constraints.interval(-math.inf, math.inf))
    X = torch.randn(3)
    assert torch.equal(free(X), X)
