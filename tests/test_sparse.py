"""Sparse weights: which entries stay, what gradients reach, and the schedule."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

import holdfast
import set_laws
from holdfast import errors, linalg, maps, sets

SETS = {
    "of all": sets.KSparse(5),
    "of rows": sets.KSparse(2, axis=-1),
    "of columns": sets.KSparse(1, axis=-2),
    "counted by a tensor": sets.KSparse(torch.tensor(5)),
    "1:2": sets.NMSparse(1, 2),
    "2:4 of columns": sets.NMSparse(axis=-2),
}
SHAPES = ((4, 4), (2, 4, 2), (0, 4, 4))

names = pytest.mark.parametrize("name", SETS)
exact = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def registered(map_, weight=None) -> nn.Linear:
    layer = nn.Linear(4, 4, bias=False)
    if weight is not None:
        layer.weight = nn.Parameter(weight)
    return holdfast.register_parametrization(layer, "weight", map_)


# ---- The sets -----------------------------------------------------------------------


@names
@pytest.mark.parametrize("dtype", set_laws.TYPES, ids=str)
def test_samples_and_projections_are_inside(name, dtype):
    for shape in SHAPES:
        set_laws.law_membership(SETS[name], shape, dtype)


@names
@exact
def test_the_laws_of_sets_hold(name, dtype):
    constraint = SETS[name]
    for shape in SHAPES[:2]:
        set_laws.law_kept(constraint, shape, dtype)
        set_laws.law_nearest(constraint, shape, dtype)
        set_laws.law_dimension(constraint, shape, dtype)

    def off_by(eps):
        W = constraint.sample((4, 4), dtype=dtype)
        outside = (W == 0) * torch.randn((4, 4), dtype=dtype).sgn()
        size = set_laws.norm(W)
        W = W + (W != 0) * W.sgn() * size
        return W + eps * set_laws.norm(W) * outside / set_laws.norm(outside)

    set_laws.law_residual(constraint, off_by)


def test_the_projection_is_the_best_of_all_choices():
    W = torch.randn(2, 3, dtype=torch.float64)
    best = min(
        W.flatten()[[i for i in range(6) if i not in kept]].square().sum()
        for kept in itertools.combinations(range(6), 2)
    )
    assert_close((W - sets.KSparse(2).project(W)).square().sum(), best)


def test_there_is_one_residual_for_a_tensor_or_for_each_matrix():
    W = torch.ones(3, 2, 4)
    assert sets.KSparse(5).residual(W).shape == ()
    assert sets.KSparse(1, axis=-1).residual(W).shape == (3,)
    assert sets.NMSparse().residual(W).shape == (3,)


def test_an_axis_that_is_no_multiple_is_refused():
    assert not sets.NMSparse(2, 4).contains(torch.zeros(4, 6))
    assert not sets.NMSparse(2, 4, axis=-2).contains(torch.zeros(4))
    for attempt in (
        lambda: sets.NMSparse(2, 4).project(torch.ones(4, 6)),
        lambda: sets.NMSparse(2, 4).dim((4, 6)),
        lambda: maps.NMSparsity(2, 4).bind(torch.ones(4, 6)),
    ):
        with pytest.raises(
            errors.InvalidTensorError, match="dimension -1 to be a multiple of 4. Got 6"
        ):
            attempt()


# ---- The maps -----------------------------------------------------------------------


def test_exactly_so_many_entries_are_kept_even_where_they_tie():
    for W in (torch.ones(4, 4), torch.zeros(4, 4), torch.full((4, 4), -0.0)):
        for count in (0, 3, 16, 99):
            assert int(linalg.largest(W, count).sum()) == min(count, 16)
            marked = linalg.largest(W, torch.tensor(count))
            assert int(marked.sum()) == min(count, 16)


def test_a_count_in_a_tensor_that_is_not_looked_at_marks_the_same_entries():
    W = torch.randn(3, 5, 4, 3)
    for axis in (None, 0, 1, -1):
        for count in (0, 2, 99):
            marked = vmap(lambda X, a=axis, c=count: linalg.largest(X, c, a))(W)
            unread = vmap(lambda X, c, a=axis: linalg.largest(X, c, a))(
                W, torch.full((3,), count)
            )
            assert torch.equal(marked, unread)


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_the_gradients_are_what_they_are_called(axis):
    X, G = torch.randn(2, 5, 5)
    mask = linalg.largest(X, 2, axis)
    for gradient, expected in (("straight_through", G), ("masked", G * mask)):
        leaf = X.clone().requires_grad_()
        value = maps.TopK(2, axis=axis, gradient=gradient)(leaf)
        assert_close(value, X * mask, rtol=0, atol=0)
        assert_close(torch.autograd.grad(value, leaf, G)[0], expected)


def test_entries_left_out_come_back_straight_through_and_never_under_a_mask():
    for gradient, returns in (("straight_through", True), ("masked", False)):
        W = torch.tensor([[3.0, 1.0]])
        layer = registered(maps.TopK(1, gradient=gradient), W)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        for _ in range(3):
            optimizer.zero_grad()
            (-layer.weight[0, 1]).backward()
            optimizer.step()
        assert bool(layer.weight[0, 1] != 0) is returns


def test_SR_STE_pulls_what_is_left_out_towards_zero():
    X, G = torch.randn(2, 3, 8, dtype=torch.float64)
    leaf = X.clone().requires_grad_()
    value = maps.NMSparsity(decay=0.5)(leaf)
    mask = linalg.largest_of_groups(X, 2, 4)
    expected = G + 0.5 * torch.where(mask, 0, X)
    assert_close(torch.autograd.grad(value, leaf, G)[0], expected)


def test_a_dense_tensor_that_is_assigned_is_projected_and_remembered():
    W = torch.randn(4, 4)
    for map_ in (maps.TopK(3), maps.NMSparsity(), maps.GradualTopK(0.5, steps=1)):
        layer = registered(map_)
        layer.weight = W
        value = layer.weight.detach()
        assert_close(value, map_.codomain.project(W), rtol=0, atol=0)
        assert torch.equal(layer.parametrizations.weight.original, W)
    with pytest.raises(errors.NotInSetError, match=r"KSparse\(count=3\)"):
        holdfast.register_parametrization(
            nn.Linear(4, 4), "weight", maps.TopK(3), outside="error"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_degenerate_tensors_have_finite_values_and_gradients(dtype):
    for factor in (1e18, 1e-18, 0.0, -0.0):
        X = torch.randn(4, 4, dtype=dtype) * factor
        X[0] = 0
        for map_ in (maps.TopK(3), maps.NMSparsity(), maps.GradualTopK(0.5, steps=1)):
            set_laws.law_finite(map_, X)


def test_wrong_arguments_are_refused():
    W = torch.ones(4, 4)
    for map_, message in (
        (maps.TopK(-1), "`count` to be at least 0"),
        (maps.TopK(1, gradient="sloppy"), "Got 'sloppy'"),
        (maps.NMSparsity(5, 4), "Got 5:4"),
        (maps.NMSparsity(gradient="masked", decay=1e-4), "`decay` belongs"),
        (maps.GradualTopK(1.5, steps=1), "`final` from 0 to 1. Got 1.5"),
        (maps.GradualTopK(0.5, steps=0), "`steps` to be at least 1"),
        (maps.GradualTopK(0.5, steps=1, every=0), "`every` to be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            registered(map_, W)
    with pytest.raises(IndexError, match="Dimension out of range"):
        registered(maps.TopK(1, axis=2), W)


def test_compiled_values_and_gradients_are_the_same():
    for map_ in (maps.TopK(5), maps.GradualTopK(0.5, steps=1), maps.NMSparsity()):
        layer, x = registered(map_).eval(), torch.randn(2, 4)
        expected = layer(x).square().sum()
        slopes = torch.autograd.grad(expected, [*layer.parameters()])
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        value = compiled(x).square().sum()
        assert_close(value, expected)
        assert_close(torch.autograd.grad(value, [*layer.parameters()]), slopes)


# ---- The schedule -------------------------------------------------------------------


def test_the_schedule_is_that_of_the_paper():
    map_ = maps.GradualTopK(0.9, steps=100, start=20, initial=0.1)
    for step in (0, 20, 45, 70, 119, 120, 500):
        map_.step.fill_(step)
        progress = min(max(step - 20, 0), 100) / 100
        expected = 0.9 + (0.1 - 0.9) * (1 - progress) ** 3
        assert float(map_.sparsity()) == pytest.approx(expected, abs=1e-12)


def test_the_sparsity_may_rise_in_steps():
    map_ = maps.GradualTopK(0.9, steps=100, start=5, every=10)
    seen = []
    for _ in range(40):
        seen.append(float(map_.sparsity()))
        map_.advance_()
    changes = [i for i in range(1, 40) if seen[i] != seen[i - 1]]
    assert changes == [15, 25, 35]


def test_an_optimizer_raises_the_sparsity_and_a_memo_notices():
    layer = registered(maps.GradualTopK(0.75, steps=4))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    helper = holdfast.Sparsify(layer, optimizer)
    kept = []
    for _ in range(5):
        layer(torch.randn(2, 4)).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            kept.append(int((layer.weight != 0).sum()))
    shares = [0.75 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4, 4)]
    assert kept == [16 - round(16 * share) for share in shares]
    del optimizer
    with torch.no_grad():
        layer.parametrizations.weight[0].step.zero_()
        assert int((layer.weight != 0).sum()) == 16
    helper.remove()


def test_a_removed_helper_leaves_the_sparsity_as_it_is():
    schedule = maps.GradualTopK(0.5, steps=10)
    model = nn.Sequential(registered(schedule), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    helper = holdfast.Sparsify(model, optimizer)
    optimizer.step()
    assert int(schedule.step) == 1
    helper.remove()
    optimizer.step()
    assert int(schedule.step) == 1


@pytest.mark.parametrize(
    "around", [lambda map_: maps.PerBlock(map_, 2, dim=1), maps.Chain, maps.Transposed]
)
def test_a_schedule_inside_another_map_is_raised_too(around):
    layer = registered(around(maps.GradualTopK(0.5, steps=1)))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    holdfast.Sparsify(layer, optimizer)
    assert (layer.weight != 0).all()
    layer(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    assert int((layer.weight != 0).sum()) == 8


def test_a_model_without_a_schedule_is_refused():
    layer = registered(maps.TopK(3))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    with pytest.raises(ValueError, match=r"register `maps.GradualTopK` before"):
        holdfast.Sparsify(layer, optimizer)
    other = registered(maps.GradualTopK(0.5, steps=1))
    with pytest.raises(ValueError, match="No weight that the optimizer moves"):
        holdfast.Sparsify(other, optimizer)


def test_the_step_travels_with_state_dicts_and_copies():
    layer = registered(maps.GradualTopK(0.5, steps=2))
    layer.parametrizations.weight[0].advance_(2)
    twin = registered(maps.GradualTopK(0.5, steps=2))
    twin.load_state_dict(layer.state_dict())
    for other in (twin, copy.deepcopy(layer)):
        assert torch.equal(other.weight, layer.weight)
        assert int((other.weight != 0).sum()) == 8


def test_the_codomain_is_as_small_as_the_weight():
    layer = registered(maps.GradualTopK(0.5, steps=1))
    map_ = layer.parametrizations.weight[0]
    assert map_.codomain.dim((4, 4)) == 16
    map_.advance_()
    assert map_.codomain.dim((4, 4)) == 8
    assert map_.codomain.contains(layer.weight)


def test_a_share_is_no_count():
    with pytest.raises(TypeError, match="integer"):
        holdfast.register_parametrization(nn.Linear(4, 4), "weight", maps.TopK(0.5))
