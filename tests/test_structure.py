"""Classes, copies and saving: I1 to I4."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import multiprocessing
import pickle
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations as torch_recipes
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close

import holdfast
from support import Gain, Halves, OneWay, Symmetric, bits, state_of


def linear(*maps: nn.Module, name: str = "weight") -> nn.Linear:
    layer = nn.Linear(3, 3)
    for link in maps:
        holdfast.register_parametrization(layer, name, link)
    return layer


class Block(nn.Module):
    """A user's own module with a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3, 3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.linear(x), self.matrix).relu()


def block() -> Block:
    made = Block()
    holdfast.register_parametrization(made, "matrix", Symmetric())
    holdfast.register_parametrization(made.linear, "weight", Symmetric())
    return made


# ---- I1: one class for all instances -----------------------------------------------


def test_I1_layers_with_the_same_tensors_share_one_class():
    one, other = linear(Symmetric()), linear(Gain(), OneWay())
    assert type(one) is type(other)
    assert type(holdfast.orthogonal(nn.Linear(5, 2))) is type(one)
    by_bias = linear(OneWay(), name="bias")
    assert type(by_bias) is not type(one)
    assert type(holdfast.orthogonal(nn.Bilinear(2, 2, 2))) is not type(one)


def test_I1_the_class_depends_on_the_set_of_names_not_on_their_order():
    first, second = linear(OneWay()), linear(OneWay(), name="bias")
    alone = type(first)
    holdfast.register_parametrization(first, "bias", OneWay())
    holdfast.register_parametrization(second, "weight", OneWay())
    assert type(first) is type(second)
    assert type(first) is not alone
    holdfast.remove_parametrizations(first, "bias")
    assert type(first) is alone
    holdfast.remove_parametrizations(first, "weight")
    assert type(first) is nn.Linear


def test_I1_the_class_is_named_after_the_original_which_is_its_only_base():
    layer, users = linear(Symmetric()), block()
    assert type(layer).__name__ == "ParametrizedLinear"
    assert type(layer).__bases__ == (nn.Linear,)
    assert type(users).__name__ == "ParametrizedBlock"
    assert type(users).__bases__ == (Block,)
    holdfast.register_parametrization(layer, "bias", OneWay())
    assert type(layer).__name__ == "ParametrizedLinear"
    assert type(layer).__bases__ == (nn.Linear,)


def test_I1_the_module_of_the_class_is_torchs_for_torchs_and_the_users_for_a_users():
    layer = linear(Symmetric())
    assert str(type(layer)) == (
        "<class 'torch.nn.utils.parametrize.ParametrizedLinear'>"
    )
    attention = nn.MultiheadAttention(2, 1)
    holdfast.register_parametrization(attention, "in_proj_weight", OneWay())
    assert type(attention).__module__ == "torch.nn.utils.parametrize"
    assert type(block()).__module__ == Block.__module__ == __name__


def test_I1_the_shared_class_holds_nothing_of_an_instance():
    one, other = linear(Gain()), linear(Gain())
    assert_close(one(torch.eye(3)), one.weight.mT + one.bias)
    things = [weakref.ref(one), weakref.ref(one.parametrizations.weight[0])]
    with collection_off():
        del one
        assert [thing() for thing in things] == [None, None]
    assert type(other).__name__ == "ParametrizedLinear"


RECIPES = {
    "user-written": lambda: linear(Symmetric()),
    "stateful": lambda: linear(Gain()),
    "orthogonal": lambda: holdfast.orthogonal(nn.Linear(3, 3)),
    "thin": lambda: holdfast.orthogonal(nn.Linear(3, 5)),
    "cayley": lambda: holdfast.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley"),
    "weight_norm": lambda: holdfast.weight_norm(nn.Linear(3, 3)),
    "spectral_norm": lambda: holdfast.spectral_norm(nn.Linear(3, 3)),
}


def graphs_of(blocks: list[nn.Module]) -> int:
    """Compile each block for itself; return the number of graphs compiled."""
    graphs: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    x = torch.randn(2, 3)
    for part in blocks:
        compiled = torch.compile(part, backend=backend, fullgraph=True)
        assert_close(compiled(x), part(x))
    torch._dynamo.reset()
    return len(graphs)


@pytest.mark.parametrize("recipe", ["user-written", "orthogonal", "weight_norm"])
def test_I1_twelve_equal_blocks_compile_once(recipe):
    assert graphs_of([RECIPES[recipe]().eval() for _ in range(12)]) == 1


def test_I1_twelve_equal_users_blocks_compile_once():
    assert graphs_of([block() for _ in range(12)]) == 1


@pytest.mark.parametrize("recipe", ["spectral_norm", "stateful"])
def test_I1_equal_blocks_in_training_compile_once(recipe):
    blocks = [RECIPES[recipe]() for _ in range(3)]
    for part in blocks:  # what a first call sets up is not what is counted
        part(torch.randn(2, 3))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for part in blocks:
        torch.compile(part, backend=backend)(torch.randn(2, 3))
    counted = len(graphs)
    torch._dynamo.reset()
    torch.compile(blocks[0], backend=backend)(torch.randn(2, 3))
    assert counted == len(graphs) - counted, "as many as for one block alone"
    torch._dynamo.reset()


def test_I1_negative_control_torch_compiles_every_block():
    blocks = [nn.Linear(3, 3) for _ in range(3)]
    for layer in blocks:
        torch_parametrize.register_parametrization(layer, "weight", Symmetric())
    assert graphs_of(blocks) == 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_I1_separately_parametrized_layers_stack(recipe):
    layers = [RECIPES[recipe]().eval() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers)
    assert any(name.startswith("parametrizations.weight.") for name in parameters)

    def call(parameters, buffers, x):
        return torch.func.functional_call(layers[0], (parameters, buffers), (x,))

    x = torch.randn(3, 2, 3)
    stacked = torch.vmap(call)(parameters, buffers, x)
    alone = torch.stack([layer(y) for layer, y in zip(layers, x, strict=True)])
    assert_close(stacked, alone)


def test_I1_negative_control_torchs_layers_do_not_stack():
    layers = [torch_recipes.weight_norm(nn.Linear(3, 3)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="same class"):
        torch.func.stack_module_state(layers)


def test_I1_fx_takes_torchs_parametrized_layers_as_leaves():
    model = nn.Sequential(linear(Symmetric()), nn.ReLU(), RECIPES["orthogonal"]())
    traced = fx.symbolic_trace(model)
    nodes = [(node.op, node.target) for node in traced.graph.nodes]
    assert nodes == [
        ("placeholder", "input"),
        ("call_module", "0"),
        ("call_module", "1"),
        ("call_module", "2"),
        ("output", "output"),
    ]
    x = torch.randn(2, 3)
    assert_close(traced(x), model(x))


def test_I1_fx_looks_inside_a_users_parametrized_block():
    model = nn.Sequential(block())
    traced = fx.symbolic_trace(model)
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert calls == ["0.linear"]
    functions = [n.target for n in traced.graph.nodes if n.op == "call_function"]
    assert F.linear in functions
    x = torch.randn(2, 3)
    assert_close(traced(x), model(x))


# ---- I2: copies --------------------------------------------------------------------


def through_file(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def through_old_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module, protocol=2))


DEEP = {
    "deepcopy": copy.deepcopy,
    "pickle": through_pickle,
    "protocol 2": through_old_pickle,
    "torch.save": through_file,
}
COPIES = {"copy": copy.copy, **DEEP}
LAYERS = {
    **RECIPES,
    "chain": lambda: linear(Symmetric(), Gain()),
    "several originals": lambda: linear(Halves()),
    "one way": lambda: linear(OneWay()),
    "built-in": lambda: linear(holdfast.maps.Symmetric()),
    "users block": block,
}


def tensor_name(module: nn.Module) -> str:
    return next(iter(module.parametrizations))


def value_of(module: nn.Module) -> Tensor:
    return getattr(module, tensor_name(module))


@contextlib.contextmanager
def collection_off() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", LAYERS)
def test_I2_a_copy_is_the_same_thing(kind, how):
    layer = LAYERS[kind]().eval()
    twin = COPIES[how](layer)
    assert twin is not layer
    assert type(twin) is type(layer)
    assert repr(twin) == repr(layer)
    assert [*twin.state_dict()] == [*layer.state_dict()]
    assert_close(value_of(twin), value_of(layer), rtol=0, atol=0)
    x = torch.randn(2, 3)
    assert_close(twin(x), layer(x), rtol=0, atol=0)
    assert holdfast.type_before_parametrizations(twin) is type(layer).__bases__[0]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("leave", [True, False])
def test_I2_changing_a_copy_never_touches_the_original(kind, how, leave):
    layer = LAYERS[kind]().eval()
    before, value = state_of(layer), value_of(layer).detach().clone()
    name = tensor_name(layer)

    twin = COPIES[how](layer)
    holdfast.register_parametrization(twin, name, OneWay())
    assert len(twin.parametrizations[name]) == len(layer.parametrizations[name]) + 1
    assert_close(value_of(twin), value.tanh())
    assert state_of(layer) == before

    twin = COPIES[how](layer)
    if hasattr(twin, "bias"):
        holdfast.register_parametrization(twin, "bias", OneWay())
        assert state_of(layer) == before

    layer = LAYERS[kind]().eval()
    before, value = state_of(layer), value_of(layer).detach().clone()
    twin = COPIES[how](layer)
    if leave or twin.parametrizations[name].is_tensor:
        holdfast.remove_parametrizations(twin, name, leave_parametrized=leave)
        assert type(twin) is holdfast.type_before_parametrizations(layer)
        assert holdfast.is_parametrized(layer, name)
    assert state_of(layer) == before
    assert_close(value_of(layer), value, rtol=0, atol=0)


@pytest.mark.parametrize("how", DEEP)
@pytest.mark.parametrize("kind", LAYERS)
def test_I2_changing_the_original_never_touches_a_deep_copy(kind, how):
    layer = LAYERS[kind]().eval()
    twin, name = DEEP[how](layer), tensor_name(layer)
    before, value = state_of(twin), value_of(twin).detach().clone()
    holdfast.register_parametrization(layer, name, OneWay())
    assert state_of(twin) == before
    holdfast.remove_parametrizations(layer, name)
    assert state_of(twin) == before
    assert_close(value_of(twin), value, rtol=0, atol=0)


@pytest.mark.parametrize("how", DEEP)
@pytest.mark.parametrize("kind", LAYERS)
def test_I2_a_deep_copy_shares_no_memory_and_trains_alone(kind, how):
    layer = LAYERS[kind]()
    layer.eval()
    twin = DEEP[how](layer)
    mine = {t.untyped_storage().data_ptr() for t in layer.state_dict().values()}
    theirs = {t.untyped_storage().data_ptr() for t in twin.state_dict().values()}
    assert not mine & theirs
    before = state_of(layer)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    (twin(torch.randn(4, 3)) ** 2).sum().backward()
    optimizer.step()
    assert [*map(bits, tensors(twin))] != [*map(bits, tensors(layer))]
    assert state_of(layer) == before


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.state_dict().values()]


@pytest.mark.parametrize("how", DEEP)
def test_I2_assigning_to_a_deep_copy_leaves_the_original_alone(how):
    layer = linear(Symmetric(), Gain())
    twin, before = DEEP[how](layer), state_of(layer)
    twin.weight = torch.eye(3)
    assert_close(twin.weight, torch.eye(3))
    assert state_of(layer) == before


@pytest.mark.parametrize("link", [OneWay, Gain, Halves])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_I2_parametrizing_a_shallow_copy_of_a_plain_module_leaves_it_alone(name, link):
    layer = nn.Linear(3, 3)
    before = state_of(layer)
    twin = copy.copy(layer)
    value = getattr(layer, name).detach().clone()
    expected = value.tanh() if link is OneWay else value
    holdfast.register_parametrization(twin, name, link())
    assert state_of(layer) == before
    assert_close(getattr(twin, name), expected)
    holdfast.remove_parametrizations(twin, name)
    assert state_of(layer) == before
    assert_close(getattr(twin, name).detach(), expected)


def test_I2_parametrizing_all_of_a_shallow_copy_leaves_the_original_alone():
    layer = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before, parameters = state_of(layer), [*layer.parameters()]
    twin = copy.copy(layer)
    for name, link in [("weight", Gain), ("bias", Halves)]:
        holdfast.register_parametrization(twin, name, link())
        assert state_of(layer) == before
    holdfast.swap_parameters(optimizer)
    assert all(
        p is q
        for p, q in zip(optimizer.param_groups[0]["params"], parameters, strict=True)
    )
    for name in ("weight", "bias"):
        holdfast.remove_parametrizations(twin, name)
        assert state_of(layer) == before


def test_I2_parametrizing_a_module_leaves_its_shallow_copy_alone():
    layer = nn.Linear(3, 3)
    twin = copy.copy(layer)
    before = state_of(twin)
    holdfast.register_parametrization(layer, "weight", Gain())
    assert state_of(twin) == before


@pytest.mark.parametrize("kind", LAYERS)
def test_I2_changing_the_original_leaves_the_structure_of_a_shallow_copy(kind):
    layer = LAYERS[kind]().eval()
    twin, name = copy.copy(layer), tensor_name(layer)
    keys, shown, cls = [*twin.state_dict()], repr(twin), type(twin)
    holdfast.register_parametrization(layer, name, OneWay())
    assert ([*twin.state_dict()], repr(twin), type(twin)) == (keys, shown, cls)
    holdfast.remove_parametrizations(layer, name)
    assert ([*twin.state_dict()], repr(twin), type(twin)) == (keys, shown, cls)
    assert value_of(twin).isfinite().all()


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("leave", [True, False])
def test_I2_a_module_that_was_copied_keeps_its_parameters_identity(alive, leave):
    layer = nn.Linear(3, 3)
    parameters = [*layer.parameters()]
    holdfast.register_parametrization(layer, "weight", Gain())
    twin = copy.copy(layer)
    holdfast.remove_parametrizations(twin, "weight")
    if not alive:
        del twin
    holdfast.remove_parametrizations(layer, "weight", leave_parametrized=leave)
    assert all(p is q for p, q in zip(layer.parameters(), parameters, strict=True))


@pytest.mark.parametrize("link", [OneWay, Gain, Halves])
def test_I2_a_shallow_copy_that_is_partly_parametrized_leaves_the_original_alone(link):
    layer = linear(OneWay(), name="bias")
    before, value = state_of(layer), layer.weight.detach().clone()
    twin = copy.copy(layer)
    holdfast.register_parametrization(twin, "weight", link())
    assert state_of(layer) == before
    assert_close(twin.weight.detach(), value.tanh() if link is OneWay else value)
    holdfast.remove_parametrizations(twin, "weight")
    holdfast.remove_parametrizations(twin, "bias")
    assert state_of(layer) == before


@pytest.mark.parametrize("link", [Gain, Halves])
def test_I2_an_optimizer_does_not_follow_a_shallow_copy(link):
    layer = linear(link())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    twin = copy.copy(layer)
    holdfast.remove_parametrizations(twin, "weight")
    holdfast.register_parametrization(twin, "bias", Halves())
    holdfast.swap_parameters(optimizer)
    held = optimizer.param_groups[0]["params"]
    assert all(p is q for p, q in zip(held, layer.parameters(), strict=True))


def test_I2_a_shallow_copied_recurrent_module_is_independent():
    rnn = nn.GRU(2, 3)
    holdfast.register_parametrization(rnn, "weight_hh_l0", OneWay())
    x = torch.randn(4, 1, 2)
    expected, _ = rnn(x)
    twin = copy.copy(rnn)
    holdfast.remove_parametrizations(twin, "weight_hh_l0", leave_parametrized=False)
    assert_close(rnn(x)[0], expected, rtol=0, atol=0)
    assert type(twin) is nn.GRU
    plain = nn.GRU(2, 3)
    plain.load_state_dict(twin.state_dict())
    assert_close(twin(x)[0], plain(x)[0])


class Slotted(nn.Linear):
    """A user's class with a slot and with its own idea of its state."""

    __slots__ = ("note",)

    def __getstate__(self):
        return {"dict": self.__dict__.copy(), "note": self.note}

    def __setstate__(self, state):
        self.__dict__.update(state["dict"])
        self.note = state["note"] + "'"


class OwnCopy(nn.Linear):
    """A user's class that copies itself."""

    def __deepcopy__(self, memo):
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        twin.copied = True
        return twin


@pytest.mark.parametrize("how", DEEP)
def test_I2_the_users_own_state_methods_are_used(how):
    layer = Slotted(3, 3)
    layer.note = "slot"
    holdfast.register_parametrization(layer, "weight", Symmetric())
    twin = DEEP[how](layer)
    assert twin.note == "slot'"
    assert_close(twin.weight, layer.weight, rtol=0, atol=0)


def test_I2_the_users_own_deepcopy_is_used():
    layer = OwnCopy(3, 3)
    holdfast.register_parametrization(layer, "weight", Symmetric())
    twin = copy.deepcopy(layer)
    assert twin.copied
    assert type(twin) is type(layer)
    before = state_of(layer)
    holdfast.remove_parametrizations(twin, "weight")
    assert type(twin) is OwnCopy
    assert state_of(layer) == before


@pytest.mark.parametrize("how", DEEP)
def test_I2_copying_a_model_keeps_what_is_shared_inside_it(how):
    layer = linear(Symmetric())
    twin = DEEP[how](nn.Sequential(layer, layer, nn.ReLU()))
    assert twin[0] is twin[1]
    assert len([*twin.parameters()]) == 2


@pytest.mark.parametrize("how", DEEP)
def test_I2_the_policy_and_the_flags_are_copied(how):
    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(
        layer, "weight", holdfast.maps.Symmetric(), unsafe=True, outside="project"
    )
    chain = DEEP[how](layer).parametrizations.weight
    assert chain.unsafe is True
    assert chain.outside == "project"
    assert chain.moved == layer.parametrizations.weight.moved > 0


def describe_in_a_child(layer: nn.Module) -> tuple[str, list[float], bytes]:
    """What the other process sees, and the module sent back."""
    values = layer.weight.detach().tolist()
    holdfast.register_parametrization(layer, "weight", OneWay())
    return type(layer).__name__, values, pickle.dumps(layer)


def test_I2_a_spawned_process_receives_and_returns_parametrized_modules():
    layers = [linear(Symmetric(), Gain()), RECIPES["spectral_norm"]().eval()]
    before = [{k: bits(v) for k, v in layer.state_dict().items()} for layer in layers]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        answers = [*pool.map(describe_in_a_child, layers)]
    for layer, held, (name, values, pickled) in zip(
        layers, before, answers, strict=True
    ):
        assert name == "ParametrizedLinear"
        assert_close(torch.tensor(values), layer.weight.detach(), rtol=0, atol=0)
        back = pickle.loads(pickled)
        assert type(back) is type(layer)
        assert_close(back.weight, layer.weight.tanh())
        assert {k: bits(v) for k, v in layer.state_dict().items()} == held


def parts_of(module: nn.Module) -> list[weakref.ref[object]]:
    chain = module.parametrizations[tensor_name(module)]
    return [weakref.ref(part) for part in (module, chain, chain[0])]


def used(module: nn.Module) -> nn.Module:
    """Read, run forward and backward, read without gradients and in a scope."""
    module(torch.randn(2, 3)).sum().backward()
    with torch.no_grad():
        value_of(module)
    with holdfast.cached():
        module(torch.randn(2, 3))
    return module


@pytest.mark.parametrize("kind", LAYERS)
def test_I2_a_dropped_module_is_freed_without_the_collector(kind):
    module = used(LAYERS[kind]())
    things = parts_of(module)
    with collection_off():
        del module
        assert [thing() for thing in things] == [None] * 3


def test_I2_a_dropped_recurrent_module_is_freed_without_the_collector():
    rnn = nn.RNN(3, 3)
    holdfast.register_parametrization(rnn, "weight_hh_l0", Symmetric())
    rnn(torch.randn(2, 1, 3))[0].sum().backward()
    things = parts_of(rnn)
    with collection_off():
        del rnn
        assert [thing() for thing in things] == [None] * 3


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", LAYERS)
def test_I2_no_copy_keeps_its_original_alive(kind, how):
    module = used(LAYERS[kind]())
    module.zero_grad(set_to_none=True)
    things = parts_of(module)[:2]  # the maps of a shallow copy are shared
    with collection_off():
        twin = COPIES[how](module)
        del module
        assert [thing() for thing in things] == [None] * 2
    assert holdfast.is_parametrized(twin, tensor_name(twin))
    assert value_of(twin).isfinite().all()


def test_I2_removal_frees_the_chain_without_the_collector():
    layer = used(linear(Symmetric(), Gain()))
    _, *things = parts_of(layer)
    with collection_off():
        holdfast.remove_parametrizations(layer, "weight")
        assert [thing() for thing in things] == [None] * 2


# ---- I3: state dicts ---------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_I3_a_state_dict_loads_with_weights_only(kind, tmp_path):
    layer, fresh = LAYERS[kind]().eval(), LAYERS[kind]().eval()
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    for options in ({}, {"mmap": True}):
        state = torch.load(tmp_path / "state.pt", weights_only=True, **options)
        assert [*state] == [*layer.state_dict()]
        assert fresh.load_state_dict(state) == ([], [])
        assert_close(value_of(fresh), value_of(layer), rtol=0, atol=0)
        assert [*map(bits, tensors(fresh))] == [*map(bits, tensors(layer))]


def test_I3_a_module_itself_does_not_load_with_weights_only(tmp_path):
    torch.save(linear(Symmetric()), tmp_path / "module.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "module.pt", weights_only=True)


# ---- I4: another tool swaps the class ----------------------------------------------


class Sharded:
    """What another tool mixes in, as FSDP2 does."""

    def is_sharded(self) -> bool:
        return True


def swap_class(*modules: nn.Module) -> None:
    """Give modules of one class another one, as FSDP2 does: made once for all."""
    (cls,) = {type(module) for module in modules}
    new = type(f"FSDP{cls.__name__}", (Sharded, cls), {"__deepcopy__": None})
    for module in modules:
        module.__class__ = new


def swapped() -> nn.Linear:
    layer = linear(Symmetric())
    swap_class(layer)
    return layer


def test_I4_a_swapped_class_does_not_confuse_the_questions():
    layer = swapped()
    assert holdfast.is_parametrized(layer)
    assert holdfast.is_parametrized(layer, "weight")
    assert holdfast.type_before_parametrizations(layer) is nn.Linear


def test_I4_negative_control_torch_takes_the_mixin_for_the_type():
    layer = nn.Linear(3, 3)
    torch_parametrize.register_parametrization(layer, "weight", Symmetric())
    swap_class(layer)
    assert torch_parametrize.type_before_parametrizations(layer) is Sharded


def test_I4_a_class_swapped_before_is_the_type_before():
    layer = nn.Linear(3, 3)
    swap_class(layer)
    before = type(layer)
    holdfast.register_parametrization(layer, "weight", Symmetric())
    assert holdfast.type_before_parametrizations(layer) is before
    assert layer.is_sharded()
    holdfast.remove_parametrizations(layer, "weight")
    assert type(layer) is before


def test_I4_reading_and_assigning_work_after_a_swap():
    layer = swapped()
    parameters = dict(layer.named_parameters())
    W = torch.randn(3, 3)
    W = W + W.mT
    layer.weight = W
    assert_close(layer.weight, W)
    assert_close(layer(torch.eye(3)), W.mT + layer.bias)
    after = dict(layer.named_parameters())
    assert [*after] == ["bias", "parametrizations.weight.original"]
    assert all(after[name] is parameters[name] for name in after)


def test_I4_a_failing_assignment_after_a_swap_changes_nothing():
    layer = swapped()
    before = state_of(layer)
    with pytest.raises(ValueError, match="weight"):
        layer.weight = torch.zeros(2, 2)
    assert state_of(layer) == before


@pytest.mark.parametrize("leave", [True, False])
def test_I4_removal_works_after_a_swap(leave):
    layer = swapped()
    original = layer.parametrizations.weight.original
    expected = (layer.weight if leave else original).detach().clone()
    holdfast.remove_parametrizations(layer, "weight", leave_parametrized=leave)
    assert not holdfast.is_parametrized(layer)
    assert layer.weight is original
    assert_close(layer.weight.detach(), expected)
    assert layer.is_sharded()
    assert isinstance(layer, nn.Linear)
    assert [*layer._parameters] == ["weight", "bias"]
    assert_close(layer(torch.eye(3)), expected.mT + layer.bias)
    layer.weight = nn.Parameter(torch.eye(3))
    assert_close(layer.weight.detach(), torch.eye(3))
    assert [*layer.state_dict()] == ["weight", "bias"]


def test_I4_registering_works_after_a_swap_and_after_a_removal():
    layer = swapped()
    bias = layer.bias.detach().clone()
    holdfast.register_parametrization(layer, "bias", OneWay())
    assert_close(layer.bias, bias.tanh())
    holdfast.register_parametrization(layer, "weight", OneWay())
    assert len(layer.parametrizations.weight) == 2
    assert layer.is_sharded()
    assert holdfast.type_before_parametrizations(layer) is nn.Linear
    for name in ("weight", "bias"):
        holdfast.remove_parametrizations(layer, name)
    value = layer.weight.detach().clone()
    holdfast.register_parametrization(layer, "weight", OneWay())
    assert_close(layer.weight, value.tanh())
    assert layer.is_sharded()


def test_I4_a_class_on_top_may_use_super():
    layer = linear(Symmetric())
    holdfast.register_parametrization(layer, "bias", Gain())

    class Top(type(layer)):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

        @property
        def shown(self) -> str:
            return super().extra_repr()

        @classmethod
        def make(cls) -> nn.Module:
            return super().__new__(cls)

    layer.__class__ = Top
    x = torch.randn(2, 3)
    expected = layer(x)
    holdfast.remove_parametrizations(layer, "weight")
    assert_close(layer(x), expected)
    holdfast.register_parametrization(layer, "weight", Symmetric())
    assert_close(layer(x), expected)
    assert layer.shown == nn.Linear(3, 3).extra_repr()
    assert type(type(layer).make()) is type(layer)


def test_I4_siblings_keep_their_class_whatever_happens_to_one():
    plain = linear(Symmetric())
    shared = type(plain)
    layer, sibling = linear(Symmetric()), linear(Symmetric())
    swap_class(layer, sibling)
    new = type(sibling)
    value, bias = sibling.weight.detach().clone(), sibling.bias
    holdfast.register_parametrization(layer, "bias", OneWay())
    holdfast.remove_parametrizations(layer, "weight")
    for other, cls in ((plain, shared), (sibling, new)):
        assert type(other) is cls
        assert holdfast.is_parametrized(other, "weight")
        assert not holdfast.is_parametrized(other, "bias")
    assert sibling.bias is bias
    assert_close(sibling.weight.detach(), value, rtol=0, atol=0)
    holdfast.remove_parametrizations(sibling, "weight")
    assert_close(sibling.weight.detach(), value, rtol=0, atol=0)


def test_I4_swapping_back_is_as_if_nothing_had_happened():
    layer = linear(Symmetric())
    own = type(layer)
    swap_class(layer)
    layer.__class__ = own
    holdfast.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
