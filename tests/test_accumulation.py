"""Gradient accumulation with one backward pass of each map."""

from __future__ import annotations

import contextlib
import copy
import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import holdfast
from holdfast import errors, maps
from support import Sine

MICRO = 8
both_checkpoints = pytest.mark.parametrize("reentrant", [True, False])


class Counted(torch.autograd.Function):
    """The sine, which counts forward and backward passes."""

    passes: list[str] = []  # noqa: RUF012  # of the class, on purpose

    @staticmethod
    def forward(ctx, X: Tensor) -> Tensor:
        Counted.passes.append("forward")
        ctx.save_for_backward(X)
        return X.sin()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        Counted.passes.append("backward")
        return grad * ctx.saved_tensors[0].cos()


class Map(Sine):
    def forward(self, X: Tensor) -> Tensor:
        return Counted.apply(X)


@pytest.fixture(autouse=True)
def _no_passes():
    Counted.passes.clear()


def sine_model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for layer in model:
        holdfast.register_parametrization(layer, "weight", Map())
    Counted.passes.clear()
    return model


def mixed_model() -> nn.Sequential:
    recipes = [holdfast.orthogonal] * 5 + [holdfast.weight_norm, nn.Module.train]
    model = nn.Sequential(*(recipe(nn.Linear(4, 4)) for recipe in recipes))
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) / 3)
    return model


def micro_batches() -> Tensor:
    return torch.randn(MICRO, 3, 4)


def train(model: nn.Module, batches: Tensor) -> None:
    for x in batches:
        model(x).square().sum().backward()


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in model.parameters()]


def test_each_map_runs_once_forward_and_once_backward():
    model = sine_model()
    with holdfast.accumulate(model):
        train(model, micro_batches())
        assert Counted.passes == ["forward"] * 2
    assert sorted(Counted.passes) == ["backward"] * 2 + ["forward"] * 2


def test_control_without_the_scope_each_runs_for_every_micro_batch():
    model = sine_model()
    train(model, micro_batches())
    assert len(Counted.passes) == 4 * MICRO


@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("around", [False, True])
def test_the_gradients_are_those_of_plain_backward_passes(foreach, around):
    model, batches = mixed_model().double(), micro_batches().double()
    twin = copy.deepcopy(model)
    train(twin, batches)
    with holdfast.cached() if around else holdfast.remember(True):
        _ = [layer.weight for layer in model]
        with holdfast.accumulate(model, foreach=foreach):
            train(model, batches)
    assert_close(gradients(model), gradients(twin))


def test_a_weight_that_is_not_used_has_no_gradient():
    model = mixed_model()
    with holdfast.accumulate(model, foreach=True):
        train(model[:2], micro_batches())
    found = [p.grad is not None for p in model.parameters()]
    assert found == [True] * 4 + [False] * (len(found) - 4)


def test_steps_inside_the_scope():
    model, batches = mixed_model(), micro_batches()
    twin = copy.deepcopy(model)

    def run(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for half in batches.chunk(2):
            optimizer.zero_grad()
            train(model, half)
            optimizer.step()

    with holdfast.accumulate(model):
        run(model)
    run(twin)
    assert_close(list(model.parameters()), list(twin.parameters()))


def test_flush_and_clip():
    model, batches = mixed_model(), micro_batches()
    twin = copy.deepcopy(model)
    with holdfast.accumulate(model) as scope:
        train(model, batches)
        scope.flush()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    train(twin, batches)
    nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
    assert_close(gradients(model), gradients(twin))


def test_retain_graph_and_several_losses():
    model, x = sine_model(), torch.randn(3, 4)
    twin = copy.deepcopy(model)

    def run(model: nn.Module) -> None:
        y = model(x)
        y.sum().backward(retain_graph=True)
        y.square().sum().backward()

    with holdfast.accumulate(model):
        run(model)
    run(twin)
    assert_close(gradients(model), gradients(twin))


def test_a_penalty_on_gradients_of_the_input():
    model, twin = (mixed := mixed_model().double()), copy.deepcopy(mixed)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def run(model: nn.Module) -> None:
        (slope,) = torch.autograd.grad(model(x).sin().sum(), x, create_graph=True)
        slope.square().sum().backward()

    with holdfast.accumulate(model):
        run(model)
        run(model)
    run(twin)
    run(twin)
    assert_close(gradients(model), gradients(twin))


def test_scaled_losses():
    model, batches = mixed_model(), micro_batches()
    twin = copy.deepcopy(model)

    def run(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with holdfast.accumulate(model) if model is not twin else holdfast.cached():
            for x in batches:
                scaler.scale(model(x).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    run(model)
    run(twin)
    assert_close(list(model.parameters()), list(twin.parameters()))


@both_checkpoints
def test_each_map_runs_once_around_checkpoints(reentrant):
    model, batches = sine_model(), micro_batches().requires_grad_()
    twin = copy.deepcopy(model)

    def run(model: nn.Module) -> None:
        for x in batches:
            y = checkpoint(model, x, use_reentrant=reentrant)
            y.square().sum().backward()

    with holdfast.accumulate(model):
        run(model)
    assert Counted.passes.count("backward") == 2
    run(twin)
    assert_close(gradients(model), gradients(twin))


def test_an_exception_leaves_no_gradient_and_nothing_behind():
    model, batches = sine_model(), micro_batches()

    def fail() -> None:
        with holdfast.accumulate(model):
            train(model, batches)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    originals = [layer.parametrizations.weight.original for layer in model]
    assert [X.grad for X in originals] == [None, None]
    model.zero_grad()
    with holdfast.accumulate(model):
        train(model, batches)
    twin = copy.deepcopy(model)
    twin.zero_grad()
    train(twin, batches)
    assert_close(gradients(model), gradients(twin))


def test_a_backward_pass_after_the_scope_is_refused():
    model = sine_model()
    with holdfast.accumulate(model):
        loss = model(torch.randn(2, 4)).sum()
    with pytest.raises(RuntimeError, match="inside the scope"):
        loss.backward()


def test_reading_without_gradients_and_frozen_weights():
    model = sine_model()
    model[0].parametrizations.weight.original.requires_grad_(False)
    with holdfast.accumulate(model):
        with torch.no_grad():
            assert not model[1].weight.requires_grad
        assert not model[0].weight.requires_grad
        assert model[1].weight.is_leaf
        train(model, micro_batches())
    assert model[0].parametrizations.weight.original.grad is None
    assert model[1].parametrizations.weight.original.grad is not None


def test_an_assignment_inside_the_scope_is_seen():
    model = sine_model()
    with holdfast.accumulate(model):
        _ = model[0].weight
        model[0].weight = torch.full((4, 4), 0.5)
        assert_close(model[0].weight, torch.full((4, 4), 0.5))


def test_it_decorates_functions():
    model, batches = sine_model(), micro_batches()
    holdfast.accumulate(model)(train)(model, batches)
    assert len(Counted.passes) == 4


def test_moving_state_moves_with_every_micro_batch():
    model = nn.Sequential(*(holdfast.spectral_norm(nn.Linear(4, 4)) for _ in range(3)))
    for p in model.parameters():
        p.data.add_(torch.randn_like(p))
    twin, batches = copy.deepcopy(model), micro_batches()
    with holdfast.accumulate(model, foreach=True):
        train(model, batches)
    train(twin, batches)
    assert_close(gradients(model), gradients(twin))
    assert_close(list(model.buffers()), list(twin.buffers()))


def test_stacks_of_structured_weights_too():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    for layer in model:
        holdfast.register_parametrization(layer, "weight", maps.Symmetric())
        holdfast.register_parametrization(layer, "weight", maps.MatrixExp())
    twin, batches = copy.deepcopy(model), micro_batches() / 9
    with holdfast.accumulate(model):
        train(model, batches)
    train(twin, batches)
    assert_close(gradients(model), gradients(twin))


def test_a_model_whose_originals_are_freed_is_refused(mesh):
    """Its memory would be read after it was freed."""
    model = nn.Sequential(nn.ReLU(), holdfast.weight_norm(nn.Linear(4, 4)))
    torch.distributed.fsdp.fully_shard(model[1], mesh=mesh)
    with pytest.raises(errors.InvalidTensorError, match="`1` is sharded by FSDP"):
        holdfast.accumulate(model).__enter__()
    with holdfast.cached(model):
        model(torch.ones(2, 4)).sum().backward()
    assert model[1].parametrizations.weight.original0.grad is not None


@pytest.mark.parametrize("recipe", [holdfast.orthogonal, holdfast.weight_norm])
@pytest.mark.parametrize("how", ["assigned", "loaded"])
def test_gradients_that_wait_arrive_before_a_weight_moves(recipe, how):
    def gradients(scope):
        torch.manual_seed(0)
        model, x = recipe(nn.Linear(4, 4)), torch.randn(2, 4)
        W = nn.init.orthogonal_(torch.empty(4, 4))
        with scope(model):
            model(x).square().sum().backward()
            if how == "assigned":
                model.weight = W
            else:
                model.load_state_dict({"weight": W, "bias": model.bias.detach()})
            model(x).cumsum(1).sum().backward()
        return [p.grad for p in model.parameters()]

    pairs = zip(
        gradients(holdfast.accumulate),
        gradients(lambda model: contextlib.nullcontext()),
        strict=True,
    )
    for ours, plain in pairs:
        assert_close(ours, plain)


def test_what_waits_can_be_dropped():
    model, x = holdfast.orthogonal(nn.Linear(4, 4)), torch.randn(2, 4)
    with holdfast.accumulate(model) as waiting:
        (model(x).sum() * float("nan")).backward()
        waiting.drop()
        model.zero_grad()
        model(x).square().cumsum(1).sum().backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).square().cumsum(1).sum().backward()
    assert_close(ours, [p.grad for p in model.parameters()])


def optimizers(model: nn.Module, *, to_none: bool) -> None:
    torch.optim.SGD(model.parameters(), lr=0.1).zero_grad(set_to_none=to_none)


def modules(model: nn.Module, *, to_none: bool) -> None:
    model.zero_grad(set_to_none=to_none)


def data(model: nn.Module, *, to_none: bool) -> None:
    for p in model.parameters():
        p.grad = None if to_none else p.grad
        if p.grad is not None:
            p.grad.data.zero_()


def others(model: nn.Module, *, to_none: bool) -> None:
    for p in model.parameters():
        p.grad = None if to_none else torch.zeros_like(p)


def grads_of(model: nn.Module) -> list[torch.Tensor | None]:
    return [p.grad for p in model.parameters()]


def complex_layer() -> nn.Module:
    return holdfast.orthogonal(nn.Linear(4, 4, dtype=torch.complex64))


def stack() -> nn.Module:
    return nn.Sequential(*(holdfast.orthogonal(nn.Linear(4, 4)) for _ in range(4)))


ACCUMULATED = {
    "orthogonal": lambda: holdfast.orthogonal(nn.Linear(4, 4)),
    "weight_norm": lambda: holdfast.weight_norm(nn.Linear(4, 4)),
    "complex": complex_layer,
    "a batch": stack,
}


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.to(next(model.parameters()).dtype)
    return model(x).cumsum(1).abs().square().sum()


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("zero", [optimizers, modules, data, others])
@pytest.mark.parametrize("kind", ACCUMULATED)
@pytest.mark.parametrize("before", [False, True])
def test_zero_grad_drops_what_waits(kind, zero, to_none, before):
    def train(scope):
        torch.manual_seed(0)
        model, batches = ACCUMULATED[kind](), torch.randn(5, 2, 4)
        if before:  # gradients from before the scope
            loss_of(model, batches[0]).backward()
        with scope(model):
            loss_of(model, batches[1]).backward()
            loss_of(model, batches[2]).backward()
            zero(model, to_none=to_none)
            loss_of(model, batches[3]).backward()
            loss_of(model, batches[4]).backward()
        return grads_of(model)

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad_at_the_end_of_the_scope_leaves_nothing(to_none):
    model = holdfast.weight_norm(nn.Linear(4, 4))
    with holdfast.accumulate(model):
        loss_of(model, torch.randn(2, 4)).backward()
        model.zero_grad(set_to_none=to_none)
    found = grads_of(model)
    assert all(g is None or not g.any() for g in found)
    assert to_none == all(g is None for g in found)


def test_gradients_from_before_the_scope_are_added_to():
    def train(scope):
        torch.manual_seed(0)
        model, batches = holdfast.weight_norm(nn.Linear(4, 4)), torch.randn(3, 2, 4)
        loss_of(model, batches[0]).backward()
        with scope(model):
            for x in batches[1:]:
                (loss_of(model, x) + model.bias.sum()).backward()
                model.parametrizations.weight.original0.sum().backward()
        return grads_of(model)

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


def test_zeroing_one_optimizer_of_two_leaves_what_waits_for_the_other():
    def train(scope):
        torch.manual_seed(0)
        model, x = stack(), torch.randn(2, 4)
        with scope(model):
            loss_of(model, x).backward()
            model[0].zero_grad()
            loss_of(model, x).backward()
        return grads_of(model)

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


def test_after_an_exception_there_are_no_gradients_and_no_zeros():
    model = holdfast.weight_norm(nn.Linear(4, 4))

    def fail() -> None:
        with holdfast.accumulate(model):
            loss_of(model, torch.randn(2, 4)).backward()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [p.grad for p in model.parametrizations.parameters()] == [None, None]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("where", ["step", "end"])
def test_gradients_that_have_not_come_are_not_clipped_silently(where, before):
    model = holdfast.weight_norm(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if before:  # a part that would be clipped alone
        loss_of(model, torch.randn(2, 4)).backward()

    def clipped(*, first: bool) -> None:
        with holdfast.accumulate(model) as waiting:
            loss_of(model, torch.randn(2, 4)).backward()
            if first:
                waiting.flush()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            if where == "step":
                optimizer.step()

    with pytest.raises(RuntimeError, match=r"Call `flush\(\)` of the scope first"):
        clipped(first=False)
    model.zero_grad()
    clipped(first=True)


def replaced(p: nn.Parameter) -> None:
    p.grad = p.grad * 0.5


def given_other_data(p: nn.Parameter) -> None:
    p.grad.data = p.grad.data * 0.5


def halved_by_numpy(p: nn.Parameter) -> None:
    halved = p.grad.numpy()
    halved *= 0.5


UNRECORDED = {
    "data": lambda p: p.grad.data.mul_(0.5),
    "foreach": lambda p: torch._foreach_mul_([p.grad.data], 0.5),
    "noise": lambda p: p.grad.data.add_(1.0),
    "NumPy": halved_by_numpy,
    "other data": given_other_data,
    "replaced": replaced,
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("how", UNRECORDED)
def test_a_change_that_moves_no_version_is_not_lost_silently(how, before):
    torch.manual_seed(0)
    model = holdfast.weight_norm(nn.Linear(4, 4))
    if before:
        loss_of(model, torch.randn(2, 4)).backward()

    def halved(*, first: bool) -> None:
        with holdfast.accumulate(model) as waiting:
            loss_of(model, torch.randn(2, 4)).backward()
            if first:
                waiting.flush()
            versions = [p.grad._version for p in model.parameters()]
            for p in model.parameters():
                UNRECORDED[how](p)
            assert how in ("replaced", "other data") or versions == [
                p.grad._version for p in model.parameters()
            ]

    with pytest.raises(RuntimeError, match=r"Call `flush\(\)` of the scope first"):
        halved(first=False)
    model.zero_grad()
    halved(first=True)


CHANGES = UNRECORDED | {
    "clipped": lambda p: nn.utils.clip_grad_norm_([p], 1e-3),
    "scaled": lambda p: p.grad.mul_(0.5),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("how", CHANGES)
def test_a_change_between_micro_batches_is_not_lost_silently(how, before):
    torch.manual_seed(0)
    model = holdfast.weight_norm(nn.Linear(4, 4))
    if before:
        loss_of(model, torch.randn(2, 4)).backward()

    def changed(*, first: bool) -> None:
        with holdfast.accumulate(model) as waiting:
            loss_of(model, torch.randn(2, 4)).backward()
            if first:
                waiting.flush()
            for p in model.parameters():
                CHANGES[how](p)
            loss_of(model, torch.randn(2, 4)).backward()

    with pytest.raises(RuntimeError, match=r"Call `flush\(\)` of the scope first"):
        changed(first=False)
    model.zero_grad()
    changed(first=True)


LOOKS = {
    "norm": lambda p: p.grad.norm(),
    "several": lambda p: nn.utils.get_total_norm([p.grad]),
    "data": lambda p: p.grad.data.abs().max(),
    "list": lambda p: p.grad.tolist(),
    "copy": lambda p: copy.deepcopy(p.grad),
    "text": lambda p: repr(p.grad),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", ACCUMULATED)
def test_control_looking_at_gradients_that_wait_is_no_change(kind, look):
    def train(scope):
        torch.manual_seed(0)
        model, batches = ACCUMULATED[kind](), torch.randn(3, 2, 4)
        loss_of(model, batches[0]).backward()
        with scope(model):
            for x in batches[1:]:
                loss_of(model, x).backward()
                for p in model.parameters():
                    LOOKS[look](p)
        return grads_of(model)

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


def flat_gradients(model: nn.Module) -> Tensor:
    parameters = [*model.parameters()]
    sizes = [p.numel() for p in parameters]
    flat = torch.zeros(sum(sizes))
    for p, part in zip(parameters, flat.split(sizes), strict=True):
        p.grad = part.view_as(p)
    return flat


@pytest.mark.parametrize("zero", [None, "flat", "each"])
@pytest.mark.parametrize("before", [False, True])
def test_slices_of_one_buffer_may_be_the_gradients(before, zero):
    def train(scope):
        torch.manual_seed(0)
        model, batches = holdfast.weight_norm(nn.Linear(4, 4)), torch.randn(5, 2, 4)
        flat = flat_gradients(model)
        if before:
            loss_of(model, batches[0]).backward()
        with scope(model):
            for i, x in enumerate(batches[1:]):
                if i == 2 and zero == "flat":
                    flat.zero_()
                if i == 2 and zero == "each":
                    model.zero_grad(set_to_none=False)
                loss_of(model, x).backward()
        assert all(p.grad._base is flat for p in model.parameters())
        return flat

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize("to_none", [False, True])
def test_gradients_that_are_slices_of_the_buckets_of_DDP(to_none):
    def run(scope, wrapped):
        torch.manual_seed(0)
        model, batches = mixed_model(), micro_batches()
        outer = wrapped(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        silent = getattr(outer, "no_sync", contextlib.nullcontext)
        for _ in range(3):
            with silent(), scope(model):
                train(outer, batches[:-1])
            train(outer, batches[-1:])
            found = [p.grad.clone() for p in model.parameters()]
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
        return found

    wrap = functools.partial(DistributedDataParallel, gradient_as_bucket_view=True)
    assert_close(
        run(holdfast.accumulate, wrap),
        run(lambda model: contextlib.nullcontext(), lambda model: model),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("before", [False, True])
def test_scaling_a_buffer_of_gradients_is_not_lost_silently(before):
    model, x = holdfast.weight_norm(nn.Linear(4, 4)), torch.randn(2, 4)
    flat = flat_gradients(model)
    if before:
        loss_of(model, x).backward()

    def shifted() -> None:
        with holdfast.accumulate(model) as waiting:
            loss_of(model, x).backward()
            flat.add_(1.0)
            for _ in range(2):  # a refusal forgets nothing
                with pytest.raises(RuntimeError, match=r"Call `flush\(\)`"):
                    waiting.flush()
            raise KeyError

    with pytest.raises(KeyError):
        shifted()
    assert not any(p._backward_hooks for p in model.parametrizations.parameters())


@pytest.mark.parametrize("kind", ["weight_norm", "orthogonal"])
@pytest.mark.parametrize("now", [False, True])
def test_freezing_an_original_underway_is_as_without_the_scope(kind, now):
    def train(scope):
        torch.manual_seed(0)
        model, batches = ACCUMULATED[kind](), torch.randn(3, 2, 4)
        first = next(model.parametrizations.parameters()).requires_grad_(not now)
        with scope(model):
            loss_of(model, batches[0]).backward()
            first.requires_grad_(now)
            for x in batches[1:]:
                loss_of(model, x).backward()
        assert first.requires_grad is now
        return grads_of(model)

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_step_with_a_closure_has_the_gradients_that_it_computes(kind, named):
    def train(scope):
        torch.manual_seed(0)
        model, x = stack(), torch.randn(2, 4)
        optimizer = kind(model.parameters(), lr=0.01)
        step = optimizer.step

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            return loss

        with scope(model):
            for _ in range(2):
                step(closure=closure) if named else step(closure)
        return [p.detach().clone() for p in model.parameters()]

    before = train(lambda model: contextlib.nullcontext())
    assert_close(train(holdfast.accumulate), before, rtol=1e-5, atol=1e-6)


PENALTIES = {
    "negative": lambda X: -X.real.sum(),
    "zero": lambda X: X.real.sum() * 0,
    "square": lambda X: X.abs().square().sum(),
}


@pytest.mark.parametrize("zero", [None, False, True])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("kind", ACCUMULATED)
def test_gradients_of_a_penalty_on_originals_are_added(kind, penalty, zero):
    def train(scope):
        torch.manual_seed(0)
        model, batches = ACCUMULATED[kind](), torch.randn(4, 2, 4)
        originals = [p for n, p in model.named_parameters() if "original" in n]
        with scope(model):
            for i, x in enumerate(batches):
                loss_of(model, x).backward()
                if i == 1 and zero is not None:
                    model.zero_grad(set_to_none=zero)
                for X in originals:
                    PENALTIES[penalty](X).backward()
        return grads_of(model)

    assert_close(
        train(holdfast.accumulate), train(lambda model: contextlib.nullcontext())
    )


def test_a_loss_from_before_a_step_is_not_lost_after_it():
    model, x = holdfast.weight_norm(nn.Linear(4, 4)), torch.randn(2, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with holdfast.accumulate(model):
        old = loss_of(model, x)
        loss_of(model, x).backward()
        optimizer.step()
        with pytest.raises(RuntimeError, match="an optimizer had stepped"):
            old.backward()
