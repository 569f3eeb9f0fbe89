"""Weight decay where it means something, and averages of weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.testing import assert_close

import holdfast
from cases import CASES
from holdfast import Parametrization, errors, maps, sets
from holdfast.model.decay import _decays
from holdfast.testing.case import Case

# Adapters go back to the weight that they began with, factors are not told apart from
# those beside them, and for two maps it depends on their arguments.
ADAPTERS, FACTORS = ("lora", "oft", "delta"), ("product", "frozen", "concatenated")
NOT_MEASURED = (*ADAPTERS, *FACTORS, "discrete", "clip norms from both sides")


def law_decays(case: Case) -> None:
    shape = next(shape for shape in case.shapes if 0 not in shape)
    dtype = torch.float64 if torch.float64 in case.dtypes else case.dtypes[-1]
    shrinks: list[list[bool]] = []
    for _ in range(4):
        host = case.registered(torch.randn(shape, dtype=dtype))
        originals = host.parametrizations.weight.originals()
        with torch.no_grad():
            for original in originals:
                original.add_(torch.randn_like(original) / 3)
            shrinks.append([_shrinks(host, original) for original in originals])
    found = [all(each) for each in zip(*shrinks, strict=True)]
    assert _decays(host.parametrizations.weight) == found


def _shrinks(host: nn.Module, original: Tensor) -> bool:
    """Tell whether an original takes the weight with it to zero."""
    before, norm = original.clone(), host.weight.norm()
    original.copy_(1e-9 * before)
    small = host.weight.norm() / norm
    original.copy_(before)
    return bool(small < 1e-3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_originals_decay_if_the_weight_goes_to_zero_with_them(case):
    if not case.name.startswith(NOT_MEASURED):
        law_decays(case)


class Wrong(Parametrization):
    """Scale-invariant, and says that it decays."""

    def forward(self, X: Tensor) -> Tensor:
        return X / X.norm()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class Silent(maps.Skew):
    decays = False


@pytest.mark.parametrize("wrong", [Wrong, Silent])
def test_the_law_rejects_a_wrong_declaration(wrong):
    case = Case("wrong", lambda _: [wrong()], lambda _: sets.Real(), ((4, 4),))
    with pytest.raises(AssertionError):
        law_decays(case)


def test_groups_hold_every_parameter_once():
    model = nn.Sequential(
        holdfast.orthogonal(nn.Linear(3, 3)),
        holdfast.weight_norm(nn.Linear(3, 3)),
        nn.Linear(3, 3),
    )
    groups = holdfast.parameter_groups(model, weight_decay=0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    undecayed = {id(p) for p in groups[1]["params"]}
    directions = model[1].parametrizations.weight.original1
    assert undecayed == {
        id(model[0].parametrizations.weight.original),
        id(directions),
    }
    every = [p for group in groups for p in group["params"]]
    assert sorted(map(id, every)) == sorted(map(id, model.parameters()))
    torch.optim.AdamW(groups)


def test_a_chain_decays_if_all_of_its_maps_do():
    model = nn.ModuleList([nn.Linear(3, 3, bias=False) for _ in range(2)])
    for layer in model:
        holdfast.register_parametrization(layer, "weight", maps.Skew())
    holdfast.register_parametrization(model[1], "weight", maps.Cayley())
    first, second = holdfast.parameter_groups(model, weight_decay=0.1)
    assert first["params"] == [model[0].parametrizations.weight.original]
    assert second["params"] == [model[1].parametrizations.weight.original]


@pytest.mark.parametrize("decay", [-1.0, float("nan")])
def test_a_decay_is_not_negative(decay):
    with pytest.raises(ValueError, match="0 or positive"):
        holdfast.parameter_groups(nn.Linear(2, 2), weight_decay=decay)


def test_decayed_weights_have_the_gradient_of_their_square():
    model = holdfast.weight_norm(nn.Linear(3, 3)).double()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    decay = holdfast.DecayWeights(model, optimizer, weight_decay=0.5)
    x = torch.randn(2, 3, dtype=torch.float64)
    model(x).sum().backward()
    optimizer.step()
    (twin(x).sum() + 0.25 * twin.weight.square().sum()).backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert_close(list(model.parameters()), list(twin.parameters()))
    decay.remove()
    before = model.weight
    optimizer.zero_grad()
    optimizer.step()
    assert_close(model.weight, before)


def test_orthogonal_weights_have_none():
    model = holdfast.orthogonal(nn.Linear(3, 3)).double()
    original = model.parametrizations.weight.original
    original.data.add_(torch.randn_like(original))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    holdfast.DecayWeights(model, optimizer, weight_decay=0.5)
    before = model.weight
    optimizer.step()
    assert_close(model.weight, before)


def test_decayed_weights_and_accumulated_gradients():
    model = holdfast.weight_norm(nn.Linear(3, 3)).double()
    twin, x = copy.deepcopy(model), torch.randn(2, 3, dtype=torch.float64)
    for each in (model, twin):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        holdfast.DecayWeights(each, optimizer, weight_decay=0.5)
        scope = holdfast.accumulate(each) if each is model else holdfast.cached()
        with scope:
            each(x).sum().backward()
            optimizer.step()
    assert_close(list(model.parameters()), list(twin.parameters()))


def test_decaying_what_the_optimizer_does_not_move_is_refused():
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no parametrized tensor"):
        holdfast.DecayWeights(nn.Linear(2, 2), optimizer, weight_decay=0.1)


# ---- Averages ----------------------------------------------------------------------


def moving_model() -> nn.Sequential:
    return nn.Sequential(
        holdfast.orthogonal(nn.Linear(4, 4)), nn.BatchNorm1d(4), nn.Linear(4, 4)
    )


def move(model: nn.Module) -> None:
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) / 5)


def test_the_average_of_weights_is_projected():
    model = moving_model()
    averages = holdfast.AverageWeights(model)
    seen, plain = [], []
    for _ in range(3):
        move(model)
        averages.update_parameters(model)
        seen.append(model[0].weight.detach())
        plain.append(model[2].weight.detach().clone())
    mean = torch.stack(seen).mean(0)
    assert sets.Stiefel().residual(mean) > 1e-3  # what there is to project
    assert_close(averages.module[0].weight, sets.Stiefel().project(mean))
    assert_close(averages.module[2].weight, torch.stack(plain).mean(0))


def test_the_average_is_exact_where_that_of_originals_is_none():
    model = moving_model()
    averages, theirs = holdfast.AverageWeights(model), AveragedModel(model)
    for W in torch.eye(4), torch.eye(4)[[1, 0, 3, 2]]:
        model[0].weight = W  # moves the base, and leaves the coordinates
        averages.update_parameters(model)
        theirs.update_parameters(model)
    mean = (torch.eye(4) + torch.eye(4)[[1, 0, 3, 2]]) / 2
    close = sets.Stiefel().project(mean + 1e-3 * torch.eye(4))
    assert torch.dist(averages.module[0].weight, mean) < torch.dist(-close, mean)
    assert_close(theirs.module[0].weight, W)  # of the coordinates: the last base


def test_exponential_averages_and_batch_norm():
    model = moving_model()
    ema = holdfast.AverageWeights(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(3):
        move(model)
        ema.update_parameters(model)
        theirs.update_parameters(model)
    assert_close(ema.module[2].weight, theirs.module[2].weight)
    x = torch.randn(8, 4)
    update_bn([x], ema)
    assert bool(ema.module[1].running_mean.any())
    assert ema(x).shape == x.shape


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("use_buffers", [False, True])
def test_the_statistics_of_an_average_are_those_of_torchs(use_buffers, loaded):
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    averages = [
        kind(copy.deepcopy(plain), use_buffers=use_buffers)
        for kind in (holdfast.AverageWeights, AveragedModel)
    ]
    for x in torch.randn(3, 8, 4):
        plain(x)  # moves the statistics of the model
        for average in averages:
            average.update_parameters(plain)
    batches = [*torch.randn(4, 8, 4)]
    for average in averages:  # nobody has read a weight
        update_bn(batches, average)
    ours, theirs = averages
    if loaded:
        state, ours = ours.state_dict(), holdfast.AverageWeights(plain)
        ours.load_state_dict(state)
    assert_close(dict(ours.module.state_dict()), dict(theirs.module.state_dict()))


def test_averages_are_saved_and_loaded():
    model = moving_model()
    averages = holdfast.AverageWeights(model)
    move(model)
    averages.update_parameters(model)
    other = holdfast.AverageWeights(moving_model())
    other.load_state_dict(averages.state_dict())
    assert_close(other.module[0].weight, averages.module[0].weight)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages_while_bases_move_are_of_weights(use_buffers):
    """Torch's average copies the last base, or takes a mean of bases, which is none."""
    model = holdfast.orthogonal(nn.Linear(4, 4, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"multi_avg_fn": get_ema_multi_avg_fn(0.9), "use_buffers": use_buffers}
    ours = holdfast.AverageWeights(model, **options)
    theirs = AveragedModel(model, **options)
    holdfast.Rebase(model, optimizer)
    mean = None
    for x in torch.randn(20, 8, 4):
        optimizer.zero_grad()
        model(x).cumsum(1).square().mean().backward()
        optimizer.step()
        ours.update_parameters(model)
        theirs.update_parameters(model)
        W = model.weight.detach().clone()
        mean = W if mean is None else 0.9 * mean + 0.1 * W
    nearest = sets.Stiefel().project(mean)
    assert_close(ours.module.weight, nearest, rtol=0, atol=1e-5)
    assert torch.dist(theirs.module.weight, nearest) > 0.1
    assert (sets.Stiefel().residual(theirs.module.weight) > 0.01) == use_buffers


def test_an_average_of_what_diverged_is_refused_by_name():
    model = moving_model()
    averages = holdfast.AverageWeights(model)
    averages.update_parameters(model)
    with torch.no_grad():
        model[0].parametrizations.weight.original.fill_(float("nan"))
    averages.update_parameters(model)
    with pytest.raises(errors.NonFiniteError, match=r"0\.weight`: the average has NaN"):
        averages.module.train()
