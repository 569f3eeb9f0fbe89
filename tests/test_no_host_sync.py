"""What is said to make the host wait does, and what is not does not.

On a real device the list in `waiting.py` is what is tested, and elsewhere the pretended
device: it has to find what is wrong, or the tests that run on it mean nothing.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import holdfast
from holdfast.testing.case import Host
from waiting import FREE, UNCERTAIN, WAITING

PRETENDED = not torch.cuda.is_available()


class _FromNumbers(nn.Module):
    """Copies a constant of the host, in every forward."""

    def forward(self, X: Tensor) -> Tensor:
        return X * torch.tensor([1.0, 2.0, 3.0, 4.0], device=X.device)


class _HostConstant(nn.Module):
    """Has a constant that does not move along."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = torch.ones(4, 4)

    def forward(self, X: Tensor) -> Tensor:
        return X + self.constant.to(X.device)


class _Backward(torch.autograd.Function):
    """The identity, which looks at the gradient."""

    @staticmethod
    def forward(ctx, X: Tensor) -> Tensor:
        return X.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return grads[0] if bool(grads[0].isfinite().all()) else grads[0] * 0


class _By(nn.Module):
    """A map by a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, X: Tensor) -> Tensor:
        return self.function(X)


WRONG = {
    "reads a number": _By(lambda X: X / X.norm().item()),
    "asks for a truth": _By(lambda X: X if X.sum() > 0 else -X),
    "inverts": _By(torch.linalg.inv),
    "solves": _By(lambda X: torch.linalg.solve(X, X)),
    "decomposes": _By(lambda X: torch.linalg.svd(X)[0]),
    "selects": _By(lambda X: X + X[X > 0].sum()),
    "reads a list": _By(lambda X: X * X.detach()[0, 0].tolist()),
    "goes to the host": _By(lambda X: X + X.detach().cpu().to(X.device)),
    "numbers of the host": _FromNumbers(),
    "a constant of the host": _HostConstant(),
    "looks on the way back": _By(_Backward.apply),
}


def hosted(link: nn.Module) -> nn.Module:
    host = Host(torch.eye(4) + 0.1)
    holdfast.register_parametrization(host, "weight", link, unsafe=True)
    return host.cuda()


@pytest.mark.parametrize("link", WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("device")
def test_a_map_that_waits_is_seen(link):
    """Negative control of `test_cuda.py`."""
    host, x = hosted(link), torch.ones(4, 4, device="cuda")
    host(x).backward()
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        host(x).backward()
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("name", WAITING)
def test_what_is_said_to_wait_does(name):
    torch.cuda.set_sync_debug_mode("default")
    X = torch.eye(4, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        WAITING[name].example(X)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("name", FREE)
def test_what_is_said_not_to_wait_does_not(name):
    torch.cuda.set_sync_debug_mode("default")
    X = torch.eye(4, device="cuda") + 0.1
    torch.cuda.set_sync_debug_mode("error")
    FREE[name].example(X)


@pytest.mark.skipif(not PRETENDED, reason="nobody promises what happens then")
@pytest.mark.usefixtures("device")
def test_what_may_wait_inside_is_kept_out_of_captures():
    X = torch.eye(4, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    torch.linalg.qr(X)
    with (
        pytest.raises(RuntimeError, match="linalg_qr.*captured"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        torch.linalg.qr(X)
    assert not {*UNCERTAIN} & {*WAITING}


@pytest.mark.usefixtures("device")
def test_a_number_of_the_host_is_frozen_in_a_capture():
    """Negative control of the replays in `test_cuda.py`."""
    count = itertools.count(1)
    host = hosted(_By(lambda X: X * next(count)))
    x = torch.ones(4, 4, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = host(x)
    graph.replay()
    frozen = value.clone()
    graph.replay()
    assert torch.equal(frozen, value)
    assert not torch.equal(frozen, host(x))


@pytest.mark.usefixtures("device")
def test_a_capture_computes_nothing_and_a_replay_all():
    x = torch.ones(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x.view(3, 1) * 2
        y[0] += 1
    x.fill_(2)
    graph.replay()
    assert y.flatten().tolist() == [5.0, 4.0, 4.0]


@pytest.mark.usefixtures("device")
def test_tensors_say_where_they_are():
    x = torch.ones(3, device="cuda", requires_grad=True)
    (y,) = torch.autograd.grad(x.square().sum(), x)
    layer = nn.Linear(2, 2).cuda()
    for here in (x, y, x.detach()[1:], torch.zeros_like(x), layer.weight):
        assert here.is_cuda
        assert here.device == torch.device("cuda", 0)
        assert not here.is_cpu
    for away in (torch.ones(3), x.cpu(), layer.cpu().weight):
        assert away.is_cpu
        assert not away.is_cuda
