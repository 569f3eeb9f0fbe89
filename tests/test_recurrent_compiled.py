"""Recurrent modules under ``torch.compile``, which does not trace them by default."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast


@pytest.fixture(autouse=True)
def compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def model_of(cls, recipe) -> nn.Module:
    """Return eight kernels, all parametrized, after a layer that is compiled."""
    rnn = cls(4, 4, num_layers=2, bidirectional=True, batch_first=True)
    for name in [name for name, _ in rnn.named_parameters() if "weight" in name]:
        recipe(rnn, name)
    return nn.Sequential(nn.Linear(4, 4), rnn)


def train(model: nn.Module, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    found = []
    for x in torch.linspace(-1, 1, 3 * 2 * 5 * 4).reshape(3, 2, 5, 4):
        optimizer.zero_grad()
        out = model(x)[0]
        out.square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            found += [out.detach(), model(x)[0]]
    return found


@pytest.mark.parametrize(
    ("cls", "recipe"),
    [
        (nn.RNN, holdfast.orthogonal),
        (nn.LSTM, holdfast.weight_norm),
        (nn.GRU, holdfast.weight_norm),
    ],
)
def test_no_function_is_compiled_once_for_each_kernel(cls, recipe):
    model = model_of(cls, recipe)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    limits = {"recompile_limit": 2, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(limits):  # two: with gradients and without
        found = train(compiled, [*model.parameters()])
    assert_close(found, train(twin, [*twin.parameters()]))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0  # the layer before it


def test_where_torch_is_told_to_trace_them_the_maps_are_in_the_graph():
    rnn, x = holdfast.weight_norm(nn.GRU(4, 4), "weight_hh_l0"), torch.randn(5, 2, 4)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(rnn, backend="eager", fullgraph=True)
        assert_close(compiled(x)[0], rnn(x)[0])
