"""Bounds that move with the steps of an optimizer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import maps


def bounded(link=None):
    torch.manual_seed(0)
    layer, link = nn.Linear(5, 5, bias=False), link or maps.SpectralBound(4.0)
    holdfast.register_parametrization(layer, "weight", link)
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(100)
    return layer, torch.optim.SGD(layer.parameters(), lr=1e-3)


def norm(layer):
    return float(torch.linalg.matrix_norm(layer.weight.detach(), 2))


def step(layer, optimizer):
    optimizer.zero_grad()
    layer(torch.ones(2, 5)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("inside", [False, True])
def test_the_weight_follows_the_bound(inside):
    link = maps.SpectralBound(4.0)
    layer, optimizer = bounded(maps.Transposed(link) if inside else link)
    original = layer.parametrizations.weight.original.detach().clone()
    moves = holdfast.MoveBounds(
        layer, optimizer, maps.SpectralBound, "radius", lambda t: 2.0 / (1 + t)
    )
    assert torch.equal(layer.parametrizations.weight.original, original)
    for t in range(4):
        assert norm(layer) == pytest.approx(2 / (1 + t), rel=1e-5)
        step(layer, optimizer)
    moves.remove()
    step(layer, optimizer)
    assert norm(layer) == pytest.approx(2 / 5, rel=1e-5)


def test_scopes_and_the_memo_see_the_bound():
    layer, optimizer = bounded()
    moves = holdfast.MoveBounds(
        layer, optimizer, maps.SpectralBound, "radius", lambda t: 1.0 + t
    )
    with torch.no_grad(), holdfast.cached():
        assert norm(layer) == pytest.approx(1)
        moves.load_state_dict({"steps": 2})
        assert norm(layer) == pytest.approx(3)
    assert moves.state_dict() == {"steps": 2}
    with torch.no_grad():
        layer.weight  # noqa: B018  # the memo has it now
        moves.load_state_dict({"steps": 0})
        assert norm(layer) == pytest.approx(1)


def test_it_is_saved_with_the_spec_and_checked_by_the_set():
    layer, optimizer = bounded()
    holdfast.MoveBounds(layer, optimizer, maps.SpectralBound, "radius", lambda t: 0.5)
    (link,) = layer.parametrizations.weight
    assert maps.from_spec(link.spec()).radius == 0.5
    W = 0.4 * torch.eye(5)
    layer.weight = W
    assert_close(layer.weight.detach(), W)
    assert link.codomain.contains(W)
    assert not link.codomain.contains(2 * W)
    layer.weight = 2 * W
    assert norm(layer) == pytest.approx(0.5)


def test_what_cannot_move_is_refused():
    layer, optimizer = bounded()
    hooks = optimizer._optimizer_step_post_hooks
    for map_, bound, value, says in (
        (maps.SpectralBound, "radios", lambda t: 1.0, "Did you mean `radius`"),
        (maps.ClipNorm, "high", lambda t: 1.0, "No weight .* has a `ClipNorm`"),
        (maps.SpectralBound, "radius", lambda t: float("nan"), "finite `radius`"),
    ):
        with pytest.raises(ValueError, match=says):
            holdfast.MoveBounds(layer, optimizer, map_, bound, value)
        assert not hooks
    assert layer.parametrizations.weight[0].radius == 4.0
