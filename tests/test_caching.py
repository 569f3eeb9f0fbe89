"""Caching: C1 to C9."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import importlib
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import holdfast
from holdfast import maps
from support import Sine, Traced, evaluations, with_sine

both_checkpoints = pytest.mark.parametrize("reentrant", [True, False])


def sine_layer() -> nn.Module:
    layer = with_sine(nn.Linear(3, 3, bias=False))
    evaluations(layer)
    return layer


def sine_pair() -> tuple[nn.Module, nn.Module]:
    """Return one layer parametrized by us, and its equal parametrized by torch."""
    ours = nn.Linear(3, 3, bias=False)
    theirs = copy.deepcopy(ours)
    with_sine(ours)
    torch_parametrize.register_parametrization(theirs, "weight", Sine())
    return ours, theirs


def original(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


def fresh(layer: nn.Module) -> Tensor:
    """Return what the counting layer's weight must be now."""
    return original(layer).detach().sin()


def gradient(layer: nn.Module) -> Tensor:
    """Return the gradient at the original, and clear it."""
    grad = original(layer).grad
    assert grad is not None
    layer.zero_grad()
    return grad


def expected_gradient(layer: nn.Module, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Differentiate ``loss(weight)`` without any parametrization at work."""
    X = original(layer).detach().clone().requires_grad_()
    loss(X.sin()).backward()
    assert X.grad is not None
    return X.grad


def assert_no_scope(layer: nn.Module) -> None:
    """Check, outside every scope, that each read evaluates again."""
    evaluations(layer)
    _ = layer.weight, layer.weight
    assert evaluations(layer) == 2


# ---- C1: grad mode ----------------------------------------------------------------


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_C1_reading_without_gradients_and_then_training(guard: type) -> None:
    layer = sine_layer()
    x = torch.randn(4, 3)
    with holdfast.cached():
        with guard():
            quiet = layer.weight
            assert not quiet.requires_grad
        layer(x).square().sum().backward()
    assert_close(
        gradient(layer), expected_gradient(layer, lambda W: (x @ W.T).square().sum())
    )


def test_C1_training_and_then_reading_without_gradients() -> None:
    layer = sine_layer()
    with holdfast.cached():
        loud = layer.weight
        with torch.no_grad():
            assert not layer.weight.requires_grad
        assert layer.weight is loud
        loud.sum().backward()
    assert_close(gradient(layer), fresh_cosine(layer))


def fresh_cosine(layer: nn.Module) -> Tensor:
    return original(layer).detach().cos()


def test_C1_unfreezing_inside_the_scope() -> None:
    layer = sine_layer()
    original(layer).requires_grad_(False)
    with holdfast.cached():
        assert not layer.weight.requires_grad
        original(layer).requires_grad_(True)
        layer.weight.sum().backward()
    assert_close(gradient(layer), fresh_cosine(layer))


@pytest.mark.parametrize("wanted", [True, False])
def test_C1_freezing_through_a_held_parameter(wanted: bool) -> None:
    layer = sine_layer()
    held = original(layer).requires_grad_(not wanted)
    with holdfast.cached():
        assert layer.weight.requires_grad is not wanted
        held.requires_grad_(wanted)
        assert layer.weight.requires_grad is wanted


def test_C1_control_torch_loses_the_gradient() -> None:
    _, layer = sine_pair()
    with torch_parametrize.cached():
        with torch.no_grad():
            _ = layer.weight
        with pytest.raises(RuntimeError, match="does not require grad"):
            layer.weight.sum().backward()


# ---- C2: activation checkpointing -------------------------------------------------


def block(layer: nn.Module, x: Tensor) -> Tensor:
    return (layer(x).tanh() @ layer.weight).tanh() @ layer.weight


def block_loss(x: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda W: (((x @ W.T).tanh() @ W).tanh() @ W).square().sum()


def scoped_block(layer: nn.Module, x: Tensor) -> Tensor:
    with holdfast.cached():
        return block(layer, x)


def check_checkpoint(layer: nn.Module, x: Tensor) -> None:
    expected = expected_gradient(layer, block_loss(x.detach()))
    assert_close(gradient(layer), expected)
    assert_no_scope(layer)


@both_checkpoints
def test_C2_reentrant_checkpoint_inside_scope(reentrant: bool) -> None:
    layer, x = sine_layer(), torch.randn(4, 3, requires_grad=True)
    with holdfast.cached():
        out = checkpoint(block, layer, x, use_reentrant=reentrant)
        out.square().sum().backward()
    check_checkpoint(layer, x)


@both_checkpoints
def test_C2_backward_after_the_scope(reentrant: bool) -> None:
    layer, x = sine_layer(), torch.randn(4, 3, requires_grad=True)
    with holdfast.cached():
        out = checkpoint(block, layer, x, use_reentrant=reentrant)
    out.square().sum().backward()
    check_checkpoint(layer, x)


@both_checkpoints
def test_C2_backward_in_another_scope(reentrant: bool) -> None:
    layer, x = sine_layer(), torch.randn(4, 3, requires_grad=True)
    out = checkpoint(block, layer, x, use_reentrant=reentrant)
    with holdfast.cached():
        _ = layer.weight
        out.square().sum().backward()
    check_checkpoint(layer, x)


@both_checkpoints
def test_C2_scope_inside_the_checkpointed_function(reentrant: bool) -> None:
    layer, x = sine_layer(), torch.randn(4, 3, requires_grad=True)
    out = checkpoint(scoped_block, layer, x, use_reentrant=reentrant)
    out.square().sum().backward()
    check_checkpoint(layer, x)


@both_checkpoints
@pytest.mark.parametrize("leave", [True, False])
def test_C2_weight_read_before_the_checkpoint(reentrant: bool, leave: bool) -> None:
    layer, x = sine_layer(), torch.randn(4, 3, requires_grad=True)
    expected = expected_gradient(
        layer, lambda W: block_loss(x.detach())(W) + W.square().sum()
    )
    with holdfast.cached():
        penalty = layer.weight.square().sum()
        out = checkpoint(block, layer, x, use_reentrant=reentrant)
        loss = out.square().sum() + penalty
        if not leave:
            loss.backward()
    if leave:
        loss.backward()
    assert_close(gradient(layer), expected)


@both_checkpoints
def test_C2_two_checkpoints_of_one_layer(reentrant: bool) -> None:
    layer, x = sine_layer(), torch.randn(4, 3, requires_grad=True)
    with holdfast.cached():
        out = checkpoint(scoped_block, layer, x, use_reentrant=reentrant)
        out = checkpoint(block, layer, out, use_reentrant=reentrant)
        out.square().sum().backward()

    def loss(W: Tensor) -> Tensor:
        first = ((x.detach() @ W.T).tanh() @ W).tanh() @ W
        return block_loss(first)(W)

    assert_close(gradient(layer), expected_gradient(layer, loss))


def test_C2_control_torch_goes_wrong() -> None:
    _, layer = sine_pair()
    x = torch.randn(4, 3, requires_grad=True)
    with torch_parametrize.cached():
        out = checkpoint(block, layer, x, use_reentrant=True)
        out.square().sum().backward()
    wanted = expected_gradient(layer, block_loss(x.detach()))
    assert original(layer).grad is None or not torch.allclose(
        original(layer).grad, wanted
    )


# ---- C3: changes inside the scope -------------------------------------------------


def optimizer_step(make: Callable[..., torch.optim.Optimizer]) -> Callable[..., None]:
    def change(layer: nn.Module) -> None:
        layer.weight.sum().backward()
        make(layer.parameters(), lr=0.1).step()

    return change


class DataSGD(torch.optim.Optimizer):
    """An optimizer of the old kind, which writes past the version counters."""

    def __init__(self, parameters, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad.data, alpha=-group["lr"])


def assign(layer: nn.Module) -> None:
    layer.weight = torch.full((3, 3), 0.25)


def load(layer: nn.Module, *, assign: bool = False) -> None:
    state = {k: v + 0.1 for k, v in layer.state_dict().items()}
    layer.load_state_dict(state, assign=assign)


def add(layer: nn.Module) -> None:
    holdfast.register_parametrization(layer, "weight", nn.Sigmoid())


def replace(layer: nn.Module) -> None:
    layer.parametrizations.weight[0] = nn.Sigmoid()


def remove(layer: nn.Module) -> None:
    holdfast.remove_parametrizations(layer, "weight", leave_parametrized=False)


def remove_and_add(layer: nn.Module) -> None:
    remove(layer)
    holdfast.register_parametrization(layer, "weight", nn.Sigmoid())


def delete_a_link(layer: nn.Module) -> None:
    del layer.parametrizations.weight[1]


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "sgd step": optimizer_step(torch.optim.SGD),
    "adam step": optimizer_step(torch.optim.AdamW),
    "single-tensor adam step": optimizer_step(
        lambda p, lr: torch.optim.Adam(p, lr=lr, foreach=False)
    ),
    "fused adam step": optimizer_step(
        lambda p, lr: torch.optim.Adam(p, lr=lr, fused=True)
    ),
    "assignment": assign,
    "load_state_dict": load,
    "load_state_dict with assign": lambda layer: load(layer, assign=True),
    "to float64": lambda layer: layer.to(torch.float64),
    "to and back": lambda layer: layer.half().float(),
    "eval": lambda layer: layer.eval(),
    "eval of the map": lambda layer: layer.parametrizations.weight[0].eval(),
    "adding": add,
    "replacing": replace,
    "removing": remove,
    "removing and adding": remove_and_add,
    "deleting a link": delete_a_link,
    "apply": lambda layer: layer.apply(
        lambda m: [p.detach().mul_(2) for p in m.parameters(recurse=False)]
    ),
}


class Moody(nn.Module):
    """Depends on its mode, and has state."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, X: Tensor) -> Tensor:
        return (X.sin() if self.training else X.cos()) * self.gain

    def right_inverse(self, W: Tensor) -> Tensor:
        return (W / self.gain).asin()


class Cube(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X**3

    def right_inverse(self, W: Tensor) -> Tensor:
        return W.sign() * W.abs() ** (1 / 3)


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("grad", [True, False])
def test_C3_the_next_read_is_fresh(change: str, grad: bool) -> None:
    layer = nn.Linear(3, 3, bias=False)
    nn.init.uniform_(layer.weight, 0.1, 0.5)
    holdfast.register_parametrization(layer, "weight", Moody())
    holdfast.register_parametrization(layer, "weight", Cube())
    x = torch.randn(2, 3)
    with holdfast.cached():
        with torch.set_grad_enabled(grad):
            before = layer.weight
            assert layer.weight is before
        CHANGES[change](layer)
        with torch.set_grad_enabled(grad):
            after = layer.weight
            out = layer(x.to(after.dtype))
    # Outside every scope the value is computed anew.
    assert_close(after, layer.weight)
    assert_close(out, layer(x.to(after.dtype)))
    if change not in ("to and back", "to float64"):
        assert torch.dist(after.to(before.dtype), before) > 1e-3


def test_C3_train_after_eval_is_fresh() -> None:
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Moody())
    layer.eval()
    with holdfast.cached():
        before = layer.weight
        layer.train()
        assert_close(layer.weight, original(layer).sin() * 0.7)
        layer.eval()
        assert_close(layer.weight, before)


def test_C3_state_of_the_map_is_watched() -> None:
    layer = nn.Linear(3, 3)
    link = Moody()
    holdfast.register_parametrization(layer, "weight", link)
    with holdfast.cached():
        _ = layer.weight
        with torch.no_grad():
            link.gain.fill_(3.0)
        assert_close(layer.weight, original(layer).sin() * 3.0)
        link.gain = nn.Parameter(torch.tensor(5.0))
        assert_close(layer.weight, original(layer).sin() * 5.0)


def test_C3_autocast_is_watched() -> None:
    class Gram(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X @ X.T

    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Gram())
    with holdfast.cached():
        full = layer.weight
        with torch.autocast("cpu", torch.bfloat16):
            half = layer.weight
        assert half.dtype == torch.bfloat16
        assert layer.weight.dtype == full.dtype == torch.float32


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, DataSGD])
@pytest.mark.parametrize("backward_inside", [True, False])
def test_C3_an_optimizer_from_before_the_scope(
    make: Callable, backward_inside: bool
) -> None:
    layer = sine_layer()
    optimizer = make(layer.parameters(), lr=0.1)
    if not backward_inside:
        layer.weight.sum().backward()
    with holdfast.cached():
        before = layer.weight
        if backward_inside:
            before.sum().backward()
        optimizer.step()
        after = layer.weight
    assert_close(after, layer.weight)
    assert torch.dist(after, before) > 1e-3


def test_C3_training_loop_inside_one_scope() -> None:
    ours, plain = sine_layer(), nn.ParameterList([torch.zeros(3, 3)])
    with torch.no_grad():
        plain[0].copy_(original(ours))
    x = torch.randn(4, 3)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.05) for m in (ours, plain)]
    with holdfast.cached():
        for _ in range(4):
            losses = [
                (ours(x) + ours(2 * x)).square().sum(),
                ((x + 2 * x) @ plain[0].sin().T).square().sum(),
            ]
            for loss, optimizer in zip(losses, optimizers, strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    assert_close(original(ours).detach(), plain[0].detach())
    assert evaluations(ours) == 4


@pytest.mark.parametrize("change", ["sgd step", "assignment", "eval", "adding"])
def test_C3_control_torch_serves_the_old_value(change: str) -> None:
    layer = nn.Linear(3, 3, bias=False)
    nn.init.uniform_(layer.weight, 0.1, 0.5)
    torch_parametrize.register_parametrization(layer, "weight", Moody())
    changes = CHANGES | {
        "adding": lambda m: torch_parametrize.register_parametrization(
            m, "weight", nn.Tanh()
        )
    }
    with torch_parametrize.cached():
        before = layer.weight
        changes[change](layer)
        assert layer.weight is before
    assert torch.dist(layer.weight, before) > 1e-3


# ---- C4: threads, tasks, generators, replicas, copies -----------------------------


def test_C4_a_thread_starts_outside_the_scope() -> None:
    layer = sine_layer()
    seen: list[Tensor] = []
    with holdfast.cached():
        mine = layer.weight
        evaluations(layer)
        thread = threading.Thread(target=lambda: seen.extend([layer.weight] * 1))
        thread.start()
        thread.join()
        assert seen[0] is not mine
        assert evaluations(layer) == 1
        assert layer.weight is mine


def test_C4_two_threads_in_scopes_of_their_own() -> None:
    layer = sine_layer()
    barrier = threading.Barrier(2, timeout=5)
    seen: dict[str, list[Tensor]] = {}

    def work(name: str, grad: bool) -> None:
        with torch.set_grad_enabled(grad), holdfast.cached():
            barrier.wait()
            first = layer.weight
            barrier.wait()
            seen[name] = [first, layer.weight]
            barrier.wait()

    threads = [
        threading.Thread(target=work, args=(name, grad))
        for name, grad in (("a", True), ("b", True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["a"][0] is seen["a"][1]
    assert seen["b"][0] is seen["b"][1]
    assert seen["a"][0] is not seen["b"][0]
    assert_no_scope(layer)


def test_C4_a_thread_that_leaves_does_not_end_anothers_scope() -> None:
    layer = sine_layer()

    def work() -> None:
        with holdfast.cached():
            _ = layer.weight

    with holdfast.cached():
        mine = layer.weight
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert layer.weight is mine


def test_C4_control_torchs_threads_share() -> None:
    _, layer = sine_pair()
    seen: list[Tensor] = []
    with torch_parametrize.cached():
        mine = layer.weight
        thread = threading.Thread(target=lambda: seen.append(layer.weight))
        thread.start()
        thread.join()
    assert seen[0] is mine


def test_C4_a_context_carried_into_a_thread_is_not_shared() -> None:
    layer = sine_layer()
    seen: list[Tensor] = []
    with holdfast.cached():
        mine = layer.weight
        context = contextvars.copy_context()  # what asyncio.to_thread does
        thread = threading.Thread(
            target=lambda: seen.append(context.run(lambda: layer.weight))
        )
        thread.start()
        thread.join()
        assert seen[0] is not mine
        assert layer.weight is mine


def test_C4_tasks_do_not_share() -> None:
    layer = sine_layer()

    async def work(ready: asyncio.Event, other: asyncio.Event) -> list[Tensor]:
        with holdfast.cached():
            first = layer.weight
            ready.set()
            await other.wait()
            return [first, layer.weight]

    async def main() -> list[list[Tensor]]:
        a, b = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(work(a, b), work(b, a))

    (a, again_a), (b, again_b) = asyncio.run(main())
    assert a is again_a
    assert b is again_b
    assert a is not b
    assert_no_scope(layer)


class Wrapped:
    """A context manager of somebody else's, which opens a scope."""

    def __enter__(self) -> None:
        self.scope = holdfast.cached()
        self.scope.__enter__()

    def __exit__(self, *error: object) -> None:
        self.scope.__exit__(*error)


@contextlib.contextmanager
def wrapped() -> Iterator[None]:
    with holdfast.cached():
        yield


@pytest.mark.parametrize("open_scope", [Wrapped, wrapped])
def test_C4_tasks_that_open_their_scope_through_something_else(
    open_scope: Callable,
) -> None:
    layer = sine_layer()

    async def work() -> Tensor:
        with open_scope():
            first = layer.weight
            await asyncio.sleep(0)
            first.sum().backward()  # a shared graph would be gone for the second task
            await asyncio.sleep(0)
        return first

    async def main() -> list[Tensor]:
        return await asyncio.gather(work(), work())

    one, two = asyncio.run(main())
    assert one is not two
    assert_no_scope(layer)


def test_C4_a_task_started_in_a_scope_does_not_see_its_values() -> None:
    layer = sine_layer()

    async def read() -> Tensor:
        await asyncio.sleep(0)
        return layer.weight

    async def main() -> tuple[Tensor, list[Tensor], asyncio.Task[Tensor]]:
        with holdfast.cached():
            mine = layer.weight
            seen = await asyncio.gather(read(), read())
            late = asyncio.create_task(read())
        await late
        return mine, seen, late

    mine, seen, late = asyncio.run(main())
    assert len({id(tensor) for tensor in (mine, *seen, late.result())}) == 4


def test_C4_a_task_outlives_the_scope_it_was_started_in() -> None:
    layer = sine_layer()

    async def read(go: asyncio.Event) -> int:
        await go.wait()
        evaluations(layer)
        _ = layer.weight, layer.weight
        return evaluations(layer)

    async def main() -> int:
        go = asyncio.Event()
        with holdfast.cached():
            task = asyncio.create_task(read(go))
            await asyncio.sleep(0)
        go.set()
        return await task

    assert asyncio.run(main()) == 2


def weights(layer: nn.Module) -> Iterator[Tensor]:
    with holdfast.cached():
        while True:
            yield layer.weight


def test_C4_generators_do_not_share() -> None:
    layer = sine_layer()
    one, two = weights(layer), weights(layer)
    a, b, again_a, again_b = next(one), next(two), next(one), next(two)
    assert a is again_a
    assert b is again_b
    assert a is not b
    one.close()  # not the order in which they were opened
    assert next(two) is b
    two.close()
    assert_no_scope(layer)


def test_C4_a_suspended_generators_scope_is_not_its_consumers() -> None:
    layer = sine_layer()
    generator = weights(layer)
    inner = next(generator)
    assert_no_scope(layer)
    with holdfast.cached():
        mine = layer.weight
        assert mine is not inner
        assert_close(next(generator), mine)
        assert layer.weight is mine
        generator.close()
        assert layer.weight is mine
    assert_no_scope(layer)


def test_C4_a_generator_closed_in_another_context() -> None:
    layer = sine_layer()
    generator = weights(layer)
    thread = threading.Thread(target=lambda: next(generator))
    thread.start()
    thread.join()
    generator.close()
    assert_no_scope(layer)


def replicate(module: nn.Module, count: int, patch: pytest.MonkeyPatch) -> list:
    """Run torch's own replication, with copies on one device that can be told apart."""
    source = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors, devices, detach=False):
        return [[(k + 1.0) * t for t in tensors] for k in range(len(devices))]

    patch.setattr(source, "_broadcast_coalesced_reshape", broadcast)
    patch.setattr(source, "_get_device_index", lambda device, optional=False: device)
    return source.replicate(module, list(range(count)))


def test_C4_replicas_compute_from_their_own_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = nn.Sequential(sine_layer())
    x = torch.randn(4, 3)
    with holdfast.cached():
        mine = layer[0].weight
        replicas = replicate(layer, 2, monkeypatch)
        values = [replica[0].weight for replica in replicas]
        assert_close(layer[0].weight, mine, atol=0, rtol=0)
        for scale, (value, replica) in enumerate(zip(values, replicas, strict=True), 1):
            assert_close(value, (scale * original(layer[0])).sin())
            assert_close(replica(x), x @ value.T)
        sum(value.sum() for value in values).backward()
    X = original(layer[0])
    assert_close(X.grad, X.detach().cos() + 2 * (2 * X.detach()).cos())


def test_C4_replicas_run_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(sine_layer())
    x = torch.randn(4, 3)
    with holdfast.cached():
        _ = layer(x)
        replicas = replicate(layer, 2, monkeypatch)
        outputs: list[Tensor | None] = [None, None]

        def run(k: int) -> None:
            with holdfast.cached():
                outputs[k] = replicas[k](x) + replicas[k](x)

        threads = [threading.Thread(target=run, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for scale, out in enumerate(outputs, 1):
        assert_close(out, 2 * x @ (scale * original(layer[0])).sin().T)


def test_C4_replicas_without_a_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(sine_layer())
    with torch.no_grad():
        _ = layer[0].weight
        one, two = replicate(layer, 2, monkeypatch)
        assert_close(one[0].weight, fresh(layer[0]))
        assert_close(two[0].weight, (2 * original(layer[0])).sin())


def test_C4_a_deep_copy_does_not_see_its_originals_values() -> None:
    layer = sine_layer()
    with holdfast.cached():
        mine = layer.weight
        twin = copy.deepcopy(layer)
        assert twin.weight is not mine
        twin.weight.sum().backward()
        assert_close(gradient(twin), fresh_cosine(twin))
        with torch.no_grad():
            original(twin).add_(1.0)
        assert_close(twin.weight.detach(), fresh(twin))
        assert layer.weight is mine
        assert original(layer).grad is None


def test_C4_a_new_layer_at_an_old_address() -> None:
    with holdfast.cached():
        for _ in range(20):
            layer = nn.Linear(2, 2)
            holdfast.register_parametrization(layer, "weight", nn.Tanh())
            assert_close(layer.weight, original(layer).tanh())
            del layer


def test_C4_two_tensors_of_one_module_are_told_apart() -> None:
    layer = with_sine(nn.Bilinear(3, 3, 3), "weight", "bias")
    with holdfast.cached():
        assert layer.weight.shape == (3, 3, 3)
        assert layer.bias.shape == (3,)
        assert layer.weight is layer.weight
        assert layer.bias is layer.bias


# ---- C5: functional calls and vmap ------------------------------------------------

KEY = "parametrizations.weight.original"


def test_C5_functional_call_uses_the_given_tensor() -> None:
    layer, x = sine_layer(), torch.randn(4, 3)
    given = torch.randn(3, 3, requires_grad=True)
    with holdfast.cached():
        mine = layer.weight
        out = torch.func.functional_call(layer, {KEY: given}, (x,))
        assert_close(out, x @ given.sin().T)
        again = torch.func.functional_call(layer, {KEY: 2 * given}, (x,))
        assert_close(again, x @ (2 * given).sin().T)
        assert_close(layer(x), x @ mine.T)
        assert_close(layer.weight.detach(), fresh(layer))
    out.sum().backward()
    assert_close(given.grad, given.detach().cos() * x.sum(0))
    assert original(layer).grad is None


def test_C5_functional_call_with_the_plain_name() -> None:
    layer, x = sine_layer(), torch.randn(4, 3)
    given = 5.0 + torch.randn(3, 3)  # far outside the range of the sine
    with holdfast.cached():
        _ = layer.weight
        out = torch.func.functional_call(layer, {"weight": given}, (x,))
        assert_close(out, x @ given.T)
        assert_close(layer.weight.detach(), fresh(layer))


def test_C5_vmap_over_originals_and_then_a_plain_read() -> None:
    layer, x = sine_layer(), torch.randn(4, 3)
    batch = torch.randn(5, 3, 3)

    def call(X: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {KEY: X}, (x,)) @ layer.weight

    with holdfast.cached():
        mine = layer.weight
        out = torch.vmap(call)(batch)
        assert_close(layer.weight.detach(), mine.detach())
        assert torch._C._functorch.is_batchedtensor(layer.weight) is False
    assert_close(out, x @ batch.sin().mT @ mine)


def test_C5_vmap_over_inputs_first() -> None:
    layer, xs = sine_layer(), torch.randn(5, 4, 3)
    with holdfast.cached():
        out = torch.vmap(layer)(xs)
        assert_close(out, xs @ layer.weight.T)
        layer.weight.sum().backward()
    assert_close(gradient(layer), fresh_cosine(layer))


def test_C5_grad_inside_the_scope() -> None:
    layer, x = sine_layer(), torch.randn(4, 3)
    given = torch.randn(3, 3)

    def loss(X: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {KEY: X}, (x,)).sum()

    with holdfast.cached():
        _ = layer.weight
        grad = torch.func.grad(loss)(given)
        assert_close(grad, given.cos() * x.sum(0))
        rows = torch.vmap(torch.func.grad(loss))(torch.stack([given, 2 * given]))
        assert_close(rows[1], (2 * given).cos() * x.sum(0))
        hessian = torch.func.hessian(loss)(given)
        layer.weight.sum().backward()
    diagonal = hessian.reshape(9, 9).diagonal().reshape(3, 3)
    assert_close(diagonal, -given.sin() * x.sum(0))
    assert_close(gradient(layer), fresh_cosine(layer))


def test_C5_control_torch_ignores_the_given_tensor() -> None:
    _, layer = sine_pair()
    x, given = torch.randn(4, 3), torch.randn(3, 3)
    with torch_parametrize.cached():
        mine = layer.weight
        out = torch.func.functional_call(layer, {KEY: given}, (x,))
    assert_close(out, x @ mine.T)
    assert torch.dist(out, x @ given.sin().T) > 1e-2


# ---- C6: leaving ------------------------------------------------------------------


class Interruption(Exception):
    pass


def read_in_scope(layer: nn.Module, *, fail: bool) -> list[weakref.ref[Tensor]]:
    refs: list[weakref.ref[Tensor]] = []
    try:
        with holdfast.cached():
            for guard in (torch.enable_grad, torch.no_grad):
                with guard():
                    refs.append(weakref.ref(layer.weight))
            assert all(ref() is not None for ref in refs)  # the scope holds them
            if fail:
                raise Interruption
    except Interruption:
        pass
    return refs


@pytest.mark.parametrize("fail", [True, False])
def test_C6_leaving_frees_every_tensor(fail: bool) -> None:
    layer = sine_layer()
    gc.disable()  # freed at once, not by the collector
    try:
        refs = read_in_scope(layer, fail=fail)
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
    assert_no_scope(layer)


def test_C6_a_scope_that_is_freed_open_keeps_nothing() -> None:
    layer = sine_layer()
    scope = holdfast.cached(layer)
    scope.__enter__()
    value = weakref.ref(layer.weight)
    chain = weakref.ref(layer.parametrizations.weight)
    assert value() is not None
    del scope
    assert value() is None
    assert_no_scope(layer)
    del layer
    gc.collect()
    assert chain() is None


def test_C6_leaving_frees_the_graph() -> None:
    layer = nn.Linear(3, 3)
    link = Traced()
    holdfast.register_parametrization(layer, "weight", link)
    with holdfast.cached():
        assert layer.weight is layer.weight
        assert link.alive() == 1
    assert link.alive() == 0


def test_C6_an_error_in_a_map_leaves_the_scope_in_order() -> None:
    class Touchy(nn.Module):
        armed = False

        def forward(self, X: Tensor) -> Tensor:
            if self.armed:
                raise Interruption
            return X.sin()

    layer, other, link = nn.Linear(3, 3), sine_layer(), Touchy()
    holdfast.register_parametrization(layer, "weight", link)
    link.armed = True
    with pytest.raises(Interruption), holdfast.cached():
        _ = layer.weight
    assert_no_scope(other)
    with holdfast.cached():
        with pytest.raises(Interruption):
            _ = layer.weight
        link.armed = False
        assert_close(layer.weight, original(layer).sin())


def test_C6_a_replaced_value_is_freed_inside_the_scope() -> None:
    layer = nn.Linear(3, 3)
    link = Traced()
    holdfast.register_parametrization(layer, "weight", link)
    with holdfast.cached():
        for _ in range(5):
            _ = layer.weight
            with torch.no_grad():
                original(layer).add_(1.0)
        assert link.alive() <= 1


def test_C6_a_scope_does_not_keep_a_module_alive() -> None:
    with holdfast.cached():
        layer = sine_layer()
        value, module = weakref.ref(layer.weight), weakref.ref(layer)
        del layer
        gc.collect()
        assert module() is None
    assert value() is None


def aborted(layer: nn.Module, x: Tensor, log: list[str]) -> Tensor:
    with holdfast.cached():
        log.append("in")
        out = layer(x).exp()  # the last tensor that the backward pass asks for
        out = out + layer.weight.detach().sum()
        log.append("out")
        return out


@pytest.mark.parametrize("scope_around", [True, False])
def test_C6_nothing_stays_after_an_aborted_recomputation(scope_around: bool) -> None:
    layer = nn.Linear(3, 3)
    link, counter = Traced(), Sine()
    holdfast.register_parametrization(layer, "weight", counter)
    holdfast.register_parametrization(layer, "weight", link)
    x, log = torch.randn(4, 3, requires_grad=True), []
    if scope_around:
        with holdfast.cached():
            out = checkpoint(aborted, layer, x, log, use_reentrant=False)
            out.sum().backward()
    else:
        out = checkpoint(aborted, layer, x, log, use_reentrant=False)
        out.sum().backward()
    assert log == ["in", "out", "in"]  # the recomputation was cut short
    del out
    gc.collect()
    assert link.alive() == 0
    counter.calls.clear()
    _ = layer.weight, layer.weight
    assert len(counter.calls) == 2


# ---- C7: limits, nesting, reentry, decorators -------------------------------------


def test_C7_a_scope_is_limited_to_the_given_modules() -> None:
    one, two = sine_layer(), sine_layer()
    with holdfast.cached(one):
        assert one.weight is one.weight
        assert two.weight is not two.weight
    assert (evaluations(one), evaluations(two)) == (1, 2)


def test_C7_several_modules_and_their_children() -> None:
    model = nn.Sequential(sine_layer(), nn.Sequential(sine_layer()), sine_layer())
    with holdfast.cached(model[0], model[1]):
        assert model[0].weight is model[0].weight
        assert model[1][0].weight is model[1][0].weight
        assert model[2].weight is not model[2].weight


def test_C7_an_inner_scope_keeps_the_outer_values() -> None:
    layer = sine_layer()
    with holdfast.cached():
        mine = layer.weight
        with holdfast.cached():
            assert_close(layer.weight, mine)
        assert layer.weight is mine
    assert evaluations(layer) <= 2
    assert_no_scope(layer)


def test_C7_an_inner_scope_shares_the_values_of_the_outer_one() -> None:
    layer = sine_layer()
    with holdfast.cached():
        with holdfast.cached():
            value = layer.weight
            assert layer.weight is value
        assert layer.weight is value  # leaving the inner one took nothing away
    assert evaluations(layer) == 1


def test_C7_scopes_left_out_of_order_free_their_values() -> None:
    layer = sine_layer()
    outer, inner = holdfast.cached(), holdfast.cached()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__()
    value = weakref.ref(layer.weight)
    assert layer.weight is value()  # the inner one still serves
    inner.__exit__()
    assert value() is None
    assert_no_scope(layer)


def test_C7_limited_scopes_nest() -> None:
    one, two = sine_layer(), sine_layer()
    with holdfast.cached(one):
        mine = one.weight
        with holdfast.cached(two):
            assert two.weight is two.weight
            assert one.weight is one.weight
        assert one.weight is mine
        assert two.weight is not two.weight
    assert_no_scope(one)


def test_C7_a_limited_scope_inside_a_full_one_and_around_it() -> None:
    one, two = sine_layer(), sine_layer()
    with holdfast.cached():
        with holdfast.cached(one):
            assert two.weight is two.weight
        assert one.weight is one.weight
    with holdfast.cached(one):
        with holdfast.cached():
            assert two.weight is two.weight
        assert two.weight is not two.weight


def test_C7_one_object_is_reentrant_and_reusable() -> None:
    layer = sine_layer()
    scope = holdfast.cached()
    with scope:
        mine = layer.weight
        with scope:
            assert_close(layer.weight, mine)
        assert layer.weight is mine
    assert_no_scope(layer)
    with scope:
        assert layer.weight is not mine
        assert layer.weight is layer.weight
    assert_no_scope(layer)


def test_C7_one_object_in_two_threads() -> None:
    layer = sine_layer()
    scope = holdfast.cached()
    barrier = threading.Barrier(2, timeout=5)
    same: list[bool] = []

    def work() -> None:
        with scope:
            barrier.wait()
            same.append(layer.weight is layer.weight)
            barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True, True]
    assert evaluations(layer) == 2
    assert_no_scope(layer)


def test_C7_one_object_closes_the_scope_of_the_thread_that_leaves() -> None:
    layer, scope = sine_layer(), holdfast.cached()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with scope:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with scope:
        thread.start()
        inside.wait()
    assert_no_scope(layer)
    leave.set()
    thread.join()


def test_C7_decorating_without_a_call_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"decorates functions as `@cached\(\)`"):
        holdfast.cached(lambda: None)


def test_C7_decorates_a_function_and_its_recursion() -> None:
    layer = sine_layer()

    @holdfast.cached()
    def power(x: Tensor, times: int = 1) -> Tensor:
        """Apply the layer again and again."""
        return x if times == 0 else layer(power(x, times - 1))

    assert power.__name__ == "power"
    assert power.__doc__ == "Apply the layer again and again."
    x = torch.randn(4, 3)
    W = fresh(layer)
    assert_close(power(x, times=3).detach(), x @ W.T @ W.T @ W.T)
    assert_close(power(x).detach(), x @ W.T)
    assert_no_scope(layer)


def test_C7_decorated_functions_evaluate_once_per_call() -> None:
    one, two = sine_layer(), sine_layer()

    @holdfast.cached(one)
    def call(x: Tensor) -> Tensor:
        return one(one(two(two(x))))

    for _ in range(2):
        call(torch.randn(4, 3))
        assert (evaluations(one), evaluations(two)) == (1, 2)


def test_C7_decorated_function_that_fails() -> None:
    layer = sine_layer()

    @holdfast.cached()
    def fail() -> None:
        _ = layer.weight
        raise Interruption

    with pytest.raises(Interruption):
        fail()
    assert_no_scope(layer)


# ---- C8: the memo of values read without gradients --------------------------------

no_gradients = pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])


def declared(
    *, deterministic: bool = True
) -> tuple[holdfast.Parametrization, list[None]]:
    """Return a declared map with state, and the list of its evaluations."""
    calls: list[None] = []
    declares = deterministic

    class Declared(holdfast.Parametrization):
        deterministic = declares

        def __init__(self, factor: float = 1.0) -> None:
            super().__init__()
            self.factor = factor
            self.register_buffer("shift", torch.zeros(()))
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, X: Tensor) -> Tensor:
            calls.append(None)
            return X.sin() * self.gain * self.factor + self.shift

        def right_inverse(self, weight: Tensor) -> Tensor:
            return ((weight - self.shift) / self.gain / self.factor).asin()

    return Declared(), calls


class Case:
    """A layer under a declared map; ``check`` reads and compares with the truth."""

    def __init__(self, *, deterministic: bool = True, extra: bool = False) -> None:
        self.layer = nn.Linear(3, 3, bias=False)
        self.link, self.calls = declared(deterministic=deterministic)
        holdfast.register_parametrization(self.layer, "weight", self.link)
        if extra:
            holdfast.register_parametrization(self.layer, "weight", nn.Identity())
        self.calls.clear()

    def truth(self) -> Tensor:
        link = self.link
        X = dict(self.layer.named_parameters())[KEY].detach()
        return X.sin() * link.gain.detach() * link.factor + link.shift

    def check(self) -> None:
        with torch.no_grad():
            for _ in range(3):
                assert_close(self.layer.weight, self.truth(), atol=0, rtol=0)

    def count(self, reads: int = 3) -> int:
        """Read without gradients and tell how many evaluations that took."""
        self.calls.clear()
        with torch.no_grad():
            for _ in range(reads):
                _ = self.layer.weight
        return len(self.calls)


@no_gradients
def test_C8_a_declared_map_is_evaluated_once(guard: type) -> None:
    case = Case()
    x = torch.randn(4, 3)
    with guard():
        first = case.layer(x)
        for _ in range(3):
            assert_close(case.layer(x), first, atol=0, rtol=0)
    assert len(case.calls) == 1
    with guard():
        case.layer(x)
    assert len(case.calls) == 1


@no_gradients
def test_C8_user_written_maps_are_always_evaluated(guard: type) -> None:
    layer = sine_layer()
    with guard():
        _ = layer.weight, layer.weight, layer.weight
    assert evaluations(layer) == 3


def test_C8_maps_that_do_not_declare_it_are_always_evaluated() -> None:
    assert Case(deterministic=False).count() == 3
    # One undeclared link is enough.
    assert Case(extra=True).count() == 3


def test_C8_with_gradients_every_read_evaluates() -> None:
    case = Case()
    assert case.count() == 1
    case.calls.clear()
    _ = case.layer.weight, case.layer.weight
    assert len(case.calls) == 2


@no_gradients
def test_C8_training_after_serving_has_gradients(guard: type) -> None:
    case = Case()
    with guard():
        _ = case.layer.weight
    x = torch.randn(4, 3)
    case.layer(x).sum().backward()
    X = original(case.layer)
    assert_close(X.grad, X.detach().cos() * x.sum(0))
    case.check()


def test_C8_an_inference_value_does_not_leak_into_training() -> None:
    case = Case()
    with torch.inference_mode():
        _ = case.layer.weight, case.layer.weight
    with torch.no_grad():
        value = case.layer.weight
    x = torch.randn(4, 3, requires_grad=True)
    (x @ value).sum().backward()  # an inference tensor cannot be saved for this
    assert x.grad is not None


def data_of_each(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.mul_(0.5)


def copy_target(module: nn.Module) -> None:
    online = Case()
    for p, tp in zip(online.layer.parameters(), module.parameters(), strict=True):
        tp.data.copy_(p.data)


def average(module: nn.Module) -> None:
    online = Case()
    for p, tp in zip(online.layer.parameters(), module.parameters(), strict=True):
        tp.data.mul_(0.9).add_(p.data, alpha=0.1)


def step(module: nn.Module) -> None:
    module(torch.ones(2, 3)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.5).step()


def copy_in_place(module: nn.Module) -> None:
    with torch.no_grad():
        original(module).copy_(torch.full((3, 3), 0.3))


def load_other(module: nn.Module) -> None:
    module.load_state_dict({k: v + 0.2 for k, v in module.state_dict().items()})


def through_state_dict(module: nn.Module) -> None:
    for value in module.state_dict().values():
        value.mul_(0.5)


def set_data(module: nn.Module) -> None:
    original(module).data = torch.full((3, 3), 0.4)


def set_vector(module: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(module.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 0.5, module.parameters())


def give_parameter(module: nn.Module) -> None:
    module.parametrizations.weight.original = nn.Parameter(torch.ones(3, 3) / 3)


def swap_data(module: nn.Module) -> None:
    torch.utils.swap_tensors(original(module), nn.Parameter(torch.ones(3, 3) / 3))


ORIGINAL_CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "in place": copy_in_place,
    "optimizer step": step,
    "assignment": assign,
    "load_state_dict": load_other,
    ".data in a loop": data_of_each,
    "target network": copy_target,
    "moving average": average,
    "state dict in place": through_state_dict,
    "setting .data": set_data,
    "vector_to_parameters": set_vector,
    "another parameter": give_parameter,
    "swapped tensors": swap_data,
    "registry of the chain": lambda m: m.parametrizations.weight._parameters[
        "original"
    ].data.mul_(0.5),
    "numpy": lambda m: original(m).detach().numpy().fill(0.2),
}


@pytest.mark.parametrize("change", list(ORIGINAL_CHANGES))
def test_C8_a_changed_original_is_evaluated_again(change: str) -> None:
    case = Case()
    assert case.count() == 1
    before = case.truth()
    case.check()
    with torch.no_grad():
        _ = case.layer.weight, case.layer.weight  # remembered, if ever it is
    ORIGINAL_CHANGES[change](case.layer)
    with torch.no_grad():
        after = case.layer.weight
    assert_close(after, case.truth(), atol=0, rtol=0)
    assert torch.dist(after, before) > 1e-3
    # And remembered again, except where several tensors now share their memory, or
    # torch has marked it as NumPy's.
    shared = change in ("vector_to_parameters", "numpy")
    assert case.count() <= (3 if shared else 1)


def remembered(case: Case) -> Tensor:
    with torch.no_grad():
        _ = case.layer.weight
        return case.layer.weight.clone()


HELD: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
    "a list of parameters": lambda m: (lambda held: lambda: held[0].data.mul_(0.5))(
        list(m.parameters())
    ),
    "an optimizer": lambda m: (
        lambda held: lambda: held.param_groups[0]["params"][0].data.mul_(0.5)
    )(torch.optim.SGD(m.parameters(), lr=0.1)),
    "an alias by .data": lambda m: (lambda held: lambda: held.mul_(0.5))(
        original(m).data
    ),
    "a view by .data": lambda m: (lambda held: lambda: held.mul_(0.5))(
        original(m).data.view(-1)[:5]
    ),
    "a numpy array": lambda m: (lambda held: lambda: held.fill(0.2))(
        original(m).detach().numpy()
    ),
    "a state dict": lambda m: (lambda held: lambda: held[KEY].data.mul_(0.5))(
        m.state_dict()
    ),
    "an iterator": lambda m: (lambda held: lambda: next(held).data.mul_(0.5))(
        m.parameters()
    ),
    "a bound method": lambda m: (lambda held: lambda: held(0.5))(original(m).data.mul_),
}


@pytest.mark.parametrize("held", list(HELD))
def test_C8_writes_through_something_held_are_seen(held: str) -> None:
    case = Case()
    write = HELD[held](case.layer)
    before = remembered(case)
    write()
    with torch.no_grad():
        after = case.layer.weight
    assert torch.dist(after, before) > 1e-3
    case.check()


SPOILED: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda W: W.add_(1.0),
    ".data": lambda W: W.data.add_(1.0),
    "numpy": lambda W: W.numpy().fill(7.0),
    "a view": lambda W: W.view(-1)[0].fill_(7.0),
    "resized": lambda W: W.unsqueeze_(0),
    "zeroed": lambda W: nn.init.zeros_(W),
    "requires grad": lambda W: W.requires_grad_(True),
}


@pytest.mark.filterwarnings("ignore:.*was written to in place:UserWarning")
@pytest.mark.parametrize("spoil", list(SPOILED))
def test_C8_a_returned_value_may_be_changed_in_place(spoil: str) -> None:
    case = Case()
    with torch.no_grad():
        for _ in range(2):
            SPOILED[spoil](case.layer.weight)
            assert not case.layer.weight.requires_grad
        held = case.layer.weight
        _ = case.layer.weight
        SPOILED[spoil](held)
    case.check()


STATE_CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "buffer": lambda link: link.shift.add_(1.0),
    "buffer by .data": lambda link: link.shift.data.add_(1.0),
    "another buffer": lambda link: setattr(link, "shift", torch.tensor(2.0)),
    "parameter": lambda link: link.gain.detach().mul_(2.0),
    "parameter by .data": lambda link: link.gain.data.mul_(2.0),
    "another parameter": lambda link: setattr(
        link, "gain", nn.Parameter(torch.tensor(3.0))
    ),
    "argument": lambda link: setattr(link, "factor", 2.0),
}


@pytest.mark.parametrize("change", list(STATE_CHANGES))
def test_C8_state_of_the_map_is_watched(change: str) -> None:
    case = Case()
    assert case.count() == 1
    before = case.truth()
    STATE_CHANGES[change](case.link)
    case.check()
    assert torch.dist(case.truth(), before) > 1e-3
    assert case.count() <= 1


@pytest.mark.parametrize("change", ["adding", "replacing", "removing", "to float64"])
def test_C8_changes_of_the_chain_are_seen(change: str) -> None:
    case = Case()
    before = remembered(case)
    CHANGES[change](case.layer)
    with torch.no_grad():
        after = case.layer.weight
    assert_close(after, case.layer.weight.detach())
    assert after.dtype != before.dtype or torch.dist(after, before) > 1e-3


def test_C8_a_map_that_depends_on_its_mode() -> None:
    class Modal(holdfast.Parametrization):
        deterministic = True

        def forward(self, X: Tensor) -> Tensor:
            return X.sin() if self.training else X.cos()

        def right_inverse(self, weight: Tensor) -> Tensor:
            return weight

    layer = nn.Linear(3, 3, bias=False)
    holdfast.register_parametrization(layer, "weight", Modal())
    with torch.no_grad():
        for _ in range(2):
            assert_close(layer.train().weight, original(layer).sin())
            assert_close(layer.eval().weight, original(layer).cos())
            layer.parametrizations.weight[0].train()
            assert_close(layer.weight, original(layer).sin())


def test_C8_autocast_is_watched() -> None:
    class Gram(holdfast.Parametrization):
        deterministic = True

        def forward(self, X: Tensor) -> Tensor:
            return X @ X.T

        def right_inverse(self, weight: Tensor) -> Tensor:
            return weight

    layer = nn.Linear(3, 3, bias=False)
    holdfast.register_parametrization(layer, "weight", Gram())
    with torch.no_grad():
        assert layer.weight.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.weight.dtype == torch.bfloat16
        assert layer.weight.dtype == torch.float32


def test_C8_hooks_on_a_map_run_at_every_read() -> None:
    case = Case()
    assert case.count() == 1
    fired: list[None] = []
    handle = case.link.register_forward_hook(lambda *_: fired.append(None))
    assert case.count() == 3
    assert len(fired) == 3
    handle.remove()
    assert case.count() <= 1


def test_C8_functional_calls_and_vmap_use_what_they_are_given() -> None:
    case = Case()
    layer, x = case.layer, torch.randn(4, 3)
    _ = remembered(case)
    batch = torch.randn(5, 3, 3)

    def call(X: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {KEY: X}, (x,))

    with torch.no_grad():
        for X in batch:
            assert_close(call(X), x @ X.sin().T)
        assert_close(torch.vmap(call)(batch), x @ batch.sin().mT)
    case.check()


def test_C8_a_copy_remembers_nothing_of_its_original() -> None:
    case = Case()
    _ = remembered(case)
    twin = copy.deepcopy(case.layer)
    with torch.no_grad():
        original(twin).mul_(0.5)
        assert_close(twin.weight, original(twin).sin())
    twin.load_state_dict(case.layer.state_dict())
    with torch.no_grad():
        assert_close(twin.weight, case.layer.weight)
    case.check()


def in_a_thread(run: Callable[[], object]) -> None:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


class Interfered(holdfast.Parametrization):
    """Doubles, and lets another thread act in the middle of it."""

    deterministic = True

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["act"] = None  # not an attribute: setting one would be seen

    def interfere(self) -> None:
        act, self.__dict__["act"] = self.__dict__["act"], None
        if act is not None:
            in_a_thread(act)

    def forward(self, X: Tensor) -> Tensor:
        value = 2 * X
        self.interfere()
        return value

    def right_inverse(self, weight: Tensor) -> Tensor:
        self.interfere()
        return weight / 2


@pytest.mark.parametrize("scoped", [False, True])
def test_C4_an_assignment_during_a_read_in_another_thread(scoped: bool) -> None:
    layer, link = nn.Linear(3, 3, bias=False), Interfered()
    holdfast.register_parametrization(layer, "weight", link)
    target = torch.full((3, 3), 5.0)
    scope = holdfast.cached() if scoped else contextlib.nullcontext()
    with torch.no_grad(), scope:
        link.__dict__["act"] = lambda: setattr(layer, "weight", target)
        _ = layer.weight
        assert_close(layer.weight, target)
        assert_close(layer.weight, target)


def test_C4_a_read_in_another_thread_during_an_assignment() -> None:
    layer, link = nn.Linear(3, 3, bias=False), Interfered()
    holdfast.register_parametrization(layer, "weight", link)

    def read() -> None:
        with torch.no_grad():
            _ = layer.weight

    link.__dict__["act"] = read
    target = torch.full((3, 3), 5.0)
    layer.weight = target
    with torch.no_grad():
        assert_close(layer.weight, target)


def weakly(module: nn.Module) -> Callable[[], object]:
    """Write as moving averages do that keep weak references."""
    held = [weakref.ref(parameter) for parameter in module.parameters()]
    return lambda: [ref().data.mul_(0.5) for ref in held]


def through_storage(module: nn.Module) -> Callable[[], object]:
    storage = original(module).untyped_storage()
    return lambda: storage.fill_(0)


@pytest.mark.parametrize("holder", [weakly, through_storage])
def test_C8_who_holds_an_original_in_other_ways_is_seen(holder: Callable) -> None:
    case = Case()
    write = holder(case.layer)
    before = remembered(case)
    write()
    with torch.no_grad():
        after = case.layer.weight
    assert_close(after, case.truth(), atol=0, rtol=0)
    assert torch.dist(after, before) > 1e-3


class Netted(holdfast.Parametrization):
    """A map that is made of others."""

    deterministic = True

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, X: Tensor) -> Tensor:
        return self.inner(X)


def test_C8_a_map_is_as_deterministic_as_what_it_is_made_of() -> None:
    layer, net = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))
    holdfast.register_parametrization(layer, "weight", Netted(net))
    with torch.no_grad():
        before = layer.weight.clone()
        net[0] = nn.Linear(4, 4)
        assert torch.dist(layer.weight, before) > 1e-3
        assert_close(layer.weight, net(layer.parametrizations.weight.original))


def test_C8_a_change_of_an_inner_map_is_seen() -> None:
    inner, _ = declared()
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Netted(inner))
    with torch.no_grad():
        before = layer.weight.clone()
        assert layer.weight is layer.weight  # it is remembered
        inner.factor = 7.0
        assert_close(layer.weight, 7 * before)


def test_C8_equal_maps_are_not_the_same_map() -> None:
    class Scaled(holdfast.Parametrization):
        deterministic = True

        def __init__(self, k: float) -> None:
            super().__init__()
            self.k = k

        def forward(self, X: Tensor) -> Tensor:
            return self.k * X

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self)

        def __hash__(self) -> int:
            return 1

    links = Scaled(1.0), Scaled(1.0)
    layers = nn.Linear(3, 3), nn.Linear(3, 3)
    for layer, link in zip(layers, links, strict=True):
        holdfast.register_parametrization(layer, "weight", link)
    with torch.no_grad():
        before = layers[0].weight.clone()
        links[0].k = 7.0
        assert_close(layers[0].weight, 7 * before)


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_C8_chains_taken_away_are_seen(how: str) -> None:
    layer, other = Case().layer, Case().layer
    with torch.no_grad():
        assert layer.weight is layer.weight  # it is remembered
        expected = other.weight.clone()
        if how == "replaced":
            layer.parametrizations = other.parametrizations
        else:
            del layer.parametrizations
            layer._parameters["weight"] = nn.Parameter(expected)
        assert_close(layer.weight, expected, atol=0, rtol=0)


def test_C8_a_dispatch_mode_sees_the_maps() -> None:
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    with torch.no_grad():
        _ = layer.weight, layer.weight
        graph = make_fx(lambda x: x @ layer.weight)(torch.ones(1, 3))
    assert any("triu" in str(node.target) for node in graph.graph.nodes)


def test_C8_values_are_remembered_beside_scopes_for_other_modules() -> None:
    case = Case()
    with holdfast.cached(nn.Linear(2, 2)):
        assert case.count() == 1


def test_C8_memory_that_numpy_owns_is_not_trusted() -> None:
    array = np.ones((3, 3), dtype=np.float32)
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(array))
    holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    with torch.no_grad():
        assert_close(layer.weight, torch.ones(3, 3))
        array.fill(2.0)
        assert_close(layer.weight, torch.full((3, 3), 2.0))


def test_C8_a_memo_goes_into_no_file() -> None:
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    with torch.no_grad():
        _ = layer.weight
        twin = pickle.loads(pickle.dumps(layer))
        twin.parametrizations.weight.original0.mul_(0.5)
        assert_close(twin.weight, 0.5 * layer.weight)


def replica(layer: nn.Module, chain: nn.Module) -> nn.Module:
    """Copy as `torch.nn.parallel.replicate` does."""
    twin = layer._replicate_for_data_parallel()
    chains = layer.parametrizations._replicate_for_data_parallel()
    chains._modules["weight"] = chain
    twin._modules["parametrizations"] = chains
    return twin


def by_dictionary(layer: nn.Module, chain: nn.Module) -> nn.Module:
    """Copy as users do who write a `__copy__` of their own."""
    twin = type(layer).__new__(type(layer))
    twin.__dict__.update(layer.__dict__)
    twin._modules = {"parametrizations": nn.ModuleDict({"weight": chain})}
    return twin


@pytest.mark.parametrize("copied", [replica, by_dictionary])
def test_C8_a_copy_with_another_chain_has_no_use_for_the_memo(copied: Callable) -> None:
    case = Case()
    chain = copy.deepcopy(case.layer.parametrizations.weight)
    with torch.no_grad():
        chain.original.mul_(0.5)
        expected = chain()
        _ = remembered(case)
        twin = copied(case.layer, chain)
        assert_close(twin.weight, expected, atol=0, rtol=0)
        assert_close(twin.weight, expected, atol=0, rtol=0)
    case.check()


def test_C8_what_torch_removes_is_not_remembered() -> None:
    layer = holdfast.weight_norm(nn.Linear(3, 3))
    with torch.no_grad():
        assert layer.weight is layer.weight  # it is remembered
        torch_parametrize.remove_parametrizations(layer, "weight")
        assert layer.weight is layer._buffers["weight"]


def test_C8_a_recurrent_forward_copies_no_remembered_weight() -> None:
    rnn = holdfast.orthogonal(nn.LSTM(4, 4), "weight_hh_l0", "cayley").eval()
    x = torch.randn(2, 1, 4)
    with torch.no_grad():
        expected = rnn(x)[0]
        alias = rnn.weight_hh_l0
        assert_close(rnn(x)[0], expected, atol=0, rtol=0)
        assert rnn.weight_hh_l0 is alias  # the kernel has not touched its memory
        rnn.parametrizations.weight_hh_l0[0].base.neg_()
        assert torch.dist(rnn(x)[0], expected) > 1e-3


def test_C8_one_switch_turns_it_off() -> None:
    case = Case()
    with holdfast.remember(False):
        assert case.count() == 3
        with holdfast.remember(True):
            assert case.count() == 1
        assert case.count() == 3
    assert case.count() <= 1
    with pytest.raises(Interruption), holdfast.remember(False):
        raise Interruption
    assert case.count() <= 1


DROPS: dict[str, Callable[[nn.Module], object]] = {
    "a read with gradients": lambda layer: layer.weight,
    "train": lambda layer: layer.train(),
    "eval": lambda layer: layer.eval(),
    "a look at the parameters": lambda layer: list(layer.parameters()),
    "a look at the original": original,
}


@pytest.mark.parametrize("drop", list(DROPS))
def test_C8_training_drops_the_remembered_value(drop: str) -> None:
    case = Case()
    assert case.count() == 1
    assert case.count() == 0
    DROPS[drop](case.layer)  # and let go of what it gives
    assert case.count() == 1


def test_C8_a_view_of_the_original_is_remembered_as_a_copy() -> None:
    class Transposed(holdfast.Parametrization):
        deterministic = True

        def forward(self, X: Tensor) -> Tensor:
            return X.mT

    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Transposed())
    address = original(layer).data_ptr()
    with torch.no_grad():
        value = layer.weight
        assert layer.weight is value  # it is remembered
        assert not torch._C._is_cow_tensor(original(layer))
        original(layer).add_(1.0)
        assert original(layer).data_ptr() == address
        assert_close(layer.weight, original(layer).mT)
        assert torch.dist(layer.weight, value) > 1.0


def test_C8_threads_see_right_values() -> None:
    case = Case()
    wrong: list[str] = []

    def serve() -> None:
        with torch.no_grad():
            for _ in range(20):
                if not torch.equal(case.layer.weight, case.truth()):
                    wrong.append("stale")

    for _ in range(3):
        threads = [threading.Thread(target=serve) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        copy_target(case.layer)
    assert wrong == []


@pytest.mark.parametrize(
    "apply", [holdfast.orthogonal, holdfast.weight_norm, holdfast.spectral_norm]
)
def test_C8_the_built_in_functions_are_remembered(
    apply: Callable[[nn.Module], nn.Module],
) -> None:
    layer = apply(nn.Linear(4, 4, bias=False)).eval()
    runs: list[None] = []
    link = layer.parametrizations.weight[0]
    forward = type(link).forward

    class Watched(type(link)):
        def forward(self, *originals: Tensor) -> Tensor:
            runs.append(None)
            return forward(self, *originals)

    link.__class__ = Watched
    with torch.no_grad():
        values = [layer.weight.clone() for _ in range(3)]
        assert len(runs) == 1
        assert_close(values[2], values[0], atol=0, rtol=0)
        for parameter in layer.parameters():
            parameter.data.add_(0.1)
        assert torch.dist(layer.weight, values[0]) > 1e-4
        assert_close(layer.weight, layer.parametrizations.weight())


# ---- C9: torch.compile ------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[Callable[..., tuple[Callable[..., Tensor], list]]]:
    """Give a ``compile`` that counts its graphs and refuses to break them."""
    torch._dynamo.reset()

    def compile(function: Callable[..., Tensor]):
        graphs: list[torch.fx.GraphModule] = []

        def backend(graph: torch.fx.GraphModule, _: list[Tensor]):
            graphs.append(graph)
            return graph.forward

        return torch.compile(function, backend=backend, fullgraph=True), graphs

    yield compile
    torch._dynamo.reset()


def compiled_layer() -> nn.Module:
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", nn.Tanh())
    return layer


def test_C9_entering_and_leaving_a_scope_does_not_recompile(compiler) -> None:
    layer, x = compiled_layer(), torch.randn(4, 3)
    call, graphs = compiler(lambda x: layer(layer(x)))
    expected = layer(layer(x))
    assert_close(call(x), expected)
    with holdfast.cached():
        assert_close(call(x), expected)
        _ = layer.weight
        assert_close(call(x), expected)
        with holdfast.cached(layer):
            assert_close(call(x), expected)
    assert_close(call(x), expected)
    assert len(graphs) == 1


def test_C9_a_scope_inside_the_compiled_function(compiler) -> None:
    layer, x = compiled_layer(), torch.randn(4, 3)

    def twice(x: Tensor) -> Tensor:
        with holdfast.cached():
            return layer(layer(x))

    call, graphs = compiler(twice)
    for _ in range(2):
        assert_close(call(x), layer(layer(x)))
    with holdfast.cached():
        assert_close(call(x), layer(layer(x)))
    assert len(graphs) == 1
    # Computed once inside the scope, as it is without the compiler.
    tanhs = [node for node in graphs[0].graph.nodes if "tanh" in str(node.target)]
    assert len(tanhs) == 1


def test_C9_compiled_code_follows_the_optimizer(compiler) -> None:
    layer, x = compiled_layer(), torch.randn(4, 3)
    call, graphs = compiler(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    with holdfast.cached():
        for _ in range(3):
            optimizer.zero_grad()
            out = call(x)
            assert_close(out, layer(x))
            out.square().sum().backward()
            expected = torch.autograd.grad(layer(x).square().sum(), original(layer))[0]
            assert_close(original(layer).grad, expected)
            optimizer.step()
    assert len(graphs) == 1


def test_C9_compiled_serving_is_fresh(compiler) -> None:
    layer, x = nn.Linear(3, 3, bias=False), torch.randn(4, 3)
    holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    call, graphs = compiler(layer)

    def expected() -> Tensor:
        with holdfast.remember(False):
            return x @ maps.Symmetric()(original(layer)).T

    with torch.no_grad():
        first = call(x)
        assert_close(first, expected())
        _ = layer.weight, layer.weight
        data_of_each(layer)
        assert_close(call(x), expected())
        assert_close(call(x), 0.5 * first)
    assert len(graphs) == 1


def test_C9_a_decorated_function_compiles(compiler) -> None:
    layer, x = compiled_layer(), torch.randn(4, 3)

    @holdfast.cached(layer)
    def twice(x: Tensor) -> Tensor:
        return layer(layer(x))

    call, graphs = compiler(twice)
    for _ in range(2):
        assert_close(call(x), layer(layer(x)))
    assert len(graphs) == 1


def test_C9_control_torch_recompiles(compiler) -> None:
    layer, x = nn.Linear(3, 3), torch.randn(4, 3)
    torch_parametrize.register_parametrization(layer, "weight", nn.Tanh())
    call, graphs = compiler(lambda x: layer(layer(x)))
    call(x)
    with torch_parametrize.cached():
        call(x)
    assert len(graphs) > 1
