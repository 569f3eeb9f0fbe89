"""On an accelerator: no wait of the host, and a graph that can be captured.

The host waits wherever it looks at a value. A training step that never does keeps the
device busy, and only such a step can be captured in a graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cases import CASES
from holdfast import sets
from holdfast.testing.case import Case

pytestmark = pytest.mark.cuda

ORTHOGONAL = [
    case
    for case in CASES
    if isinstance(case.codomain((4, 4)), sets.Stiefel | sets.Grassmann)
    and torch.float32 in case.dtypes
]
SETTINGS = [
    (case, shape)
    for case in ORTHOGONAL
    for shape in ((32, 32), (40, 8), (8, 40), (6, 16, 16))
    if shape[-1] == shape[-2] or (5, 3) in case.shapes
]
every_map = pytest.mark.parametrize(("case", "shape"), SETTINGS, ids=str)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Turn every wait of the host into an error."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def step(host: torch.nn.Module, x: Tensor) -> None:
    """Read the weight and go back; gradients are written over."""
    host(x).backward()


def on_device(case: Case, shape: tuple[int, ...]) -> tuple[torch.nn.Module, Tensor]:
    """Return a module on the device, with warm kernels, and what it is called with."""
    host = case.registered(torch.randn(shape)).cuda()
    x = torch.randn(shape, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(host, x)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    host.zero_grad(set_to_none=True)
    return host, x


@every_map
def test_values_and_gradients_are_those_of_the_processor(case, shape):
    host = case.registered(torch.randn(shape))
    x = torch.randn(shape)
    step(host, x)
    expected = host.weight.detach(), [p.grad for p in host.parameters()]
    host.zero_grad()
    host = host.cuda()
    step(host, x.cuda())
    assert_close(host.weight.cpu(), expected[0], rtol=0, atol=2e-5)
    for mine, slope in zip(host.parameters(), expected[1], strict=True):
        assert_close(mine.grad.cpu(), slope, rtol=1e-4, atol=1e-4)


@every_map
@pytest.mark.usefixtures("no_waiting")
def test_the_host_never_waits(case, shape):
    torch.cuda.set_sync_debug_mode("default")
    host, x = on_device(case, shape)
    torch.cuda.set_sync_debug_mode("error")
    step(host, x)


@pytest.mark.usefixtures("no_waiting")
def test_a_wait_is_seen():
    """Negative control."""
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(2, device="cuda").sum().item()


@every_map
def test_a_step_can_be_captured_and_replayed(case, shape):
    host, x = on_device(case, shape)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(host, x)
    with torch.no_grad():
        for parameter in host.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        x.normal_()
    graph.replay()
    replayed = [p.grad.clone() for p in host.parameters()]
    host.zero_grad(set_to_none=True)
    step(host, x)
    for mine, parameter in zip(replayed, host.parameters(), strict=True):
        assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)
