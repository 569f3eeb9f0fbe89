"""Batched evaluation: equal maps on equal shapes as one, under the checks of C1-C9."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import holdfast
from case import always
from cases import CASES, over
from holdfast import Parametrization, maps, sets
from holdfast.core import batching
from holdfast.core.sharing import parts_of
from holdfast.testing.case import Case, Shape
from support import Token, Traced

EXACT = (torch.float64, torch.complex128)
both_checkpoints = pytest.mark.parametrize("reentrant", [True, False])


class Counting(Parametrization):
    """The sine, which counts its evaluations; those of all of its kind."""

    calls: list[int] = []  # noqa: RUF012  # of the class, on purpose
    foreach = "stack"
    deterministic = True

    def forward(self, X: Tensor) -> Tensor:
        self.calls.append(X.ndim)
        return X.sin()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.asin()


class Alone(Counting):
    """The same, without a word on batches."""

    foreach = None


@pytest.fixture(autouse=True)
def _no_calls():
    Counting.calls.clear()


def evaluations() -> int:
    count = len(Counting.calls)
    Counting.calls.clear()
    return count


def sines(count: int = 5, map_: type[Parametrization] = Counting) -> nn.Sequential:
    layers = [nn.Linear(3, 3, bias=False) for _ in range(count)]
    for layer in layers:
        holdfast.register_parametrization(layer, "weight", map_())
    evaluations()
    return nn.Sequential(*layers)


def originals(model: nn.Module) -> list[Tensor]:
    return [p for n, p in model.named_parameters() if "original" in n]


def original(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def weights(model: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in model]


def batched(first: Tensor, second: Tensor) -> bool:
    """Tell whether two values are slices of one."""
    return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def assert_as_one_by_one(model: nn.Module, loss) -> None:
    """Compare the gradients of ``loss(model)`` in a scope to those without any."""
    twin = copy.deepcopy(model)
    loss(twin).backward()
    with holdfast.cached(model, foreach=True):
        loss(model).backward()
    for ours, theirs in zip(originals(model), originals(twin), strict=True):
        assert_close(ours.grad, theirs.grad)


# ---- The law: a batch is what one after the other is -------------------------------


def law_foreach(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    hosts = nn.ModuleList([case.registered(torch.randn(shape, dtype=dtype))])
    if "right_inverse" not in case.exceptions:  # buffers that differ
        W = case.codomain(shape).sample(shape, dtype=dtype)
        hosts.append(case.registered(W))
    hosts.append(case.registered(torch.randn(shape, dtype=dtype)))
    for host in hosts:
        for tensor in host.parametrizations.weight._parameters.values():
            tensor.data.add_(torch.randn_like(tensor) / 4)
    tensors = list(hosts.parameters())
    one_by_one = weights(hosts)
    G = torch.randn_like(torch.stack(one_by_one))
    loss = torch.stack(one_by_one)
    expected = torch.autograd.grad(loss, tensors, G, materialize_grads=True)
    with holdfast.cached(hosts, foreach=True):
        values = weights(hosts)
        assert all(batched(values[0], value) for value in values)
        assert_close(values, one_by_one)
        found = torch.autograd.grad(
            torch.stack(values), tensors, G, materialize_grads=True
        )
    assert_close(found, expected, rtol=1e-5, atol=1e-8)


BATCHED = [
    case.name
    for case in CASES
    if not {*EXACT}.isdisjoint(case.dtypes)
    if all(
        part.foreach for map_ in case.make(case.shapes[0]) for part in parts_of(map_)
    )
]


@over("foreach", EXACT, only=BATCHED)
def test_a_batch_gives_the_values_and_gradients_of_one_by_one(case, shape, dtype):
    parts = (part for map_ in case.make(shape) for part in parts_of(map_))
    vmapped = any(part.foreach == "vmap" for part in parts)
    if 0 not in shape and not (vmapped and dtype.is_complex):
        law_foreach(case, shape, dtype)


class OneNorm(Parametrization):
    """Wrong: the norm is that of the whole stack."""

    foreach = "stack"

    def forward(self, X: Tensor) -> Tensor:
        return X / X.norm()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class Detached(OneNorm):
    """Wrong: a part of the gradient is lost in the stack."""

    def forward(self, X: Tensor) -> Tensor:
        return X.sin() if X.ndim == 2 else X.sin().detach() + 0 * X


@pytest.mark.parametrize("wrong", [OneNorm, Detached])
def test_the_law_rejects_a_map_that_is_wrong_on_a_stack(wrong):
    case = Case("broken", lambda _: [wrong()], always(sets.Real()), ((4, 4),))
    with pytest.raises(AssertionError, match="not close"):
        law_foreach(case, (4, 4), torch.float64)


def test_the_gradients_have_gradients():
    model = nn.Sequential(
        *(holdfast.orthogonal(nn.Linear(3, 3, bias=False)) for _ in range(3))
    ).double()
    for p in originals(model):
        p.data.add_(torch.randn_like(p) / 3)
    x = torch.randn(2, 3, dtype=torch.float64)

    def penalty(scope) -> tuple[Tensor, ...]:
        with scope:
            inner = torch.autograd.grad(
                model(x).sin().sum(), originals(model), create_graph=True
            )
            loss = sum(g.square().sum() for g in inner)
            return torch.autograd.grad(loss, originals(model))

    expected = penalty(holdfast.remember(True))  # no scope
    assert_close(penalty(holdfast.cached(model, foreach=True)), expected)


# ---- What is evaluated, and with what ----------------------------------------------


def test_equal_maps_are_evaluated_once():
    model = sines()
    with holdfast.cached(model, foreach=True):
        _ = weights(model), weights(model)
        assert Counting.calls == [3]


def test_a_map_that_declares_nothing_is_evaluated_one_by_one():
    model = sines(map_=Alone)
    with holdfast.cached(model, foreach=True):
        _ = weights(model), weights(model)
    assert Counting.calls == [2] * 5


def test_maps_shapes_and_types_that_differ_are_not_mixed():
    layers = [nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 4), nn.Linear(3, 3)]
    layers.append(nn.Linear(3, 3, dtype=torch.float64))
    for layer in layers:
        dim = 1 if layer is layers[3] else 0
        holdfast.register_parametrization(layer, "weight", maps.WeightNorm(dim))
    expected = weights(layers)
    with holdfast.cached(nn.ModuleList(layers), foreach=True):
        values = weights(layers)
    assert [batched(values[0], value) for value in values] == [True] * 2 + [False] * 3
    assert_close(values, expected)


def test_modes_that_differ_are_not_mixed():
    model = sines()
    model[1].eval()
    with holdfast.cached(model, foreach=True):
        values = weights(model)
    assert [batched(values[0], value) for value in values] == [1, 0, 1, 1, 1]


def test_frozen_weights_are_not_mixed_with_others():
    model = sines()
    original(model[1]).requires_grad_(False)
    with holdfast.cached(model, foreach=True):
        values = weights(model)
        assert [v.requires_grad for v in values] == [True, False, True, True, True]
        torch.stack(values).sum().backward()
    assert original(model[1]).grad is None
    for layer in (model[0], model[2], model[3], model[4]):
        assert_close(original(layer).grad, original(layer).detach().cos())


def test_a_hooked_map_is_evaluated_on_its_own():
    model = sines()
    model[2].parametrizations.weight[0].register_forward_hook(lambda *_: torch.ones(3))
    with holdfast.cached(model, foreach=True):
        values = weights(model)
    assert_close(values[2], torch.ones(3))
    assert_close(values[3], original(model[3]).sin())


def test_a_chain_of_several_maps_is_one_batch():
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))
    for layer in model:
        for map_ in (maps.Skew(), maps.Cayley()):
            holdfast.register_parametrization(layer, "weight", map_)
        layer.weight = sets.Stiefel().sample((4, 4))  # signs that differ
    x = torch.randn(2, 4)
    assert_as_one_by_one(model, lambda m: m(x).square().sum() + m[0].weight.sum())
    with holdfast.cached(model, foreach=True):
        assert batched(model[0].weight, model[3].weight)


def test_a_tensor_that_is_parametrized_later_joins_the_batch():
    model = sines(3)
    model[0].extra = nn.Parameter(torch.rand(3, 3) / 2)
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
    holdfast.register_parametrization(model[0], "extra", Counting())
    with holdfast.cached(model, foreach=True):
        assert batched(model[0].extra, model[1].weight)
    with holdfast.cached(model, foreach=True):
        assert batched(model[1].weight, model[0].extra)


def test_what_is_no_longer_parametrized_leaves_the_batch():
    model = sines(3)
    model[0].extra = nn.Parameter(torch.rand(3, 3) / 2)
    holdfast.register_parametrization(model[0], "extra", Counting())
    with holdfast.cached(model, foreach=True):
        assert batched(model[0].extra, model[0].weight)
    holdfast.remove_parametrizations(model[0], "extra")
    with holdfast.cached(model, foreach=True):
        value = model[0].weight
    assert value.untyped_storage().nbytes() == 3 * value.nbytes


@pytest.mark.parametrize("late", [False, True])
def test_weights_of_maps_are_in_the_model(late):
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3, bias=False)

        def forward(self, X: Tensor) -> Tensor:
            return X @ self.inner.weight

    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    around = Around()
    if not late:
        holdfast.register_parametrization(around.inner, "weight", Counting())
    holdfast.register_parametrization(model[0], "weight", around)
    with holdfast.cached(model):
        _ = model[0].weight
    if late:
        holdfast.register_parametrization(around.inner, "weight", Counting())
    evaluations()
    with holdfast.cached(model):
        _ = model[0].weight, around.inner.weight
    assert evaluations() == 1


def test_the_models_of_a_scope_are_not_mixed():
    one, two = sines(), sines()
    with holdfast.cached(one, two, foreach=True):
        _ = weights(one)
        assert evaluations() == 1
        _ = weights(two)
        assert evaluations() == 1


def test_a_decorated_function_evaluates_batches():
    model = sines()
    read = holdfast.cached(model, foreach=True)(lambda: weights(model))
    read()
    read()
    assert evaluations() == 2


def test_batches_want_to_know_the_model():
    with pytest.raises(ValueError, match=r"cached\(model, foreach=True\)"):
        holdfast.cached(foreach=True)


# ---- The default -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(4, 8, True), (3, 8, False), (4, 128, False)]
)
def test_by_default_many_small_weights_are_batched(count, size, expected):
    model = nn.Sequential(*(nn.Linear(size, size) for _ in range(count)))
    for layer in model:
        holdfast.register_parametrization(layer, "weight", maps.Skew())
    with holdfast.cached(model):
        values = weights(model)
        assert batched(values[0], values[1]) is expected
    with holdfast.cached(model, foreach=False):
        values = weights(model)
    assert not batched(values[0], values[1])


# ---- Memory ------------------------------------------------------------------------


def test_a_batch_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(batching, "BATCH", 18)
    model = sines()
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
        assert evaluations() == 3


class Doubling(Parametrization):
    """Doubles; knows how many of the graphs it took part in are still alive."""

    seen: list[weakref.ref[Token]] = []  # noqa: RUF012  # of the class, on purpose
    foreach = "stack"
    forward, alive = Traced.forward, Traced.alive

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2


@pytest.mark.parametrize("failing", [False, True])
def test_C6_leaving_frees_values_and_graph(failing):
    model = sines(map_=Doubling)
    with (
        contextlib.suppress(ZeroDivisionError),
        holdfast.cached(model, foreach=True),
    ):
        loss = sum(weight.sum() for weight in weights(model))
        loss.backward()
        value = weakref.ref(model[0].weight)
        del loss
        assert Doubling().alive() == 1
        assert 1 / (not failing)
    assert value() is None
    assert not Doubling().alive()


def test_a_dropped_model_is_freed_without_the_collector():
    model = sines()
    with holdfast.cached(model, foreach=True):
        weights(model)
    gone = weakref.ref(model), weakref.ref(model[0]), weakref.ref(original(model[0]))
    gc.collect()
    gc.disable()
    try:
        del model
        assert [ref() for ref in gone] == [None] * 3
    finally:
        gc.enable()


# ---- Backward passes ---------------------------------------------------------------


def test_two_losses_on_one_batch_are_differentiated_one_after_the_other():
    model = sines()
    with holdfast.cached(model, foreach=True):
        first, second = model[0].weight.sum(), model[1].weight.square().sum()
        first.backward()
        second.backward()
        assert evaluations() == 1
    X, Y = (original(layer) for layer in model[:2])
    assert_close(X.grad, X.detach().cos())
    assert_close(Y.grad, (2 * Y.detach()).sin())
    assert original(model[2]).grad is None


def test_originals_of_several_places_each_get_their_own_gradient():
    model = nn.Sequential(
        *(holdfast.weight_norm(nn.Linear(4, 3, bias=False)) for _ in range(4))
    ).double()
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) / 3)
    G = torch.randn(4, 3, 4, dtype=torch.float64)
    tensors = [*model.parameters()]

    def gradients(scope, used: list[int]) -> list[Tensor | None]:
        with scope:
            loss = sum((model[i].weight.sin() * G[i]).sum() for i in used)
            first = torch.autograd.grad(
                loss, tensors, create_graph=True, allow_unused=True
            )
            again = sum(g.square().sum() for g in first if g is not None)
            second = torch.autograd.grad(again, tensors, materialize_grads=True)
            return [*first, *second]

    for used in ([0, 1, 2, 3], [2], [1, 3]):
        expected = gradients(holdfast.remember(True), used)  # no scope
        found = gradients(holdfast.cached(model, foreach=True), used)
        assert [g is None for g in found] == [g is None for g in expected]
        assert_close(
            [g for g in found if g is not None], [g for g in expected if g is not None]
        )


def test_one_of_two_originals_may_be_frozen_in_all():
    model = nn.Sequential(
        *(holdfast.weight_norm(nn.Linear(4, 3, bias=False)) for _ in range(4))
    )
    for layer in model:
        layer.parametrizations.weight.original0.requires_grad_(False)
    x = torch.randn(2, 3)
    assert_as_one_by_one(model, lambda m: (x @ m[0].weight).sum() + m[3].weight.sum())


def test_micro_batches_add_up():
    model = sines()
    x = torch.randn(4, 3)

    def loss(model: nn.Module) -> Tensor:
        model(x).sum().backward()
        return model(x).square().sum()

    assert_as_one_by_one(model, loss)


def test_retain_graph_gives_the_gradient_twice():
    model = sines()
    with holdfast.cached(model, foreach=True):
        loss = sum(weight.sum() for weight in weights(model))
        loss.backward(retain_graph=True)
        loss.backward()
    for X in originals(model):
        assert_close(X.grad, 2 * X.detach().cos())


# ---- C1 to C9 ----------------------------------------------------------------------


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_C1_reading_without_gradients_and_then_training(guard):
    model = sines()
    x = torch.randn(4, 3)

    def loss(model: nn.Module) -> Tensor:
        with guard():
            assert not any(weight.requires_grad for weight in weights(model))
        return model(x).square().sum()

    assert_as_one_by_one(model, loss)


@both_checkpoints
def test_C2_checkpoints_inside_the_scope(reentrant):
    model = sines()
    x = torch.randn(4, 3, requires_grad=True)

    def loss(model: nn.Module) -> Tensor:
        inner = checkpoint(model[:3], x, use_reentrant=reentrant)
        return model[3:](inner).square().sum() + model[0].weight.sum()

    assert_as_one_by_one(model, loss)


@both_checkpoints
def test_C2_a_scope_inside_a_checkpoint(reentrant):
    model = sines()
    x = torch.randn(4, 3, requires_grad=True)

    def part(x: Tensor, layers: nn.Module) -> Tensor:
        with holdfast.cached(layers, foreach=True):
            return layers(x) + layers[0].weight.sum()

    def loss(model: nn.Module) -> Tensor:
        return checkpoint(part, x, model, use_reentrant=reentrant).square().sum()

    assert_as_one_by_one(model, loss)


def test_C3_a_change_to_one_weight_costs_the_evaluation_of_one():
    model = sines()
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
        evaluations()
        model[1].weight = torch.full((3, 3), 0.25)
        evaluations()
        values = weights(model)
        assert Counting.calls == [2]
    assert_close(values[1], torch.full((3, 3), 0.25))
    assert_close(values[2], original(model[2]).sin())


def test_C3_an_optimizer_step_is_seen():
    model = sines()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with holdfast.cached(model, foreach=True):
        for _ in range(2):
            sum(weight.sum() for weight in weights(model)).backward()
            optimizer.step()
        assert evaluations() == 2
        assert_close(weights(model), [X.sin() for X in originals(model)])


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.eval(),
        lambda m: m.load_state_dict({k: v / 2 for k, v in m.state_dict().items()}),
        lambda m: m[1].parametrizations.weight.original.data.mul_(2),
        lambda m: holdfast.register_parametrization(m[1], "weight", maps.Skew()),
        lambda m: holdfast.remove_parametrizations(m[1], "weight"),
        lambda m: m.__setitem__(1, sines(1)[0]),
        lambda m: setattr(m[1].parametrizations.weight[0], "forward", torch.cos),
    ],
)
def test_C3_a_change_inside_the_scope_is_seen(change):
    model = sines()
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
        change(model)
        values = weights(model)
    assert_close(values, weights(model))
    with holdfast.cached(model, foreach=True):
        assert_close(weights(model), values)


def test_C3_a_weight_that_lost_its_shape_through_data():
    model = sines()
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
    original(model[1]).data = torch.randn(2, 2)
    original(model[2]).data = original(model[2]).data.double()
    with holdfast.cached(model, foreach=True):
        values = weights(model)
    assert_close(values, [X.sin() for X in originals(model)])


def test_C4_another_thread_sees_nothing_and_a_copy_neither():
    model = sines()
    found = []
    with holdfast.cached(model, foreach=True):
        value = model[0].weight
        twin, shallow = copy.deepcopy(model), copy.copy(model[0])
        for layer in (twin[0], shallow):
            assert layer.weight is not value
        thread = threading.Thread(target=lambda: found.append(model[0].weight))
        thread.start()
        thread.join()
    assert found[0] is not value
    with torch.no_grad():
        original(twin[0]).zero_()
    with holdfast.cached(twin, foreach=True):
        assert not bool(twin[0].weight.any())


def test_a_shallow_copy_in_the_same_model_has_the_values_of_its_own_tensors():
    model = sines(3)
    with holdfast.cached(model, foreach=True):
        _ = weights(model)  # the kinds are known
    twin = copy.copy(model[0])
    twin.parametrizations.weight.original = nn.Parameter(torch.zeros(3, 3))
    model.append(twin)
    with holdfast.cached(model, foreach=True):
        assert not bool(twin.weight.any())
        assert_close(model[0].weight, original(model[0]).sin())


def test_a_model_that_was_in_a_scope_can_be_pickled():
    model = nn.Sequential(*(holdfast.orthogonal(nn.Linear(3, 3)) for _ in range(3)))
    with holdfast.cached(model, foreach=True):
        value = model[0].weight
        twin = pickle.loads(pickle.dumps(model))
    assert_close(twin[0].weight, value)


def test_C5_functional_call_and_vmap_inside_the_scope():
    model = sines()
    x = torch.randn(4, 3)
    given = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    stacks = {name: torch.stack([t, -t]) for name, t in given.items()}
    one = dict(list(given.items())[:1])

    def run(given: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, given, (x,))

    expected = run(given), run(one), torch.func.vmap(run)(stacks)
    gradient = torch.func.grad(lambda g: run(g).sum())(given)
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
        assert_close((run(given), run(one), torch.func.vmap(run)(stacks)), expected)
        assert_close(torch.func.grad(lambda g: run(g).sum())(given), gradient)
        assert_close(weights(model), [X.sin() for X in originals(model)])


def test_C7_a_scope_for_a_part_inside_one_for_all():
    model = sines()
    with holdfast.cached(), holdfast.cached(model[:2], foreach=True):
        _ = weights(model)
        assert sorted(Counting.calls) == [2, 2, 2, 3]
        evaluations()
        _ = weights(model)
        assert not evaluations()


def test_C7_a_scope_for_all_inside_one_for_a_part():
    model, other = sines(), sines()
    with holdfast.cached(model[:2], foreach=False):
        with holdfast.cached(model, other, foreach=True):
            _ = weights(model), weights(other)
        evaluations()
        _ = weights(model[:2])
        assert not evaluations()
        _ = weights(model[2:])
        assert evaluations() == 3


def test_C8_what_is_remembered_is_not_computed_again():
    model = sines()
    with torch.no_grad():
        _ = weights(model)
        evaluations()
        with holdfast.cached(model, foreach=True):
            _ = weights(model)
        assert not evaluations()


def test_C9_a_compiled_model_inside_the_scope_compiles_once():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    for layer in model:
        holdfast.register_parametrization(layer, "weight", maps.Skew())
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled, x = torch.compile(model, backend=count, fullgraph=True), torch.ones(2, 3)
    expected = model(x)
    for _ in range(2):
        assert_close(compiled(x), expected)
        with holdfast.cached(model, foreach=True):
            assert_close(compiled(x), expected)
    assert len(graphs) == 1


def test_autocast_is_part_of_what_a_value_was_computed_under():
    model = sines()
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _ = weights(model)
    assert evaluations() == 2


# ---- State that moves --------------------------------------------------------------


def spectral(count: int = 4, make=maps.SpectralNorm) -> nn.Sequential:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(count)))
    for layer in model:
        holdfast.register_parametrization(layer, "weight", make())
    for X in originals(model):
        X.data.add_(torch.randn_like(X))  # the vectors have a way to go
    return model


def pair(make=maps.SpectralNorm) -> tuple[nn.Sequential, nn.Sequential]:
    model = spectral(make=make)
    return model, copy.deepcopy(model)


def assert_same_state(model: nn.Module, twin: nn.Module) -> None:
    assert_close(list(model.buffers()), list(twin.buffers()))


@pytest.mark.parametrize(
    "make",
    [
        maps.SpectralNorm,
        maps.SigmaReparam,
        lambda: maps.Chain(maps.Symmetric(), maps.SpectralNorm()),
        lambda: maps.Concatenated(maps.SigmaReparam(), maps.SpectralNorm()),
    ],
)
@pytest.mark.parametrize("forwards", [1, 2, 3])
def test_moving_state_advances_as_one_by_one(forwards, make):
    model, twin = pair(make)
    x = torch.randn(2, 4)
    with holdfast.cached(model, foreach=True):
        outputs = [model(x) for _ in range(forwards)]
        assert batched(model[0].weight, model[3].weight)
        sum(outputs).sum().backward()
    expected = [twin(x) for _ in range(forwards)]
    sum(expected).sum().backward()
    assert_same_state(model, twin)
    assert_close(outputs, expected)
    gradients = [[p.grad for p in m.parameters()] for m in (model, twin)]
    assert_close(*gradients)


def test_state_is_advanced_once_for_all():
    model = spectral()
    before = [b.clone() for b in model.buffers()]
    with holdfast.cached(model, foreach=True):
        model[0](torch.randn(2, 4))
        moved = [
            not torch.equal(b, c) for b, c in zip(model.buffers(), before, strict=True)
        ]
        assert all(moved)


def test_state_of_what_does_not_run_is_put_back():
    model, twin = pair()
    x = torch.randn(2, 4)
    with holdfast.cached(model, foreach=True):
        model[0](x)
        model[0](x)
        model[2](x)
    for layer in (twin[0], twin[0], twin[2]):
        layer(x)
    assert_same_state(model, twin)


@both_checkpoints
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("which", [(0, 2), (1, 3), (1,), (0, 1, 2, 3)])
def test_state_advances_as_one_by_one_where_some_layers_are_checkpointed(
    which, times, reentrant
):
    model, twin = (m.double() for m in pair())
    x = torch.randn(2, 4, dtype=torch.float64)

    def loss(model: nn.Module) -> Tensor:
        y = x.clone().requires_grad_()
        for _ in range(times):
            for i, layer in enumerate(model):
                if i in which:
                    y = checkpoint(layer, y, use_reentrant=reentrant)
                else:
                    y = layer(y)
        return y.square().sum()

    for _ in range(2):
        with holdfast.cached(model, foreach=True):
            loss(model).backward()
        loss(twin).backward()
    assert_same_state(model, twin)  # to rounding: batches sum in another order
    assert_close(*([p.grad for p in m.parameters()] for m in (model, twin)))


def test_a_layer_that_is_evaluated_meanwhile_has_the_state_of_its_last_forward():
    model, twin = pair()
    x = torch.randn(2, 4)
    twin[0](x)
    with holdfast.cached(model, foreach=True):
        model[0](x)
        assert_close(model.eval()(x), twin.eval()(x))
    assert_same_state(model, twin)


def test_state_advanced_before_a_step_is_advanced_anew_after_it():
    model, twin = pair()
    x = torch.randn(2, 4)

    def run(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model[0](x)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        model(x)

    with holdfast.cached(model, foreach=True):
        run(model)
    run(twin)
    assert_same_state(model, twin)


def test_an_assigned_weight_keeps_the_state_that_it_came_with():
    model, twin = pair()
    x, W = torch.randn(2, 4), torch.randn(4, 4)

    def run(model: nn.Module) -> None:
        model[0](x)
        torch.manual_seed(0)
        model[1].weight = W
        model(x)

    with holdfast.cached(model, foreach=True):
        run(model)
    run(twin)
    assert_same_state(model, twin)


def test_no_state_moves_in_evaluation_or_on_a_read():
    model, twin = pair()
    with holdfast.cached(model, foreach=True):
        _ = weights(model)
        model.eval()
        model(torch.randn(2, 4))
    assert_same_state(model, twin)


@pytest.mark.parametrize(
    "make",
    [
        lambda: maps.PerBlock(maps.Orthogonal(), 2),
        lambda: maps.Concatenated(maps.Orthogonal(), maps.Symmetric(), sizes=(3, 3)),
        lambda: maps.Transposed(maps.LowRank(2)),
        lambda: maps.Normalize(dim=0),
        lambda: maps.Cast(maps.ClipNorm(dim=(0, 1)), torch.float64),
        lambda: maps.WeightNorm(dim=1),
        lambda: maps.WeightNorm(dim=None),
    ],
)
def test_dimensions_that_count_from_the_front_are_those_of_one_weight(make):
    net = nn.Sequential(*(nn.Linear(3, 6, bias=False) for _ in range(3)))
    for layer in net:
        holdfast.register_parametrization(layer, "weight", make())
    expected = weights(net)
    with holdfast.cached(net, foreach=True):
        values = weights(net)
    assert batched(values[0], values[2])
    assert_close(values, expected)


def test_A10_a_disabled_link_stays_disabled_among_others_of_its_kind():
    net = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(6))
    for layer in net:
        holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    original = net[2].parametrizations.weight.original
    with holdfast.disabled(net[2], "weight", 0), holdfast.cached(net, foreach=True):
        values = [layer.weight for layer in net]
        assert torch.equal(values[2], original)
        assert torch.equal(values[1], values[1].T)
    with holdfast.cached(net, foreach=True):
        assert torch.equal(net[2].weight, net[2].weight.T)
