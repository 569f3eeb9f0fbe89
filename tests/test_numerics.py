"""What the optimizer does to the originals: N4."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_recipes
from torch.testing import assert_close

import holdfast
from support import recipes

SHAPES = {"square": (4, 4), "tall": (3, 6), "wide": (6, 3), "one column": (1, 5)}
ORTHOGONAL = [kind for kind in recipes() if "orthogonal" in kind]


def gram_error(W: Tensor) -> float:
    tall = W if W.shape[-2] >= W.shape[-1] else W.mT
    eye = torch.eye(tall.shape[-1])
    return (tall.mT @ tall - eye).abs().max().item()


def adamw_step(layer: nn.Module, gradient: Tensor | None, lr: float = 1e-2) -> None:
    """One step with weight decay 0.1, and its gradient in the weight or none."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=0.1)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if gradient is not None:
        (layer.weight * gradient).sum().backward()
    optimizer.step()


def reflected(W: Tensor) -> Tensor:
    """The orthogonal matrix with the other determinant, or another first column."""
    return torch.cat([-W[..., :1], W[..., 1:]], dim=-1)


NOT_ASSIGNABLE = {"orthogonal matrix_exp", "orthogonal cayley"}  # as in torch
STARTS = [
    (kind, start)
    for kind in ORTHOGONAL
    for start in ("as registered", "assigned", "reflected")
    if start == "as registered" or kind not in NOT_ASSIGNABLE
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "start"), STARTS)
def test_N4_adamw_leaves_every_orthogonal_map_orthogonal(kind, shape, start):
    layer = recipes()[kind](nn.Linear(*SHAPES[shape]))
    if start != "as registered":
        W = nn.init.orthogonal_(torch.empty_like(layer.weight))
        W = reflected(W) if start == "reflected" else W
        layer.weight = W
        assert_close(layer.weight.detach(), W, atol=1e-5, rtol=0)
    before = layer.weight.detach().clone()
    assert gram_error(before) < 1e-5
    for _ in range(3):
        adamw_step(layer, torch.randn(layer.weight.shape))
        assert gram_error(layer.weight.detach()) < 1e-5
    assert (layer.weight - before).abs().max() < 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_N4_negative_control_torchs_default_becomes_zero(shape):
    layer = torch_recipes.orthogonal(nn.Linear(*SHAPES[shape]))
    adamw_step(layer, torch.randn(layer.weight.shape))
    if shape == "square":
        assert gram_error(layer.weight.detach()) < 1e-5
    else:
        assert not layer.weight.any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", recipes())
def test_N4_weight_decay_alone_moves_the_weight_a_little(kind, shape):
    layer = recipes()[kind](nn.Linear(*SHAPES[shape])).eval()
    before = layer.weight.detach().clone()
    adamw_step(layer, None, lr=1e-4)
    assert_close(layer.weight.detach(), before, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", recipes())
def test_N4_the_weight_is_continuous_in_every_original(kind, shape):
    layer = recipes()[kind](nn.Linear(*SHAPES[shape])).eval()
    before = layer.weight.detach().clone()
    for sign in (1, -1):
        for parameter in layer.parametrizations.parameters():
            for entry in range(parameter.numel()):
                shift = torch.zeros(parameter.numel())
                shift[entry] = sign * 1e-4
                parameter.data += shift.view_as(parameter)
                assert_close(layer.weight.detach(), before, atol=1e-2, rtol=0)
                parameter.data -= shift.view_as(parameter)


def test_N4_negative_control_torchs_default_is_not_continuous():
    layer = torch_recipes.orthogonal(nn.Linear(3, 6))
    before = layer.weight.detach().clone()
    layer.parametrizations.weight.original.data.mul_(1 - 1e-4)
    assert (layer.weight - before).abs().max() > 0.1


@pytest.mark.parametrize("kind", recipes())
def test_N4_discrete_state_lives_in_buffers(kind):
    layer = recipes()[kind](nn.Linear(3, 6))
    assert all(p.is_floating_point() for p in layer.parameters())
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, weight_decay=0.5)
    buffers = {name: b.clone() for name, b in layer.named_buffers()}
    (layer.weight * torch.randn(6, 3)).sum().backward()
    optimizer.step()
    for name, buffer in layer.named_buffers():
        assert_close(buffer, buffers[name], rtol=0, atol=0)


@pytest.mark.parametrize("link", [holdfast.maps.Cayley, holdfast.maps.MatrixExp])
@pytest.mark.parametrize("mirror", [False, True])
def test_N4_adamw_leaves_a_chain_after_skew_orthogonal(link, mirror):
    layer = nn.Linear(4, 4)
    holdfast.register_parametrization(layer, "weight", holdfast.maps.Skew())
    holdfast.register_parametrization(layer, "weight", link())
    W = nn.init.orthogonal_(torch.empty(4, 4))
    if bool(torch.linalg.det(W) < 0) is not (mirror and link is holdfast.maps.Cayley):
        W = reflected(W)
    layer.weight = W
    assert_close(layer.weight.detach(), W, atol=1e-5, rtol=0)
    for _ in range(3):
        adamw_step(layer, torch.randn(4, 4))
        assert gram_error(layer.weight.detach()) < 1e-5


def test_N4_householder_alone_keeps_its_signs_in_a_buffer():
    layer = nn.Linear(3, 6)
    holdfast.register_parametrization(layer, "weight", holdfast.maps.Householder())
    before = layer.weight.detach().clone()
    layer.parametrizations.weight.original.data.diagonal().mul_(0.5)
    assert_close(layer.weight.detach(), before, atol=1e-6, rtol=0)
    for _ in range(3):
        adamw_step(layer, torch.randn(6, 3))
        assert gram_error(layer.weight.detach()) < 1e-5


def test_N4_twenty_steps_stay_orthogonal():
    layer = holdfast.orthogonal(nn.Linear(3, 6))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (layer(torch.randn(4, 3)) ** 3).sum().backward()
        optimizer.step()
        assert gram_error(layer.weight.detach()) < 1e-5
