"""On an accelerator: no wait of the host, and a graph that can be captured.

The host waits wherever it looks at a value. A training step that never does keeps the
device busy, and only such a step can be captured in a graph. Where there is no CUDA
device, one is pretended, see `pretended.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from cases import CASES
from holdfast import maps, sets
from holdfast.testing.case import Case

pytestmark = pytest.mark.usefixtures("device")

ORTHOGONAL = [
    case
    for case in CASES
    if isinstance(
        case.codomain((4, 4)),
        sets.Stiefel | sets.Grassmann | sets.SpecialOrthogonal | sets.SpecialUnitary,
    )
]
SHAPES = {
    torch.float32: ((32, 32), (40, 8), (8, 40), (6, 16, 16), (2, 2), (5, 3, 3)),
    torch.complex64: ((6, 6), (20, 2)),
}
SETTINGS = [
    pytest.param(case, shape, dtype, id=f"{case}-{shape}-{dtype}".replace("torch.", ""))
    for case in ORTHOGONAL
    for dtype, shapes in SHAPES.items()
    for shape in (shapes if dtype in case.dtypes else ())
    if shape[-1] == shape[-2] or (5, 3) in case.shapes
]
every_map = pytest.mark.parametrize(("case", "shape", "dtype"), SETTINGS)

# Maps of other families that wait, by what they have to know.
_EIGENVALUES = "eigenvalues"
WAITING = {
    "convolution any size": _EIGENVALUES,
    "convolution zeros": _EIGENVALUES,
    "convolution circular": _EIGENVALUES,
    "spectral softplus": _EIGENVALUES,
    "spectral logistic": _EIGENVALUES,
    "spectral bound": _EIGENVALUES,
    "exact spectral norm 0": _EIGENVALUES,
    "exact spectral norm -1": _EIGENVALUES,
    "sinkhorn, doubly stochastic": "when it has converged; not in a capture",
    "sinkhorn of a coupling": "when it has converged; not in a capture",
}
# What they solve linear systems with may wait inside, see `waiting.py`.
UNCERTAIN = ("discrete time 1.0", "discrete time 0.5")


def capture() -> contextlib.AbstractContextManager[object]:
    return torch.cuda.graph(torch.cuda.CUDAGraph())


def step(host: nn.Module, x: Tensor) -> None:
    """Read the weight and go back; gradients are written over."""
    value = host(x)
    (value.abs() if value.is_complex() else value).backward()


def aside(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    """Return a module whose weight is not where it started."""
    host = case.registered(torch.randn(shape, dtype=dtype))
    with torch.no_grad():
        for parameter in host.parameters():
            parameter += torch.randn_like(parameter) / max(1, *shape) ** 0.5
    return host


def warm(run: Callable[[], object]) -> None:
    """Run three times, so that what is made once is made."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


def on_device(
    case: Case, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[nn.Module, Tensor]:
    """Return a module on the device, with warm kernels, and what it is called with."""
    host = aside(case, shape, dtype).cuda()
    x = torch.randn(shape, dtype=dtype, device="cuda")
    warm(lambda: step(host, x))
    host.zero_grad(set_to_none=True)
    return host, x


@every_map
def test_values_and_gradients_are_those_of_the_processor(case, shape, dtype):
    host = aside(case, shape, dtype)
    x = torch.randn(shape, dtype=dtype)
    step(host, x)
    expected = host.weight.detach(), [p.grad for p in host.parameters()]
    host.zero_grad()
    host = host.cuda()
    step(host, x.cuda())
    assert_close(host.weight.cpu(), expected[0], rtol=0, atol=2e-5)
    for mine, slope in zip(host.parameters(), expected[1], strict=True):
        assert_close(mine.grad.cpu(), slope, rtol=1e-4, atol=1e-4)


@every_map
def test_the_host_never_waits(case, shape, dtype, no_waiting):
    torch.cuda.set_sync_debug_mode("default")
    host, x = on_device(case, shape, dtype)
    torch.cuda.set_sync_debug_mode("error")
    step(host, x)
    with torch.no_grad():
        host(x)


@pytest.mark.usefixtures("no_waiting")
def test_a_wait_is_seen():
    """Negative control; more of them are in `test_no_host_sync.py`."""
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(2, device="cuda").sum().item()


@every_map
def test_a_step_can_be_captured_and_replayed(case, shape, dtype):
    host, x = on_device(case, shape, dtype)
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


# ---- Everything that a training step does -------------------------------------------

MAPS = {
    "matrix_exp": lambda: maps.Orthogonal("matrix_exp"),
    "cayley": lambda: maps.Orthogonal("cayley"),
    "householder": lambda: maps.Orthogonal("householder"),
    "thin matrix_exp": lambda: maps.ThinOrthogonal("matrix_exp"),
    "thin cayley": lambda: maps.ThinOrthogonal("cayley"),
    "horizontal": maps.Horizontal,
    "on spheres": maps.SphereExp,
}
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, capturable=True),
}
SCOPES = {
    "plain": lambda _: contextlib.nullcontext(),
    "in batches": lambda net: holdfast.cached(net, foreach=True),
}
every_training = pytest.mark.parametrize("name", MAPS)
in_two_ways = pytest.mark.parametrize(
    ("optimizer", "scope"), [("SGD", "in batches"), ("Adam", "plain")]
)


def network(name: str) -> nn.Module:
    net = nn.Sequential(*(nn.Linear(8, n) for n in (8, 8, 4)), nn.Linear(4, 8))
    for layer in net:
        holdfast.register_parametrization(layer, "weight", MAPS[name]())
    return net


def training(name: str, optimizer: str, scope: str) -> tuple[nn.Module, Callable]:
    """Return a model, and a step of its training with moving bases."""
    net = network(name).cuda()
    x = torch.randn(3, 8, device="cuda")
    optim = OPTIMIZERS[optimizer](net.parameters())
    holdfast.Rebase(net, optim, every=1, repair_every=2)

    def train() -> None:
        optim.zero_grad(set_to_none=False)
        with SCOPES[scope](net):
            (net(x) - 1).square().mean().backward()
        optim.step()

    return net, train


@every_training
@in_two_ways
def test_a_training_step_never_waits(name, optimizer, scope, no_waiting):
    torch.cuda.set_sync_debug_mode("default")
    _, train = training(name, optimizer, scope)
    warm(train)
    torch.cuda.set_sync_debug_mode("error")
    train()
    train()  # one of two repairs the bases


@every_training
@in_two_ways
def test_a_training_step_can_be_captured(name, optimizer, scope):
    net, train = training(name, optimizer, scope)
    warm(train)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train()
    before = [parameter.clone() for parameter in net.parameters()]
    for _ in range(3):
        graph.replay()
    for layer in net:
        codomain = layer.parametrizations.weight[0].codomain
        assert codomain.contains(layer.weight)
    moved = zip(before, net.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)


@every_training
@pytest.mark.parametrize("scope", SCOPES)
def test_a_backward_pass_may_run_in_another_thread(name, scope):
    """As that of a device always does."""
    net, x = network(name), torch.randn(3, 8)
    (net(x) - 1).square().mean().backward()
    expected = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    with SCOPES[scope](net), ThreadPoolExecutor(1) as pool:
        loss = (net(x) - 1).square().mean()
        pool.submit(loss.backward).result()
        again = (net(x) - 1).square().mean()
    for slope, parameter in zip(expected, net.parameters(), strict=True):
        assert_close(parameter.grad, slope)
    assert_close(again, loss)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a capture that fails is a mess")
def test_a_captured_step_moves_bases_in_every_replay():
    layer = holdfast.orthogonal(nn.Linear(3, 3)).cuda()
    optim = torch.optim.SGD(layer.parameters(), lr=0.1)
    holdfast.Rebase(layer, optim, every=2)
    layer(torch.ones(1, 3, device="cuda")).sum().backward()
    with pytest.raises(RuntimeError, match="every=2.*every=1"), capture():
        optim.step()


# ---- The other families -------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_other_map_waits_unless_it_has_to(case, no_waiting):
    torch.cuda.set_sync_debug_mode("default")
    dtype = torch.float32 if torch.float32 in case.dtypes else case.dtypes[0]
    for place, shape in enumerate({case.shapes[0]: 0, case.shapes[-1]: 0}):
        host = aside(case, shape, dtype).cuda()
        x = torch.randn(shape, dtype=dtype, device="cuda")
        step(host, x)
        torch.cuda.set_sync_debug_mode("error")
        if str(case) not in WAITING:
            step(host, x)
            with capture() if str(case) not in UNCERTAIN else contextlib.nullcontext():
                step(host, x)
        elif place == 0:
            with pytest.raises(RuntimeError, match="synchroniz"):
                step(host, x)
        torch.cuda.set_sync_debug_mode("default")
