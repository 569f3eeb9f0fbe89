"""Several tensors of a module, joined and parametrized as one (A10, A11)."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import errors, maps
from holdfast.errors import CheckpointError
from support import Sine, Wave, evaluations, state_of

NAMES = ["weight_ih_l0", "weight_hh_l0"]


class Attention(nn.Module):
    """One head, with its projections as parameters."""

    def __init__(self) -> None:
        super().__init__()
        for name in "qkv":
            self.register_parameter(name, nn.Parameter(torch.rand(3, 4) / 4))

    def forward(self, x):
        q, k, v = (x @ getattr(self, name).mT for name in "qkv")
        return (q @ k.mT).softmax(-1) @ v


def joined(make=nn.LSTM):
    torch.manual_seed(0)
    return holdfast.join(make(2, 3), NAMES, "weight", dim=1)


def attention():
    torch.manual_seed(0)
    return holdfast.join(Attention(), ["q", "k", "v"], "qkv")


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_A10_joined_tensors_are_slices_of_one_parameter(make):
    torch.manual_seed(0)
    plain = make(2, 3)
    module, x = joined(make), torch.randn(4, 2)
    assert [*dict(module.named_parameters())] == ["weight", "bias_ih_l0", "bias_hh_l0"]
    assert_close(module.weight, torch.cat([getattr(plain, n) for n in NAMES], 1))
    for name in NAMES:
        assert_close(getattr(module, name), getattr(plain, name))
    out, expected = module(x)[0], plain(x)[0]
    assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    grads = [getattr(plain, name).grad for name in NAMES]
    assert_close(module.weight.grad, torch.cat(grads, 1))
    assert isinstance(module, make)


def test_A10_a_map_on_the_whole_constrains_the_parts_together():
    module = holdfast.orthogonal(joined(nn.RNN), "weight")
    apart = nn.RNN(2, 3)
    for name in NAMES:
        holdfast.orthogonal(apart, name)
    for each, together in ((module, True), (apart, False)):
        W = torch.cat([getattr(each, name) for name in NAMES], 1)
        assert torch.allclose(W @ W.T, torch.eye(3), atol=1e-5) is together
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.randn(4, 2))[0].sum().backward()
        optimizer.step()
    W = torch.cat([getattr(module, name) for name in NAMES], 1)
    assert_close(W @ W.T, torch.eye(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [joined, attention])
@pytest.mark.parametrize("grad", [True, False])
def test_A10_the_whole_is_evaluated_once_in_a_forward(make, grad):
    module, x = make(), torch.randn(5, 4 if make is attention else 2)
    name = "qkv" if make is attention else "weight"
    holdfast.register_parametrization(module, name, Wave())
    counter = module.parametrizations[name][0].calls
    counter.clear()
    with torch.set_grad_enabled(grad):
        module(x)
        assert len(counter) == 1
        module(x)
    assert len(counter) == (2 if grad else 1)  # the memo
    if grad:
        module(x)[0].sum().backward()
        module(x)[0].sum().backward()  # no graph is left over


def test_A10_assigning_a_part_goes_through_the_right_inverse_of_the_whole():
    module = attention()
    holdfast.register_parametrization(module, "qkv", Sine())
    before, k = module.q.detach(), torch.rand(3, 4)
    module.k = k
    assert_close(module.k, k)
    assert_close(module.q, before)
    module.v = nn.Parameter(k)
    assert_close(module.v, k)
    assert module.parametrizations.qkv.original is not k
    state = state_of(module)
    for wrong in (torch.rand(4, 4), k.double(), 3.0):
        with pytest.raises(errors.InvalidTensorError, match=r"Attention\.k`"):
            module.k = wrong
    assert state_of(module) == state


def test_A10_a_part_that_the_set_of_the_whole_forbids_is_refused():
    module = attention()
    holdfast.register_parametrization(module, "qkv", maps.Softplus())
    state = state_of(module)
    with pytest.raises(errors.NotInSetError):
        module.k = -torch.ones(3, 4)
    assert state_of(module) == state


def test_A10_written_in_place_and_folded_the_parts_are_of_the_whole():
    module = attention()
    holdfast.register_parametrization(module, "qkv", Sine())
    with holdfast.writable(module):
        nn.init.constant_(module.k, 0.25)
    assert_close(module.k, torch.full((3, 4), 0.25))
    x = torch.randn(5, 4)
    expected = module(x)
    with holdfast.folded(module):
        assert [name for name, _ in module.named_parameters()] == ["qkv"]
        assert_close(module(x), expected)
        exported = torch.export.export(module, (x,))
    assert_close(exported.module()(x), expected)
    assert_close(module(x), expected)


@pytest.mark.parametrize("parametrized", [False, True])
@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU])
def test_A10_plain_checkpoints_load_and_are_written(make, parametrized):
    torch.manual_seed(1)
    other = make(2, 3)
    model = nn.Sequential(joined(make))
    if parametrized:
        holdfast.weight_norm(model[0], "weight")
    model.load_state_dict({f"0.{k}": v for k, v in other.state_dict().items()})
    x = torch.randn(4, 2)
    assert_close(model(x)[0], other(x)[0])
    plain = holdfast.plain_state_dict(model)
    assert {*plain} == {f"0.{key}" for key in other.state_dict()}
    for key, value in other.state_dict().items():
        assert_close(plain[f"0.{key}"], value)
    again = nn.Sequential(joined(make))
    again.load_state_dict(holdfast.plain_state_dict(again))
    state = nn.Sequential(make(2, 3)).state_dict()
    del state["0.weight_hh_l0"]
    with pytest.raises(RuntimeError, match=r"(Missing|Unexpected)[\s\S]*weight_ih_l0"):
        model.load_state_dict(state)


def test_A10_parts_of_other_shapes_are_not_taken_for_the_whole():
    module = holdfast.join(nn.RNN(2, 3), NAMES, "weight", dim=1)
    wrong = nn.RNN(2, 3).state_dict()
    wrong["weight_ih_l0"], wrong["weight_hh_l0"] = torch.rand(3, 3), torch.rand(3, 2)
    with pytest.raises(RuntimeError, match="Unexpected"):
        module.load_state_dict(wrong)


def copied_by_pickle(module):
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("parametrized", [False, True])
@pytest.mark.parametrize("by", [copy.deepcopy, copy.copy, copied_by_pickle])
def test_I2_copies_have_the_class_and_stand_alone(by, parametrized):
    module = joined()
    if parametrized:
        holdfast.weight_norm(module, "weight")
    module(torch.randn(1, 2))
    twin = by(module)
    assert type(twin) is type(module) is type(joined_like(module))
    x = torch.randn(4, 2)
    assert_close(twin(x)[0], module(x)[0])
    if by is not copy.copy:
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(torch.rand(parameter.shape))
        assert not torch.equal(twin.weight_hh_l0, module.weight_hh_l0)


def joined_like(module):
    other = joined()
    if holdfast.is_parametrized(module):
        holdfast.weight_norm(other, "weight")
    return other


def test_A10_separated_everything_is_as_it_was():
    module = nn.LSTM(2, 3)
    keys, cls = [*module.state_dict()], type(module)
    x = torch.randn(4, 2)
    expected = module(x)[0]
    holdfast.join(module, NAMES, "weight", dim=1)
    holdfast.register_parametrization(module, "weight", Sine())
    with pytest.raises(errors.InvalidTensorError, match="remove_parametrizations"):
        holdfast.separate(module, "weight")
    holdfast.remove_parametrizations(module, "weight")
    holdfast.separate(module, "weight")
    assert [*module.state_dict()] == keys
    assert type(module) is cls
    assert_close(module(x)[0], expected)
    with pytest.raises(errors.UnknownTensorError, match="not made of joined"):
        holdfast.separate(module, "weight")


def test_A10_two_joints_and_other_parametrizations_side_by_side():
    module = nn.LSTM(2, 3)
    holdfast.positive(module, "bias_hh_l0")
    holdfast.join(module, NAMES, "weight", dim=1)
    holdfast.remove_parametrizations(module, "bias_hh_l0")
    holdfast.join(module, ["bias_ih_l0", "bias_hh_l0"], "biases")
    assert {name for name, _ in module.named_parameters()} == {"weight", "biases"}
    holdfast.separate(module, "weight")
    assert module.bias_hh_l0.data_ptr() > module.biases.data_ptr()
    assert bool((module.bias_hh_l0 > 0).all())
    holdfast.separate(module, "biases")
    assert type(module) is nn.LSTM


def test_A9_an_optimizer_follows():
    module = nn.LSTM(2, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    holdfast.join(module, NAMES, "weight", dim=1)
    assert holdfast.swap_parameters(optimizer) == 2
    mine = [p for group in optimizer.param_groups for p in group["params"]]
    assert {*map(id, mine)} == {*map(id, module.parameters())}
    holdfast.separate(module, "weight")
    holdfast.swap_parameters(optimizer)
    mine = [p for group in optimizer.param_groups for p in group["params"]]
    assert {*map(id, mine)} == {*map(id, module.parameters())}


def tied():
    module = nn.LSTM(2, 3)
    tied.other = nn.Linear(2, 2)
    tied.other.weight = module.weight_ih_l0
    return module


def frozen():
    module = nn.LSTM(2, 3)
    module.weight_ih_l0.requires_grad_(False)
    return module


def parametrized():
    return holdfast.weight_norm(nn.LSTM(2, 3), "weight_ih_l0")


@pytest.mark.parametrize(
    ("make", "names", "name", "dim", "message"),
    [
        (tied, NAMES, "weight", 1, "is tied"),
        (frozen, NAMES, "weight", 1, "requires_grad"),
        (parametrized, NAMES, "weight", 1, "is parametrized"),
        (joined, NAMES, "other", 1, "does not have a parameter"),
        (joined, ["weight", "bias_hh_l0"], "other", 0, "is joined itself"),
        (lambda: nn.LSTM(2, 3), NAMES, "weight", 0, "equal in all but dimension 0"),
        (lambda: nn.LSTM(2, 3), NAMES, "weight", 2, "out of range"),
        (lambda: nn.LSTM(2, 3), NAMES, "bias_hh_l0", 1, "has a `bias_hh_l0` already"),
        (lambda: nn.LSTM(2, 3), NAMES, "weight_hh_l0", 1, "already"),
        (lambda: nn.LSTM(2, 3), NAMES, "parametrizations", 1, "already"),
        (lambda: nn.LSTM(2, 3), NAMES, "a.b", 1, "without dots"),
        (lambda: nn.LSTM(2, 3), NAMES, "", 1, "without dots"),
        (lambda: nn.LSTM(2, 3), NAMES[:1], "weight", 1, "two or more"),
        (lambda: nn.LSTM(2, 3), NAMES[:1] * 2, "weight", 1, "each once"),
        (lambda: nn.LSTM(2, 3), ["weight_ih", NAMES[1]], "w", 1, "weight_ih_l0"),
    ],
)
def test_A6_what_cannot_be_joined_is_refused(make, names, name, dim, message):
    module = make()
    before = state_of(module)
    with pytest.raises(ValueError, match=message):
        holdfast.join(module, names, name, dim=dim)
    assert state_of(module) == before


def test_R1_an_error_in_the_map_of_the_whole_surfaces():
    module = attention()

    class Broken(nn.Module):
        def forward(self, X):
            return X if torch.is_grad_enabled() is False else X.no_such_thing

    holdfast.register_parametrization(module, "qkv", Broken())
    with pytest.raises(AttributeError, match="no_such_thing"):
        module.q  # noqa: B018


def test_C9_a_joined_model_compiles():
    module, x = attention(), torch.randn(5, 4)
    holdfast.weight_norm(module, "qkv")
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert_close(compiled(x), module(x))


@pytest.mark.parametrize("parametrized", [False, True])
def test_a_file_of_a_joined_model_says_how_to_join_the_one_that_loads_it(
    parametrized, tmp_path
):
    def make():
        return nn.Sequential(nn.RNN(3, 3))

    model, path = make(), tmp_path / "m.safetensors"
    holdfast.join(model[0], NAMES, "both", dim=1)
    if parametrized:
        holdfast.weight_norm(model[0], "both")
    holdfast.save(model, path)
    with pytest.raises(CheckpointError, match="`0.both` is several") as caught:
        holdfast.load(path, make)
    (call,) = re.findall("`(holdfast.join.*)`", str(caught.value))
    other = make()
    holdfast.join(other[0], NAMES, "both", dim=0)
    with pytest.raises(CheckpointError, match="or otherwise, in the model"):
        holdfast.load(path, other)
    other = make()
    eval(call, {"holdfast": holdfast, "model": other})  # what a user would copy
    holdfast.load(path, other)
    assert torch.equal(other[0].weight_hh_l0, model[0].weight_hh_l0)


def test_a_file_with_the_parts_goes_into_a_joined_model(tmp_path):
    model, other = nn.RNN(3, 3), nn.RNN(3, 3)
    holdfast.save(model, tmp_path / "m.safetensors")
    holdfast.join(other, ["weight_ih_l0", "weight_hh_l0"], "both", dim=1)
    holdfast.load(tmp_path / "m.safetensors", other)
    assert torch.equal(other.weight_hh_l0, model.weight_hh_l0)


def test_save_and_load_take_a_model_that_is_joined_in_the_same_way(tmp_path):
    model = nn.Sequential(attention())
    holdfast.weight_norm(model[0], "qkv")
    holdfast.save(model, tmp_path / "m.safetensors")
    again = holdfast.load(tmp_path / "m.safetensors", nn.Sequential(attention()))
    assert torch.equal(again[0].k, model[0].k)
    assert holdfast.spec(again) == holdfast.spec(model)


def test_A10_counts_in_the_forward_of_a_recurrent_module_whose_bias_is_parametrized():
    module = joined()
    holdfast.register_parametrization(module, "weight", Sine())
    holdfast.register_parametrization(module, "bias_hh_l0", Sine())
    for name in ("weight", "bias_hh_l0"):
        evaluations(module, name)
    module(torch.randn(4, 2))[0].sum().backward()
    assert evaluations(module, "weight") == 1
    assert evaluations(module, "bias_hh_l0") == 1


@pytest.mark.parametrize("grad", [True, False])
def test_W1_other_data_for_a_slice_is_lost_and_said_so(grad):
    module, x = joined(nn.RNN), torch.randn(4, 2)
    expected = module(x)[0].detach()
    with torch.set_grad_enabled(grad):
        module.weight_hh_l0.data = torch.eye(3)
        with pytest.warns(UserWarning, match=r"RNN.weight_hh_l0` was given another"):
            out = module(x)[0]
        assert_close(out.detach(), expected)
        module(x)  # it is said once


def test_W1_what_is_written_to_a_slice_in_other_ways_arrives_without_a_warning():
    module, x = joined(nn.RNN), torch.randn(4, 2)
    for write in (
        lambda: module.weight_hh_l0.data.copy_(torch.eye(3)),
        lambda: nn.init.eye_(module.weight_hh_l0),
        lambda: setattr(module, "weight_hh_l0", torch.eye(3)),
    ):
        with torch.no_grad():
            module.weight.zero_()
        write()
        module(x)
        assert_close(module.weight_hh_l0.detach(), torch.eye(3))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.share_memory(),
        lambda m: m.requires_grad_(False),
        lambda m: m.load_state_dict(m.state_dict()),
        lambda m: m.load_state_dict(m.state_dict(), assign=True),
        lambda m: holdfast.orthogonal(m, "weight"),
        lambda m: holdfast.separate(m, "weight"),
        lambda m: setattr(m.weight, "data", torch.ones(3, 5)),
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
    ],
)
def test_W1_what_happens_to_the_whole_is_no_lost_write(change):
    module = joined(nn.RNN)
    for name in NAMES:
        getattr(module, name)
    found = change(module)
    for each in (module, found if isinstance(found, nn.Module) else module):
        dtype = next(each.parameters()).dtype
        each(torch.randn(4, 2, dtype=dtype))


def test_slices_that_were_handed_out_do_not_keep_the_memo_from_its_work():
    module, x = holdfast.orthogonal(joined(nn.RNN), "weight"), torch.randn(4, 2)
    twin = joined(nn.RNN)
    for name in NAMES:
        getattr(twin, name)
    twin = holdfast.orthogonal(twin, "weight")
    for each in (module, twin):
        with torch.no_grad():
            for _ in range(2):
                each(x)
            assert each.weight is each.weight
