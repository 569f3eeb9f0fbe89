"""Schedules of trainers: for which optimizers they are made, and what they remember."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import holdfast
from holdfast.integrations.schedules import Schedules


class Counts:
    """A schedule with everything that one may have."""

    def __init__(self, model, optimizer):
        self.count = 0
        self._handle = optimizer.register_step_post_hook(self._step)

    def _step(self, *_):
        self.count += 1

    def remove(self):
        self._handle.remove()

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def made():
    layer = holdfast.orthogonal(nn.Linear(3, 3))
    return layer, torch.optim.SGD(layer.parameters(), lr=0.1)


def step(layer, optimizer):
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()


def test_state_outlives_the_schedules_and_is_not_counted_on():
    layer, optimizer = made()
    schedules = Schedules([Counts])
    schedules.start(layer, [optimizer])
    step(layer, optimizer)
    schedules.stop()
    step(layer, optimizer)
    assert schedules.state_dict() == {"0.0": {"count": 1}}
    schedules.start(layer, [optimizer])
    step(layer, optimizer)
    assert schedules.state_dict() == {"0.0": {"count": 2}}


def test_starting_twice_counts_once():
    layer, optimizer = made()
    schedules = Schedules([Counts])
    schedules.start(layer, [optimizer])
    schedules.start(layer, [optimizer])
    step(layer, optimizer)
    assert schedules.state_dict() == {"0.0": {"count": 1}}


def test_a_state_may_come_before_or_after():
    layer, optimizer = made()
    schedules = Schedules([Counts])
    schedules.load_state_dict({"0.0": {"count": 5}})
    schedules.start(layer, [optimizer])
    assert schedules.state_dict() == {"0.0": {"count": 5}}
    schedules.load_state_dict({"0.0": {"count": 7}})
    assert schedules.state_dict() == {"0.0": {"count": 7}}


def test_a_function_without_state_is_a_schedule_too():
    layer, optimizer = made()
    steps = []

    def schedule(model, optimizer):
        optimizer.register_step_post_hook(lambda *_: steps.append(model))

    schedules = Schedules([schedule, Counts])
    schedules.start(layer, [optimizer])
    step(layer, optimizer)
    assert steps == [layer]
    schedules.stop()
    assert schedules.state_dict() == {"1.0": {"count": 1}}


def test_each_optimizer_has_its_own_and_some_have_none():
    layer, optimizer = made()
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    schedules = Schedules([holdfast.Rebase, Counts])
    schedules.start(layer, [other, optimizer])
    assert [*schedules.state_dict()] == ["0.1", "1.0", "1.1"]


def test_nothing_is_left_behind_by_one_that_cannot_be_made():
    layer, optimizer = made()
    schedules = Schedules([holdfast.Rebase, holdfast.Sparsify])
    with pytest.raises(ValueError, match="GradualTopK"):
        schedules.start(layer, [optimizer])
    base = layer.parametrizations.weight[0].base.clone()
    step(layer, optimizer)
    assert torch.equal(layer.parametrizations.weight[0].base, base)
