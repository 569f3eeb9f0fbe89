"""Ctrl-C at any moment of what changes a whole model, or opens a scope."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import holdfast
from holdfast.core.scope import innermost

OURS = str(holdfast.__path__[0])


@contextlib.contextmanager
def interrupted_at(moment: int) -> Iterator[list[int]]:
    """Raise ``KeyboardInterrupt`` at one line of the library, counting from 0."""
    passed = [0]

    def at_a_line(frame, event, _):
        if event == "line" and frame.f_code.co_filename.startswith(OURS):
            passed[0] += 1
            if passed[0] == moment + 1:
                sys.settrace(None)
                raise KeyboardInterrupt
        return at_a_line

    sys.settrace(at_a_line)
    try:
        yield passed
    finally:
        sys.settrace(None)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [holdfast.weight_norm(nn.Linear(3, 3)), holdfast.spd(nn.Linear(3, 3))]
    return nn.Sequential(*layers, nn.Linear(3, 3)).eval()


def fold_and_unfold(model: nn.Module) -> None:
    holdfast.fold(model)
    holdfast.unfold(model)


def fold_and_change(model: nn.Module) -> None:
    with holdfast.folded(model):
        model[0].weight.data.mul_(2)


def write(model: nn.Module) -> None:
    with holdfast.writable(model):
        nn.init.ones_(model[0].weight)
        nn.init.ones_(model[2].weight)


def use_scopes(model: nn.Module) -> None:
    x = torch.ones(1, 3)
    with holdfast.cached(model), holdfast.accumulate(model):
        model(x).sum().backward()


WORK = [fold_and_unfold, fold_and_change, write, use_scopes]


def run(work: Callable[[nn.Module], None], model: nn.Module, moment: int) -> bool:
    """Run until a moment, and tell whether it came."""
    try:
        with interrupted_at(moment):
            work(model)
    except KeyboardInterrupt:
        return True
    finally:
        torch.set_grad_enabled(True)  # torch's own `no_grad` may be interrupted too
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("work", WORK)
def test_an_interruption_leaves_a_model_that_is_whole(work):
    x = torch.ones(1, 3)
    before, after = make(), make()
    work(after)
    allowed = [dict(model.state_dict()) for model in (before, after)]
    moment, step = 0, 11  # of more than a thousand lines
    while run(work, model := make(), moment):
        with contextlib.suppress(holdfast.errors.UnknownTensorError):
            holdfast.unfold(model)
        state = dict(model.state_dict())
        assert state.keys() == allowed[0].keys(), moment
        for part in ("0.", "1.", "2."):  # each is as before, or as after
            own = [key for key in state if key.startswith(part)]
            assert any(
                all(torch.equal(state[key], one[key]) for key in own) for one in allowed
            ), (moment, part)
        model(x).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert innermost.scope is None or not innermost.scope.open
        moment += step
    assert moment > 50 * step  # it was interrupted many times


def test_control_registries_that_are_swapped_unguarded_are_found_half_swapped(
    monkeypatch,
):
    monkeypatch.setattr(
        "holdfast.core.aside.undone_on_failure", lambda _: contextlib.nullcontext()
    )
    odd = 0
    moment = 0
    while run(fold_and_unfold, model := make(), moment):
        with contextlib.suppress(Exception):
            holdfast.unfold(model)
        odd += model.state_dict().keys() != make().state_dict().keys()
        moment += 11
    assert odd
