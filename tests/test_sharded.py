"""Models that are wrapped for many processes: what works, and what is refused.

One process is as good as several where names, types and errors are concerned.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import holdfast
from holdfast import errors
from support import state_of, told

RECIPES = [holdfast.weight_norm, holdfast.orthogonal, holdfast.spectral_norm]


def model_of(recipe) -> nn.Module:
    return nn.Sequential(nn.ReLU(), recipe(nn.Linear(4, 4)))


def sharded(recipe, mesh) -> nn.Module:
    model = model_of(recipe)
    torch.distributed.fsdp.fully_shard(model[1], mesh=mesh)
    return model


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_that_ddp_wraps_is_folded_without_it(recipe, mesh):
    model, x = model_of(recipe).eval(), torch.randn(2, 4)
    ddp = DistributedDataParallel(model)
    before, expected = state_of(model), model(x)
    for fold in (holdfast.fold, lambda m: holdfast.folded(m).__enter__()):
        with pytest.raises(errors.InvalidTensorError, match=r"Fold its `\.module`"):
            fold(ddp)
    with pytest.raises(errors.InvalidTensorError, match="`1` keeps"):
        holdfast.fold(nn.Sequential(nn.ReLU(), ddp))
    assert state_of(model) == before
    with holdfast.folded(ddp.module), torch.no_grad():
        assert_close(ddp.module(x), expected)
    assert_close(ddp(x), expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_plain_state_dict_of_ddp_has_its_prefix(recipe, mesh):
    model = model_of(recipe)
    state = holdfast.plain_state_dict(DistributedDataParallel(model))
    assert_close(state["module.1.weight"], model[1].weight.detach())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_sharded_model_is_not_folded(recipe, mesh):
    model, x = sharded(recipe, mesh).eval(), torch.randn(2, 4)
    expected = model(x)
    for fold in (holdfast.fold, lambda m: holdfast.folded(m).__enter__()):
        with pytest.raises(errors.InvalidTensorError, match="`1` is sharded by FSDP"):
            fold(model)
    assert holdfast.is_parametrized(model[1], "weight")
    assert_close(model(x), expected)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("used", [False, True])
def test_the_plain_state_dict_of_a_sharded_model_is_whole(recipe, used, mesh):
    torch.manual_seed(0)
    expected = holdfast.plain_state_dict(model_of(recipe).eval())
    torch.manual_seed(0)
    model, x = sharded(recipe, mesh).eval(), torch.randn(2, 4)
    if used:
        model(x)
    state = holdfast.plain_state_dict(model)
    assert list(state) == list(expected)
    assert {type(value) for value in state.values()} == {torch.Tensor}
    assert_close(state, expected)
    plain = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
    plain.load_state_dict(state)
    assert_close(plain(x), model(x))


def test_control_torchs_own_state_dict_is_not_whole(mesh):
    state = sharded(holdfast.weight_norm, mesh).state_dict()
    assert all(type(value) is not torch.Tensor for value in state.values())


def test_a_sharded_model_trains(mesh):
    model = sharded(holdfast.orthogonal, mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(2, 4)).cumsum(1).square().sum().backward()
        optimizer.step()
    W = holdfast.plain_state_dict(model)["1.weight"]
    assert_close(W @ W.T, torch.eye(4))


def test_an_error_of_sharded_originals_says_where_they_are_whole(mesh):
    model = sharded(holdfast.orthogonal, mesh)
    with pytest.raises(RuntimeError) as caught:
        model[1].weight.sum()
    assert "holdfast.plain_state_dict(model)" in told(caught.value)
    with pytest.raises(RuntimeError) as caught:
        holdfast.writable(model).__enter__()
    assert "between `unshard()` and `reshard()`" in told(caught.value)
    model[1].unshard()
    W = model[1].weight
    model[1].reshard()
    assert_close(W @ W.T, torch.eye(4))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_tensor_is_not_assigned_to_a_sharded_one(recipe, mesh):
    model = sharded(recipe, mesh)
    before = holdfast.plain_state_dict(model)
    with pytest.raises(
        errors.InvalidTensorError, match=r"`1\.weight`, whose originals"
    ):
        model[1].weight = torch.eye(4)
    assert_close(holdfast.plain_state_dict(model), before)


def test_saving_a_sharded_model_is_refused(mesh, tmp_path):
    model = sharded(holdfast.weight_norm, mesh)
    with pytest.raises(errors.CheckpointError, match=r"plain_state_dict\(model\)"):
        holdfast.save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_the_plain_state_dict_of_flattened_parameters(mesh):
    """FSDP1 takes its own prefix out of the keys, under which the maps are found."""
    model = model_of(holdfast.orthogonal)
    expected = holdfast.plain_state_dict(model)
    wrapper = torch.distributed.fsdp.FullyShardedDataParallel
    cpu = torch.device("cpu")
    wrapped = wrapper(model, device_id=cpu, use_orig_params=True)
    with pytest.raises(errors.InvalidTensorError, match="summon_full_params"):
        holdfast.plain_state_dict(wrapped)
    with pytest.raises(errors.InvalidTensorError, match="is sharded by FSDP"):
        holdfast.fold(wrapped)
    with wrapper.summon_full_params(wrapped):
        assert_close(holdfast.plain_state_dict(wrapped.module), expected)


def test_the_plain_state_dict_of_a_checkpointed_module_is_not_half_plain():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
        checkpoint_wrapper,
    )

    inner = holdfast.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(nn.ReLU(), checkpoint_wrapper(inner))
    with pytest.raises(errors.InvalidTensorError, match=r"`1\.parametrizations"):
        holdfast.plain_state_dict(model)
