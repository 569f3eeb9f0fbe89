"""Base points that move: the weight stays, and reading it at the base is free."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn.utils import parametrizations as torch_recipes
from torch.testing import assert_close

import holdfast
from holdfast import linalg, maps, sets
from holdfast.linalg import trivialization
from holdfast.model import rebasing

KINDS = ("matrix_exp", "cayley", "householder", "thin_cayley", "thin_matrix_exp")
AT_ZERO = [kind for kind in KINDS if kind != "householder"]
SHAPES = [(5, 5), (6, 3), (3, 6), (4, 1), (2, 5, 3), (1, 1)]
kinds = pytest.mark.parametrize("kind", KINDS)
kinds_at_zero = pytest.mark.parametrize("kind", AT_ZERO)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Holder(nn.Module):
    """A module with one weight of any shape."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def holder(kind: str, *shape: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a module whose orthogonal weight has moved away from its base."""
    module = holdfast.orthogonal(Holder(*shape, dtype=dtype), orthogonal_map=kind)
    with torch.no_grad():
        original = module.parametrizations.weight.original
        original += 0.3 * torch.randn_like(original)
    return module


def chain_of(module: nn.Module) -> holdfast.ParametrizationList:
    return module.parametrizations.weight


# ---- The weight stays ----------------------------------------------------------------


@shapes
@kinds
def test_the_weight_stays_and_the_coordinates_become_zero(kind, shape):
    module = holder(kind, *shape)
    before, chain = module.weight.detach(), chain_of(module)
    original, versions = chain.original, chain.original._version
    chain.rebase_()
    assert chain.original is original
    assert original._version > versions, "who looks at versions must see it"
    assert_close(module.weight.detach(), before, rtol=0, atol=1e-14)
    tall = linalg.tall(original.detach())
    assert not tall.tril(-1).any()
    with torch.no_grad():  # negative control: the base has moved, and it counts
        chain[0].base.add_(0.1)
    assert not torch.allclose(module.weight, before, atol=1e-3)


@pytest.mark.parametrize("kind", ["cayley", "matrix_exp", "thin_cayley"])
@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 6)])
def test_complex_weights_stay_too(kind, shape):
    module = holder(kind, *shape, dtype=torch.complex128)
    before = module.weight.detach()
    chain_of(module).rebase_()
    assert_close(module.weight.detach(), before, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley"])
def test_without_repair_the_value_stays_to_the_bit(kind):
    module = holder(kind, 6, 6, dtype=torch.float32)
    before = module.weight.detach()
    chain_of(module).rebase_(repair=False)
    assert torch.equal(module.weight.detach(), before)


@kinds
def test_repair_takes_a_worn_base_back_to_the_set(kind):
    module = holder(kind, 6, 3)
    with torch.no_grad():
        chain_of(module).rebase_()
        chain_of(module)[0].base += 1e-5
    worn = sets.Stiefel().residual(module.weight.detach())
    chain_of(module).rebase_(repair=False)
    if not kind.startswith("thin"):  # where the error would grow, it goes at once
        assert sets.Stiefel().residual(module.weight.detach()) > worn / 10
    chain_of(module).rebase_()
    assert sets.Stiefel().residual(module.weight.detach()) < worn / 1000


@pytest.mark.parametrize(
    "map_", [maps.Skew(), maps.Orthogonal("cayley", use_trivialization=False)]
)
def test_a_map_without_a_base_says_so_and_nothing_happens(map_):
    layer = holdfast.register_parametrization(nn.Linear(4, 4), "weight", map_)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(NotImplementedError, match=r"weight`.*no base point"):
        layer.parametrizations.weight.rebase_()
    for key, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[key])


@kinds
def test_a_base_that_moved_in_inference_mode_can_be_trained(kind):
    module = holder(kind, 6, 3)
    before = module.weight.detach()
    with torch.inference_mode():
        chain_of(module).rebase_()
    assert_close(module.weight.detach(), before, rtol=0, atol=1e-14)
    module.weight.sum().backward()
    assert chain_of(module).original.grad.any()


def test_a_scope_and_the_memo_see_the_move():
    module = holder("thin_cayley", 6, 3)
    with holdfast.cached():
        first = module.weight
        with torch.no_grad():
            chain_of(module).rebase_()
            chain_of(module).original += 0.5
        assert not torch.allclose(module.weight, first)
    with torch.no_grad():
        first = module.weight
        chain_of(module).rebase_()
        chain_of(module).original += 0.5
        assert not torch.allclose(module.weight, first)


# ---- At the base nothing is computed -----------------------------------------------


@shapes
@kinds_at_zero
def test_gradients_at_the_base_are_those_nearby(kind, shape):
    module = holder(kind, *shape)
    chain = chain_of(module)
    chain.rebase_()
    G = torch.randn(shape, dtype=torch.float64)
    (module.weight * G).sum().backward()
    free = chain.original.grad.clone()
    chain.original.grad = None
    with torch.no_grad():
        chain.original[..., -1, 0] += 1e-12
        chain.original[..., 0, -1] += 1e-12
    (module.weight * G).sum().backward()
    assert_close(free, chain.original.grad, rtol=0, atol=1e-9)


@kinds_at_zero
@pytest.mark.parametrize("shape", [(4, 4), (4, 2)])
def test_all_derivatives_at_the_base_are_right(kind, shape):
    module = holder(kind, *shape)
    chain_of(module).rebase_()
    map_, X = chain_of(module)[0], chain_of(module).original
    assert gradcheck(map_, (X,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(map_, (X,))


@kinds_at_zero
@pytest.mark.parametrize("shape", [(16, 16), (64, 16)])
def test_a_backward_pass_inside_autocast_loses_no_digit_at_the_base(kind, shape):
    module = holder(kind, *shape, dtype=torch.float32)
    chain_of(module).rebase_()
    original, G = chain_of(module).original, torch.randn_like(module.weight)

    def slope(function):
        return torch.autograd.grad((function() * G).sum(), original)[0]

    expected = slope(lambda: module.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = slope(lambda: module.weight)
        product = G.mT @ G  # the negative control
    assert torch.equal(found, expected)
    assert not torch.equal(product.float(), G.mT @ G)


def test_the_second_derivative_at_the_base_is_not_that_of_a_constant():
    """Negative control: what a rule that forgets the coordinates would give."""
    module = holder("thin_cayley", 4, 2)
    chain_of(module).rebase_()
    X, G = chain_of(module).original, torch.randn(4, 2, dtype=torch.float64)
    (slope,) = torch.autograd.grad((module.weight * G).sum(), X, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), X)
    assert second.abs().max() > 1e-3


@kinds_at_zero
def test_at_the_base_no_map_is_evaluated(kind, monkeypatch):
    module = holder(kind, 6, 6)
    chain_of(module).rebase_()
    calls = []
    names = ("cayley_transform_lower", "skew_exponential_lower")
    for name in (*names, "thin_exponential_lower", "thin_cayley_lower"):
        monkeypatch.setattr(
            maps.orthogonal, name, lambda *_, name=name: calls.append(name)
        )
    monkeypatch.setattr(maps.thin, "_AROUND", dict.fromkeys(("cayley", "matrix_exp")))
    module.weight.sum().backward()
    assert not calls
    with torch.no_grad():
        chain_of(module).original += 1e-30  # not zero
    with pytest.raises((TypeError, AttributeError)):
        module.weight.sum().backward()


def test_forward_mode_at_the_base():
    module = holder("thin_cayley", 4, 2)
    chain_of(module).rebase_()
    map_, X = chain_of(module)[0], chain_of(module).original.detach()
    V = torch.randn_like(X)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(map_(forward_ad.make_dual(X, V))).tangent
    base = map_.base
    assert_close(found, V - base @ V.mT @ base)


def test_a_base_that_is_differentiated_is():
    base = linalg.positive_qr(torch.randn(4, 2, dtype=torch.float64))
    base.requires_grad_()
    X = torch.zeros(4, 2, dtype=torch.float64)
    Q = trivialization.around_base(
        X, base, linalg.thin_cayley_at, trivialization.thin_slope
    )
    Q.sum().backward()
    assert_close(base.grad, torch.ones(4, 2, dtype=torch.float64))


def test_the_value_at_the_base_is_not_the_base_itself():
    module = holder("thin_cayley", 4, 2)
    chain_of(module).rebase_()
    with torch.no_grad():
        module.weight.zero_()
    assert sets.Stiefel().contains(chain_of(module)[0].base)


# ---- Along an optimizer ------------------------------------------------------------


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    torch.manual_seed(3)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, module.weight.shape[-2], dtype=module.weight.dtype)
        (
            module(x) - x[:, : module.weight.shape[-1]].roll(1, 1)
        ).square().mean().backward()
        optimizer.step()


def test_the_base_moves_after_every_k_steps():
    module = holder("cayley", 5, 5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    holdfast.Rebase(module, optimizer, every=3)
    base = chain_of(module)[0].base
    moves = []
    for _ in range(7):
        version = base._version
        train(module, optimizer, 1)
        moves.append(base._version > version)
    assert moves == [False, False, True, False, False, True, False]


@kinds
@pytest.mark.parametrize("shape", [(5, 5), (6, 3)])
def test_rebasing_finds_a_rotation(kind, shape):
    """The loss of the best orthogonal weight is zero, and is reached."""
    torch.manual_seed(0)
    module = holder(kind, *shape)
    module.weight = sets.Stiefel().sample(shape, dtype=torch.float64)
    if kind == "householder" or shape == (
        5,
        5,
    ):  # its component has to be the right one
        goal = torch.eye(*shape, dtype=torch.float64).roll(1, 1)
        start = goal.clone()
        start[:2] = start[:2] @ torch.eye(shape[1], dtype=torch.float64)
        module.weight = _near(goal)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    holdfast.Rebase(module, optimizer, every=1)
    train(module, optimizer, 400)
    torch.manual_seed(9)
    x = torch.randn(64, shape[0], dtype=torch.float64)
    loss = (module(x) - x[:, : shape[1]].roll(1, 1)).square().mean()
    assert loss < 1e-3


def _near(Q: Tensor) -> Tensor:
    """Return an orthogonal matrix some way from another, in the same component."""
    A = linalg.skew(torch.randn(Q.shape[0], Q.shape[0], dtype=Q.dtype))
    return linalg.cayley_transform(0.5 * A) @ Q


def test_with_k_1_a_step_of_gradient_descent_is_that_of_the_paper():
    """Q exp(-lr skew(Q'G)) is what dynamic trivialization with K = 1 does."""
    module = holder("matrix_exp", 4, 4)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    holdfast.Rebase(module, optimizer, every=1).rebase()
    Q, G = module.weight.detach(), torch.randn(4, 4, dtype=torch.float64)
    (module.weight * G).sum().backward()
    optimizer.step()
    inside = Q.mT @ G
    step = linalg.skew_exponential(-0.1 * (inside - inside.mT))
    assert_close(module.weight.detach(), Q @ step)


def test_momentum_and_gradient_are_left_alone():
    module = holder("thin_cayley", 6, 3)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    holdfast.Rebase(module, optimizer, every=2)
    train(module, optimizer, 2)
    state = optimizer.state[chain_of(module).original]
    assert state["exp_avg"].any()
    assert state["step"] == 2
    assert chain_of(module).original.grad is not None


@pytest.mark.parametrize(
    ("kind", "shape"), [("cayley", (16, 16)), ("thin_cayley", (24, 8))]
)
def test_ten_thousand_steps_in_single_precision_stay_on_the_set(kind, shape):
    module = holder(kind, *shape, dtype=torch.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    holdfast.Rebase(module, optimizer, every=1)
    original, generator = chain_of(module).original, torch.Generator().manual_seed(0)
    for _ in range(10_000):  # gradients without end: the worst that training does
        original.grad = torch.randn(shape, generator=generator)
        optimizer.step()
    Q = linalg.tall(module.weight.detach().double())
    off = Q.mT @ Q - torch.eye(Q.shape[1], dtype=torch.float64)
    assert torch.linalg.matrix_norm(off, 2) < 1e-5


def test_without_repair_it_drifts():
    """Negative control of the test above."""
    module = holder("cayley", 16, 16, dtype=torch.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    holdfast.Rebase(module, optimizer, every=1, repair_every=1_000_000)
    original, generator = chain_of(module).original, torch.Generator().manual_seed(0)
    for _ in range(3_000):
        original.grad = torch.randn(16, 16, generator=generator)
        optimizer.step()
    Q = module.weight.detach().double()
    off = Q.mT @ Q - torch.eye(16, dtype=torch.float64)
    assert torch.linalg.matrix_norm(off, 2) > 1e-5


THIN = (maps.ThinOrthogonal, maps.Horizontal)


@pytest.mark.parametrize("thin", THIN)
@pytest.mark.parametrize("kind", ["cayley", "matrix_exp"])
@pytest.mark.parametrize("repaired", [True, False])
def test_errors_of_thin_bases_do_not_multiply(thin, kind, repaired, monkeypatch):
    """What leads along the base, as momentum does, is taken out by the base itself."""
    if not repaired:  # negative control
        monkeypatch.setattr(thin, "_repaired", thin.forward)
    module = Holder(8, 5, dtype=torch.float32)
    holdfast.register_parametrization(module, "weight", thin(kind))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    holdfast.Rebase(module, optimizer)
    original, generator = chain_of(module).original, torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(29):  # before the first of the repairs that every base has
        noise = torch.randn(8, 5, generator=generator)
        original.grad = 4 * module.weight.detach() + noise
        optimizer.step()
        Q = module.weight.detach().double()
        off = Q.mT @ Q - torch.eye(5, dtype=torch.float64)
        worst = max(worst, float(torch.linalg.matrix_norm(off, 2)))
    assert (worst < 5e-6) == repaired, worst


@kinds
@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 6)], ids=str)
@pytest.mark.parametrize("every", [1, 2])
def test_equal_weights_move_as_one_batch(kind, shape, every, monkeypatch):
    """Six are alike, two are of another shape, and one is frozen."""
    shapes = [shape] * 3 + [(4, 4)] + [shape] * 3 + [(4, 4)]
    together = nn.ModuleList(holder(kind, *each) for each in shapes)
    alone = copy.deepcopy(together)
    sizes: list[int] = []
    evaluated = rebasing.twin_of
    monkeypatch.setattr(
        rebasing,
        "twin_of",
        lambda chain, stacks: sizes.append(len(stacks[0])) or evaluated(chain, stacks),
    )
    for model in (together, alone):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rebase = holdfast.Rebase(model, optimizer, every=every, repair_every=2)
        if model is alone:
            monkeypatch.setattr(rebasing, "_rebased_together", lambda *_, **__: False)
        for step in range(4):
            optimizer.zero_grad()
            sum(
                (each.weight * (i + step)).sum() for i, each in enumerate(model)
            ).backward()
            optimizer.step()
        assert rebase.steps == 4
    assert sizes, "no batch was made"
    assert set(sizes) == {6}, "and none of two"
    for one, other in zip(together, alone, strict=True):
        assert_close(one.weight, other.weight, rtol=0, atol=1e-13)
        for ours, theirs in zip(
            one.state_dict().values(), other.state_dict().values(), strict=True
        ):
            assert_close(ours, theirs, rtol=0, atol=1e-13)


def test_a_batch_that_moves_is_seen_by_scopes_and_keeps_identities():
    model = nn.ModuleList(holder("cayley", 5, 5) for _ in range(4))
    originals = [chain_of(each).original for each in model]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rebase = holdfast.Rebase(model, optimizer, every=1)
    with torch.no_grad(), holdfast.cached(model):
        before = [each.weight.clone() for each in model]
        rebase.rebase()
        for each, value, original in zip(model, before, originals, strict=True):
            assert chain_of(each).original is original
            assert not original.tril(-1).any()
            assert_close(each.weight, value, rtol=0, atol=1e-14)
            assert torch.equal(each.weight, chain_of(each)[0].base)


def test_only_what_this_optimizer_moves_is_rebased():
    model = nn.Sequential(holder("thin_cayley", 6, 3), holder("thin_cayley", 3, 2))
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    holdfast.Rebase(model, optimizer).rebase()
    assert chain_of(model[0])[0].base is not None
    assert chain_of(model[1])[0].base is None


def test_a_weight_that_is_no_longer_parametrized_is_left_alone():
    module = holder("thin_cayley", 6, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    holdfast.Rebase(module, optimizer)
    holdfast.remove_parametrizations(module, "weight")
    before = module.weight.detach().clone()
    optimizer.step()
    assert torch.equal(module.weight, before)


def test_it_can_be_removed_and_resumed():
    module = holder("thin_cayley", 6, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    rebase = holdfast.Rebase(module, optimizer, every=5)
    train(module, optimizer, 3)
    again = holdfast.Rebase(module, optimizer, every=5)
    again.load_state_dict(rebase.state_dict())
    rebase.remove()
    train(module, optimizer, 1)
    assert chain_of(module)[0].base is None
    train(module, optimizer, 1)
    assert chain_of(module)[0].base is not None
    assert rebase.steps == 3


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"repair_every": -1}, {"every": 1.5}, {"every": "a"}]
)
def test_numbers_that_are_not_positive_are_refused(options):
    module = holder("thin_cayley", 6, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` to be a whole number"):
        holdfast.Rebase(module, optimizer, **options)


def test_an_original_around_two_bases_is_refused():
    one, other = holder("cayley", 4, 4), holder("cayley", 4, 4)
    chain_of(other).original = chain_of(one).original
    model = nn.ModuleList([one, other])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(holdfast.errors.TiedTensorError, match="in common with"):
        holdfast.Rebase(model, optimizer)
    assert not optimizer._optimizer_step_post_hooks


def test_nothing_to_rebase_is_an_error():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="has a base point"):
        holdfast.Rebase(model, optimizer)


def test_mixed_precision_rebases_in_single():
    module = holder("thin_cayley", 32, 8, dtype=torch.bfloat16)
    chain_of(module).rebase_()
    assert module.weight.dtype == torch.bfloat16
    assert sets.Stiefel().residual(module.weight.detach()) < 2e-2


# ---- Checkpoints -------------------------------------------------------------------


@pytest.mark.parametrize("moves", [(0, 1), (1, 0), (1, 1), (0, 0)])
@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_loads_whether_or_not_there_is_a_base(moves, assign):
    source, target = holder("thin_cayley", 6, 3), holder("thin_cayley", 6, 3)
    for module, count in zip((source, target), moves, strict=True):
        for _ in range(count):
            chain_of(module).rebase_()
    with torch.no_grad():
        chain_of(source).original += 0.1
    target.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(target.weight, source.weight)
    if not assign:  # nothing is shared
        with torch.no_grad():
            for tensor in target.state_dict().values():
                tensor.zero_()
        assert sets.Stiefel().contains(source.weight.detach())


def test_missing_keys_are_still_reported():
    state = holder("thin_cayley", 6, 3).state_dict()
    del state["parametrizations.weight.original"]
    with pytest.raises(
        RuntimeError, match=re.escape("parametrizations.weight.original")
    ):
        holder("thin_cayley", 6, 3).load_state_dict(state)


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("kind", ["thin_cayley", "thin_matrix_exp", None])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (2, 5, 3), (4, 1)])
def test_what_torchs_default_has_saved_loads_with_its_value(shape, kind, base):
    theirs = torch_recipes.orthogonal(Holder(*shape), use_trivialization=base)
    with torch.no_grad():
        original = theirs.parametrizations.weight.original
        step = 0.3 * torch.randn_like(original)
        original += step.tril(-1) + step.triu(1)
    ours = holdfast.orthogonal(Holder(*shape), orthogonal_map=kind)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_close(ours.weight.detach(), theirs.weight.detach())
    state = ours.state_dict()
    again = holdfast.orthogonal(Holder(*shape), orthogonal_map=kind)
    again.load_state_dict(state)
    assert torch.equal(again.weight, ours.weight)


def test_what_torchs_default_has_saved_of_complex_weights_loads():
    theirs = torch_recipes.orthogonal(Holder(6, 3, dtype=torch.complex128))
    ours = holdfast.orthogonal(Holder(6, 3, dtype=torch.complex128))
    with torch.no_grad():
        theirs.parametrizations.weight.original += 0.3
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_close(ours.weight.detach(), theirs.weight.detach())


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (2, 3, 0)])
@pytest.mark.parametrize(
    "map_",
    [
        maps.Orthogonal("matrix_exp"),
        maps.Orthogonal("cayley"),
        maps.ThinOrthogonal("matrix_exp"),
    ],
    ids=["exp", "cayley", "thin"],
)
def test_weights_without_columns_around_a_base(map_, shape):
    module = nn.Module()
    module.weight = nn.Parameter(torch.empty(shape))
    holdfast.register_parametrization(module, "weight", map_)
    assert module.weight.shape == shape
    module.weight.sum().backward()


@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (32, 8)])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
def test_a_model_that_was_converted_is_made_exact(kind, shape):
    """What `.double()` leaves is a base of seven digits, and residuals say so."""
    layer = holdfast.orthogonal(nn.Linear(*shape[::-1]), orthogonal_map=kind)
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(torch.randn(shape) / 10)
    before = layer.double().weight.detach()
    assert not holdfast.residuals(layer)["weight"].holds
    layer.parametrizations.weight.rebase_()
    assert holdfast.residuals(layer)["weight"].holds
    assert_close(layer.weight, before, rtol=0, atol=torch.finfo(torch.float32).eps)
