"""Reading a weight: R1 to R4."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_recipes
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import holdfast
from support import Sine, Traced, evaluations, links, told, with_sine

# torch itself says so, once in a process, about layers with projections.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

# ---- R1: errors keep their type ---------------------------------------------------


class PickyError(Exception):
    """Cannot be made again from its message alone."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)


class Broken(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.armed = False

    def forward(self, X: Tensor) -> Tensor:
        if self.armed:
            self.fall_over()
        return X

    def fall_over(self) -> None:
        raise copy.copy(self.error)


ERRORS = {
    "attribute": AttributeError("no such dial"),
    "key": KeyError("dial"),
    "value": ValueError("bad dial"),
    "runtime": RuntimeError("stuck dial"),
    "own": PickyError(3, "dial"),
}


def broken_model(kind: str, register: Callable[..., nn.Module]) -> nn.Module:
    layer = nn.Linear(3, 3)
    link = Broken(ERRORS[kind])
    register(layer, "weight", link)
    link.armed = True
    return nn.Sequential(OrderedDict(encoder=nn.Sequential(nn.ReLU(), layer)))


@pytest.mark.parametrize("kind", list(ERRORS))
def test_R1_an_error_in_a_map_surfaces_as_itself(kind: str) -> None:
    model = broken_model(kind, holdfast.register_parametrization)
    for read in (lambda: model.encoder[1].weight, lambda: model(torch.ones(2, 3))):
        with pytest.raises(type(ERRORS[kind])) as caught:
            read()
        assert type(caught.value) is type(ERRORS[kind])
        assert caught.value.args == ERRORS[kind].args
        frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert frames[-1] == "fall_over"
        assert "encoder.1.weight" in told(caught.value)
        assert "no attribute 'weight'" not in told(caught.value)


def test_R1_a_missing_attribute_of_a_map_is_named() -> None:
    class Forgetful(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X * self.factor

    layer = nn.Linear(3, 3)
    link = Forgetful()
    link.factor = 2.0
    holdfast.register_parametrization(layer, "weight", link)
    del link.factor
    with pytest.raises(AttributeError, match="'Forgetful'.*'factor'"):
        _ = layer.weight


def test_R1_the_path_is_told_once() -> None:
    for kind in ("value", "attribute"):
        model = broken_model(kind, holdfast.register_parametrization)
        with pytest.raises(type(ERRORS[kind]), match="dial") as caught:
            model(torch.ones(2, 3))
        assert told(caught.value).count("encoder.1.weight") == 1


def test_R1_an_error_that_would_not_come_again_is_raised_all_the_same() -> None:
    class Shy(nn.Module):
        failures = 0

        def forward(self, X: Tensor) -> Tensor:
            if self.failures:
                self.failures -= 1
                raise AttributeError("not yet")
            return X

    layer = nn.Linear(3, 3)
    link = Shy()
    holdfast.register_parametrization(layer, "weight", link)
    link.failures = 1
    with pytest.raises(AttributeError, match="not yet"):
        _ = layer.weight
    assert layer.weight.shape == (3, 3)


def test_R1_a_truly_missing_attribute_is_still_missing() -> None:
    layer = with_sine(nn.Linear(3, 3))
    assert not hasattr(layer, "wieght")
    with pytest.raises(AttributeError, match="no attribute 'wieght'"):
        _ = layer.wieght
    assert evaluations(layer) <= 1  # the one of the registration


def test_R1_control_torch_masks_an_attribute_error() -> None:
    model = broken_model("attribute", torch_parametrize.register_parametrization)
    with pytest.raises(AttributeError, match="no attribute 'weight'") as caught:
        _ = model.encoder[1].weight
    assert "encoder.1.weight" not in told(caught.value)


# ---- R2: reading changes nothing --------------------------------------------------


class Moving(holdfast.Parametrization):
    """Counts how often its state was told to advance."""

    moves = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        return X.sin()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.asin()

    def refine_(self, *originals: Tensor) -> None:
        self.count.add_(1.0)


class Twice(nn.Module):
    """Reads its weight twice in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3) / 4)
        self.read: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.read = [self.weight, self.weight]
        return x @ self.read[0] @ self.read[1]


def moving(module: nn.Module) -> tuple[nn.Module, Tensor]:
    holdfast.register_parametrization(module, "weight", Moving())
    module.parametrizations.weight[0].count.zero_()
    return module, module.parametrizations.weight[0].count


def iterates(module: nn.Module) -> list[Tensor]:
    link = module.parametrizations.weight[0]
    return [link._u.clone(), link._v.clone()]


def look_around(layer: nn.Module) -> None:
    _ = layer.weight.shape
    _ = f"{layer} {layer.weight} norm {layer.weight.norm():.2f}"
    _ = layer.state_dict(), list(layer.named_parameters()), layer.weight.dtype
    with torch.no_grad():
        _ = layer.weight
    layer.weight.sum().backward()


def test_R2_reads_do_not_advance_the_power_iteration() -> None:
    layer = holdfast.spectral_norm(nn.Linear(6, 4))
    before, value = iterates(layer), layer.weight.detach().clone()
    look_around(layer)
    assert_close(iterates(layer), before, atol=0, rtol=0)
    assert_close(layer.weight.detach(), value, atol=0, rtol=0)


def test_R2_control_torch_advances_at_every_read() -> None:
    layer = torch_recipes.spectral_norm(nn.Linear(6, 4))
    with torch.no_grad():  # a new direction, so that an iteration shows
        layer.parametrizations.weight.original.copy_(torch.randn(4, 6))
    before = iterates(layer)
    look_around(layer)
    assert torch.dist(iterates(layer)[0], before[0]) > 1e-3


def test_R2_one_training_forward_advances_once() -> None:
    layer, count = moving(nn.Linear(3, 3))
    x = torch.randn(2, 3)
    look_around(layer)
    assert count == 0
    layer(x).sum().backward()
    assert count == 1
    with torch.no_grad():
        layer(x)
    assert count == 2
    layer.eval()
    layer(x)
    assert count == 2
    nn.Sequential(nn.ReLU(), layer.train())(x)
    assert count == 3


def test_R2_two_reads_in_one_forward_are_one_advance() -> None:
    module, count = moving(Twice())
    module(torch.randn(2, 3))
    assert count == 1
    assert_close(module.read[0], module.read[1], atol=0, rtol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_R2_recomputation_does_not_advance(reentrant: bool) -> None:
    layer, count = moving(nn.Linear(3, 3))
    x = torch.randn(2, 3, requires_grad=True)
    for step in (1, 2):
        out = checkpoint(layer, x, use_reentrant=reentrant)
        assert count == step
        out.square().sum().backward()
        assert count == step


@pytest.mark.parametrize("reentrant", [True, False])
def test_R2_checkpointing_changes_no_number(reentrant: bool) -> None:
    plain = nn.Sequential(
        holdfast.spectral_norm(nn.Linear(4, 4)),
        nn.Tanh(),
        holdfast.spectral_norm(nn.Linear(4, 4)),
    )
    saving = copy.deepcopy(plain)
    x = torch.randn(5, 4, requires_grad=True)
    for _ in range(3):
        losses = [plain(x), checkpoint(saving, x, use_reentrant=reentrant)]
        for model, loss in zip((plain, saving), losses, strict=True):
            model.zero_grad()
            loss.square().sum().backward()
            torch.optim.SGD(model.parameters(), lr=0.5).step()
    assert_close(saving.state_dict(), plain.state_dict(), atol=0, rtol=0)


def test_R2_control_torch_advances_in_a_recomputation() -> None:
    layer = torch_recipes.spectral_norm(nn.Linear(6, 4))
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.randn(4, 6))
    x = torch.randn(2, 6, requires_grad=True)
    out = checkpoint(layer, x, use_reentrant=True)
    before = iterates(layer)
    out.sum().backward()
    assert torch.dist(iterates(layer)[0], before[0]) > 1e-3


@pytest.mark.parametrize("host", [lambda: nn.Linear(6, 4), lambda: nn.Conv1d(6, 4, 2)])
def test_R2_training_goes_as_in_torch(host: Callable[[], nn.Module]) -> None:
    ours, theirs = host(), host()
    theirs.load_state_dict(ours.state_dict())
    holdfast.spectral_norm(ours)
    torch_recipes.spectral_norm(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 6, 6) if isinstance(ours, nn.Conv1d) else torch.randn(5, 6)
    for _ in range(4):
        outputs = [module(x) for module in (ours, theirs)]
        assert_close(*outputs)
        for module, out in zip((ours, theirs), outputs, strict=True):
            module.zero_grad()
            out.square().mean().backward()
            torch.optim.SGD(module.parameters(), lr=0.5).step()
    assert_close(ours.state_dict(), theirs.state_dict())


def test_R2_a_copy_advances_by_itself() -> None:
    layer, count = moving(nn.Linear(3, 3))
    twin = copy.deepcopy(layer)
    twin(torch.randn(2, 3))
    assert count == 0
    assert twin.parametrizations.weight[0].count == 1


def train_attention(attention: nn.MultiheadAttention, steps: int) -> None:
    """Turn the output projection towards new singular vectors, step by step."""
    original = attention.out_proj.parametrizations.weight.original
    target = torch.randn(8, 8)
    x = torch.randn(3, 2, 8)
    for _ in range(steps):
        attention.zero_grad()
        attention(x, x, x)[0].sum().backward()
        assert original.grad is not None
        original.grad = original.detach() - target  # a known, growing change
        torch.optim.SGD([original], lr=0.1).step()


def test_R2_a_host_whose_forward_is_never_called_stays_fresh() -> None:
    attention = nn.MultiheadAttention(8, 2)
    holdfast.spectral_norm(attention.out_proj)
    u, v = iterates(attention.out_proj)
    train_attention(attention, 60)
    one = torch.tensor(1.0)
    sigma = torch.linalg.matrix_norm(attention.out_proj.weight.detach(), 2)
    assert_close(sigma, one, atol=0.05, rtol=0)
    # Control: with the vectors of the beginning the norm is far from one.
    X = attention.out_proj.parametrizations.weight.original.detach()
    stale = torch.linalg.matrix_norm(X, 2) / (u @ X @ v)
    assert abs(stale - one) > 0.2


def test_R2_such_a_host_advances_once_per_step_and_not_in_evaluation() -> None:
    attention = nn.MultiheadAttention(8, 2)
    _, count = moving(attention.out_proj)
    x = torch.randn(3, 2, 8)
    for step in range(1, 6):
        attention(x, x, x)[0].sum().backward()
        look_around(attention.out_proj)
        # It cannot be known at once that the forward of this host is never called.
        assert step - 2 <= count <= step
        torch.optim.SGD(attention.parameters(), lr=0.1).step()
    before = count.clone()
    attention.eval()
    attention(x, x, x)
    look_around(attention.out_proj)
    assert count == before


# ---- R3: recurrent layers ---------------------------------------------------------

RNNS: dict[str, Callable[[], nn.RNNBase]] = {
    "rnn": lambda: nn.RNN(3, 4),
    "relu": lambda: nn.RNN(3, 4, nonlinearity="relu", bias=False),
    "gru": lambda: nn.GRU(3, 4, batch_first=True),
    "lstm": lambda: nn.LSTM(3, 4),
    "two layers": lambda: nn.LSTM(3, 4, num_layers=2),
    "bidirectional": lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(3, 4, proj_size=2, bidirectional=True),
}
every_rnn = pytest.mark.parametrize("kind", list(RNNS))


def tensors(rnn: nn.RNNBase) -> list[str]:
    return [name for name, _ in rnn.named_parameters()]


def trio(kind: str) -> tuple[nn.RNNBase, nn.RNNBase, nn.RNNBase]:
    """Return the same recurrent layer: ours, torch's, and plain."""
    ours = RNNS[kind]()
    theirs, plain = copy.deepcopy(ours), copy.deepcopy(ours)
    for name in tensors(plain):
        holdfast.register_parametrization(ours, name, Sine())
        torch_parametrize.register_parametrization(theirs, name, Sine())
    for link in links(ours):
        link.calls.clear()
    return ours, theirs, plain


def counts(rnn: nn.RNNBase) -> list[int]:
    names = list(rnn.parametrizations)
    return [evaluations(rnn, name) for name in names]


@every_rnn
def test_R3_each_weight_is_read_once_per_forward(kind: str) -> None:
    ours, _, plain = trio(kind)
    once = [1] * len(tensors(plain))
    x = torch.randn(5, 2, 3)
    for call in (ours, ours, ours.forward):
        call(x)
        assert counts(ours) == once
    ours.eval()(x)
    assert counts(ours) == once
    with torch.no_grad():
        ours(x)
    assert counts(ours) == once
    ours(nn.utils.rnn.pack_sequence([x[:, 0], x[:3, 1]]))
    assert counts(ours) == once


def test_R3_control_torch_reads_more_than_once() -> None:
    _, theirs, _ = trio("lstm")
    counts(theirs)
    theirs(torch.randn(5, 2, 3))
    assert max(counts(theirs)) > 1


@every_rnn
def test_R3_outputs_and_gradients_are_torchs_and_the_plain_ones(kind: str) -> None:
    trained = trio(kind)
    x = torch.randn(5, 2, 3)
    for _ in range(3):
        outputs = [rnn(x)[0] for rnn in trained]
        assert_close(outputs[0], outputs[1])
        for rnn, out in zip(trained, outputs, strict=True):
            rnn.zero_grad()
            out.square().sum().backward()
        ours, theirs, plain = trained
        for name in tensors(plain):
            original = ours.parametrizations[name].original
            assert_close(original.grad, theirs.parametrizations[name].original.grad)
            # By the chain rule from the plain layer with the same value.
            assert_close(original.grad, getattr(plain, name).grad * original.cos())
        for rnn in (ours, theirs):
            torch.optim.SGD(rnn.parameters(), lr=0.1).step()
        with torch.no_grad():
            for name in tensors(plain):
                getattr(plain, name).copy_(getattr(ours, name))
        assert_close(ours.eval()(x)[0], plain.eval()(x)[0])
        ours.train()


@every_rnn
def test_R3_a_forward_leaves_a_layer_that_can_be_copied(kind: str) -> None:
    ours, _, _ = trio(kind)
    x = torch.randn(5, 2, 3)
    expected = ours(x)[0]
    twin = copy.deepcopy(ours)
    assert_close(twin(x)[0], expected, atol=0, rtol=0)
    twin(x)[0].sum().backward()
    torch.optim.SGD(twin.parameters(), lr=0.5).step()
    assert torch.dist(twin(x)[0], expected) > 1e-3
    assert_close(ours(x)[0], expected, atol=0, rtol=0)
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_R3_control_torch_cannot_copy_after_a_forward() -> None:
    _, theirs, _ = trio("lstm")
    theirs(torch.randn(5, 2, 3))
    with pytest.raises(RuntimeError, match="created explicitly by the user"):
        copy.deepcopy(theirs)


def graphs_left(rnn: nn.RNNBase, register: Callable[..., nn.Module]) -> list[int]:
    """Return how many graphs live: after registering, with an output, without it."""
    link = Traced()
    register(rnn, "weight_hh_l0", link)
    gc.collect()
    lives = [link.alive()]
    out = rnn(torch.randn(5, 2, 3))[0]
    lives.append(link.alive())
    out.sum().backward()
    del out
    gc.collect()
    return [*lives, link.alive()]


@every_rnn
def test_R3_no_graph_is_held_between_steps(kind: str) -> None:
    before, during, after = graphs_left(RNNS[kind](), holdfast.register_parametrization)
    assert (before, after) == (0, 0)
    assert during == 1


def test_R3_control_torch_holds_a_graph() -> None:
    left = graphs_left(nn.LSTM(3, 4), torch_parametrize.register_parametrization)
    assert left[-1] > 0


@every_rnn
def test_R3_functional_call_reaches_the_flat_weights(kind: str) -> None:
    ours, _, _ = trio(kind)
    x = torch.randn(5, 2, 3)
    before = ours(x)[0]
    other = copy.deepcopy(ours)
    given = {
        name: torch.randn_like(parameter, requires_grad=True)
        for name, parameter in ours.named_parameters()
    }
    other.load_state_dict({k: v.detach() for k, v in given.items()})
    out = torch.func.functional_call(ours, given, (x,))[0]
    assert_close(out, other(x)[0])
    out.sum().backward()
    assert all(tensor.grad is not None for tensor in given.values())
    assert all(parameter.grad is None for parameter in ours.parameters())
    assert_close(ours(x)[0], before, atol=0, rtol=0)


def test_R3_assignment_and_removal_reach_the_flat_weights() -> None:
    rnn = with_sine(nn.LSTM(3, 4), "weight_hh_l0")
    plain = nn.LSTM(3, 4)
    plain.load_state_dict(
        {name: getattr(rnn, name).detach() for name in tensors(plain)}
    )
    x = torch.randn(5, 2, 3)
    value = torch.randn(16, 4) / 8
    rnn.weight_hh_l0 = value
    with torch.no_grad():
        plain.weight_hh_l0.copy_(value)
    assert_close(rnn(x), plain(x))
    holdfast.remove_parametrizations(rnn, "weight_hh_l0")
    assert_close(rnn(x), plain(x))
    rnn(x)[0].sum().backward()
    torch.optim.SGD(rnn.parameters(), lr=0.5).step()
    plain.load_state_dict(rnn.state_dict())
    assert_close(rnn(x), plain(x), atol=0, rtol=0)


def test_R3_a_scope_serves_the_flat_weights() -> None:
    ours, _, plain = trio("two layers")
    x = torch.randn(5, 2, 3)
    with holdfast.cached():
        out = ours(x)[0] + ours(2 * x)[0]
    assert counts(ours) == [1] * len(tensors(plain))
    assert_close(out, ours(x)[0] + ours(2 * x)[0])


def test_R3_moving_to_another_dtype_keeps_the_layer_working() -> None:
    rnn = with_sine(nn.LSTM(3, 4), "weight_hh_l0")
    x = torch.randn(5, 2, 3)
    expected = rnn(x)[0]
    rnn.double()
    assert_close(rnn(x.double())[0].float(), expected)
    assert_close(rnn.float()(x)[0], expected)


@pytest.mark.cuda
@every_rnn
def test_R3_the_fused_kernels_give_the_same(kind: str) -> None:
    ours, _, _ = trio(kind)
    x = torch.randn(5, 2, 3)
    expected = ours(x)[0]
    assert_close(ours.cuda()(x.cuda())[0].cpu(), expected, atol=1e-4, rtol=1e-4)


# ---- R4: a hit is a hit, and still checked ----------------------------------------
# How long a read takes is measured by the benchmarks.


def test_R3_several_threads_serve_one_layer() -> None:
    rnn = holdfast.orthogonal(nn.LSTM(8, 8), "weight_hh_l0").eval()
    x = torch.randn(6, 2, 8)
    with torch.no_grad():
        expected = rnn(x)[0]
    wrong: list[object] = []

    def serve() -> None:
        with torch.no_grad():
            for _ in range(50):
                try:
                    if not torch.equal(rnn(x)[0], expected):
                        wrong.append("other numbers")
                except Exception as error:
                    wrong.append(error)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_R3_torchs_removal_after_pickling_leaves_a_working_layer() -> None:
    rnn = holdfast.register_parametrization(nn.LSTM(3, 3), "weight_hh_l0", Sine())
    rnn = pickle.loads(pickle.dumps(rnn))
    torch_parametrize.remove_parametrizations(rnn, "weight_hh_l0")
    assert rnn(torch.randn(2, 1, 3))[0].shape == (2, 1, 3)


# ---- Hooks on the chain -----------------------------------------------------------


def test_hooks_on_the_chain_run_at_every_read_as_in_torch() -> None:
    for library in (holdfast, torch_parametrize):
        layer = nn.Linear(3, 3)
        library.register_parametrization(layer, "weight", nn.Tanh())
        chain, fired = layer.parametrizations.weight, []
        value = layer.weight.detach()
        handle = chain.register_forward_hook(lambda *_, seen=fired: seen.append(1))
        assert_close(layer.weight, value)
        with torch.no_grad():
            _ = layer.weight
        assert len(fired) == 2
        handle.remove()
        other = chain.register_forward_hook(lambda _, __, out: 2 * out)
        assert_close(layer.weight, 2 * value)
        other.remove()
        with library.cached():
            assert layer.weight is layer.weight
        assert len(fired) == 2


def test_R4_a_hit_evaluates_nothing() -> None:
    layer = with_sine(nn.Linear(3, 3))
    evaluations(layer)
    with holdfast.cached():
        first = layer.weight
        assert all(layer.weight is first for _ in range(5))
    assert evaluations(layer) == 1


def set_original(layer: nn.Module) -> None:
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(2.0)


def give_original(layer: nn.Module) -> None:
    chain = layer.parametrizations.weight
    chain.original = nn.Parameter(torch.ones(3, 3))


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "version of the original": set_original,
    "identity of the original": give_original,
    "version of the state": lambda layer: layer.parametrizations.weight[0].a.add_(1.0),
    "identity of the state": lambda layer: setattr(
        layer.parametrizations.weight[0], "a", torch.tensor(9.0)
    ),
    "training flag": lambda layer: layer.eval(),
    "training flag of a map": lambda layer: layer.parametrizations.weight[0].eval(),
    "chain": lambda layer: layer.parametrizations.weight.append(nn.Tanh()),
}


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.tensor(1.0))

    def forward(self, X: Tensor) -> Tensor:
        return X.sin() + self.a * (2.0 if self.training else 3.0)


@pytest.mark.parametrize("change", list(CHANGES))
def test_R4_every_check_is_made_on_a_hit(change: str) -> None:
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Affine())
    with holdfast.cached():
        before = layer.weight
        assert layer.weight is before
        CHANGES[change](layer)
        after = layer.weight
        assert after is not before
        assert layer.weight is after
    assert_close(after, layer.weight, atol=0, rtol=0)
    assert torch.dist(after, before) > 1e-3


def test_R4_modes_are_checked_on_a_hit() -> None:
    layer = with_sine(nn.Linear(3, 3))
    with holdfast.cached():
        before = layer.weight
        with torch.no_grad():
            assert not layer.weight.requires_grad
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.weight is not before
        assert layer.weight.requires_grad
