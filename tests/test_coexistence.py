"""Beside torch's own functions and other libraries: X1 to X5."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch._functorch._aot_autograd.subclass_parametrization import (
    UnwrapTensorSubclass,
)
from torch.distributions import AffineTransform
from torch.nn.utils import parametrizations as torch_recipes
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils import _pytree as pytree

import holdfast
from support import Gain, Halves, OneWay, Symmetric, bits, recipes, state_of


def linear(*maps: nn.Module, name: str = "weight") -> nn.Linear:
    layer = nn.Linear(3, 3)
    for link in maps:
        holdfast.register_parametrization(layer, name, link)
    return layer


def torchs(*maps: nn.Module, name: str = "weight") -> nn.Linear:
    layer = nn.Linear(3, 3)
    for link in maps:
        torch_parametrize.register_parametrization(layer, name, link)
    return layer


def held(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


# ---- X1: torch's functions on our modules -------------------------------------------


def family(*names: str) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Three equal modules of one shared class."""
    layers = [nn.Linear(3, 3) for _ in range(3)]
    for layer in layers:
        for name in names or ("weight",):
            holdfast.register_parametrization(layer, name, OneWay())
    assert len({type(layer) for layer in layers}) == 1
    return tuple(layers)


@contextlib.contextmanager
def untouched(*siblings: nn.Module) -> Iterator[None]:
    """Nothing happens to these modules, which work as well afterwards as before."""
    before = [state_of(sibling) for sibling in siblings]
    values = [(held(s.weight), held(s.bias)) for s in siblings]
    yield
    for sibling, state, (weight, bias) in zip(siblings, before, values, strict=True):
        assert state_of(sibling) == state
        assert_close(sibling.weight.detach(), weight, rtol=0, atol=0)
        assert_close(sibling.bias.detach(), bias, rtol=0, atol=0)
        twin = pickle.loads(pickle.dumps(copy.deepcopy(sibling)))
        assert type(twin) is type(sibling)
        for name in [*twin.parametrizations]:
            holdfast.remove_parametrizations(twin, name)
        assert type(twin) is nn.Linear
        assert_close(twin(torch.eye(3)), weight.mT + bias)


def test_X1_torchs_questions_are_answered_of_our_modules():
    plain, layer = nn.Linear(3, 3), linear(Symmetric())
    for module, expected in ((plain, False), (layer, True)):
        assert torch_parametrize.is_parametrized(module) is expected
        assert torch_parametrize.is_parametrized(module, "weight") is expected
        assert not torch_parametrize.is_parametrized(module, "bias")
        assert torch_parametrize.type_before_parametrizations(module) is nn.Linear
    assert isinstance(layer.parametrizations, nn.ModuleDict)


@pytest.mark.parametrize("leave", [True, False])
def test_X1_torchs_removal_removes_from_that_module_alone(leave):
    layer, *siblings = family()
    original = layer.parametrizations.weight.original
    expected = held(layer.weight if leave else original)
    with untouched(*siblings):
        torch_parametrize.remove_parametrizations(
            layer, "weight", leave_parametrized=leave
        )
    assert type(layer) is nn.Linear
    assert layer.weight is original
    assert_close(held(layer.weight), expected, rtol=0, atol=0)
    assert not holdfast.is_parametrized(layer)
    assert {*layer.state_dict()} == {"weight", "bias"}
    with untouched(*siblings):
        holdfast.register_parametrization(layer, "weight", OneWay())
        assert type(layer) is type(siblings[0])
        assert_close(layer.weight.detach(), expected.tanh())


def test_X1_negative_control_a_shared_class_with_plain_properties_breaks():
    class Shared(nn.Linear):
        weight = property(lambda self: self.parametrizations.weight())

    layer, sibling = torchs(Symmetric()), torchs(Symmetric())
    layer.__class__ = sibling.__class__ = Shared
    torch_parametrize.remove_parametrizations(layer, "weight")
    with pytest.raises(AttributeError, match="weight"):
        sibling.weight.norm()


@pytest.mark.parametrize("first", ["weight", "bias"])
def test_X1_torchs_removal_of_one_tensor_of_two(first):
    layer, *siblings = family("weight", "bias")
    other = "bias" if first == "weight" else "weight"
    values = {name: held(getattr(layer, name)) for name in ("weight", "bias")}
    with untouched(*siblings):
        torch_parametrize.remove_parametrizations(layer, first)
    assert isinstance(layer._parameters[first], nn.Parameter)
    assert getattr(layer, first) is layer._parameters[first]
    assert not holdfast.is_parametrized(layer, first)
    assert holdfast.is_parametrized(layer, other)
    assert holdfast.type_before_parametrizations(layer) is nn.Linear
    for name, value in values.items():
        assert_close(held(getattr(layer, name)), value, rtol=0, atol=0)
    assert_close(layer(torch.eye(3)), values["weight"].mT + values["bias"])
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_close(held(getattr(twin, first)), values[first], rtol=0, atol=0)
    with untouched(*siblings):
        new = nn.Parameter(torch.ones_like(values[first]))
        setattr(layer, first, new)
        assert getattr(layer, first) is new
        assert first in dict(layer.named_parameters())
        holdfast.register_parametrization(layer, first, OneWay())
        assert_close(held(getattr(layer, first)), torch.tanh(new.detach()))
        holdfast.remove_parametrizations(layer, first)
        holdfast.remove_parametrizations(layer, other)
    assert type(layer) is nn.Linear


def test_X1_a_plain_tensor_of_a_shared_class_behaves_as_any():
    layer, sibling, _ = family("weight", "bias")
    torch_parametrize.remove_parametrizations(layer, "bias")
    with untouched(sibling):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        before = bits(layer.bias)
        layer(torch.randn(2, 3)).sum().backward()
        optimizer.step()
        assert bits(layer.bias) != before
        with pytest.raises(TypeError, match="bias"):
            layer.bias = torch.zeros(3)
        layer.bias = None
        assert layer.bias is None
        assert layer(torch.eye(3)).shape == (3, 3)


def test_X1_torchs_removal_leaves_a_recurrent_module_working():
    rnn = nn.LSTM(2, 3)
    names = ["weight_ih_l0", "weight_hh_l0"]
    for name in names:
        holdfast.register_parametrization(rnn, name, OneWay())
    x = torch.randn(4, 1, 2)
    expected, _ = rnn(x)
    for name in names:
        torch_parametrize.remove_parametrizations(rnn, name)
        assert_close(rnn(x)[0], expected, rtol=0, atol=0)
    assert type(rnn) is nn.LSTM
    optimizer = torch.optim.SGD(rnn.parameters(), lr=0.1)
    rnn(x)[0].sum().backward()
    assert all(p.grad is not None for p in rnn.parameters())
    optimizer.step()
    assert not rnn(x)[0].equal(expected)


def test_X1_torchs_registration_adds_a_link_to_our_chain():
    layer, *siblings = family()
    value = held(layer.weight)
    with untouched(*siblings):
        torch_parametrize.register_parametrization(layer, "weight", Gain())
        assert len(layer.parametrizations.weight) == 2
        assert_close(layer.weight.detach(), 2 * value + 0.5)
        holdfast.remove_parametrizations(layer, "weight")
    assert_close(layer.weight.detach(), 2 * value + 0.5)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize(
    "remove",
    [holdfast.remove_parametrizations, torch_parametrize.remove_parametrizations],
    ids=["ours", "torch's"],
)
def test_X1_torchs_registration_of_another_tensor_leaves_the_siblings_alone(remove):
    layer, *siblings = family()
    bias = held(layer.bias)
    with untouched(*siblings):
        torch_parametrize.register_parametrization(layer, "bias", OneWay())
        assert_close(layer.bias.detach(), bias.tanh())
        assert holdfast.is_parametrized(layer, "bias")
        assert [type(s.bias) for s in siblings] == [nn.Parameter] * 2
        assert [*siblings[0].state_dict()] != [*layer.state_dict()]
        late = linear(OneWay())
        assert type(late.bias) is nn.Parameter
    with untouched(*siblings, late):
        remove(layer, "bias")
        assert_close(layer.bias.detach(), bias.tanh(), rtol=0, atol=0)
        remove(layer, "weight")
    assert type(layer) is nn.Linear
    assert isinstance(layer.bias, nn.Parameter)


def test_X1_a_sibling_can_still_delete_what_torch_parametrizes_of_another():
    """FSDP does, to put a view of its own in the place of a parameter."""
    layer, other = (holdfast.weight_norm(nn.Linear(2, 2)) for _ in range(2))
    torch_parametrize.register_parametrization(other, "bias", Gain())
    bias = layer.bias.detach()
    del layer.bias
    layer.bias = bias
    assert layer.bias is bias
    del layer.bias
    assert not hasattr(layer, "bias")
    for missing in ("bias", "weight"):
        with pytest.raises(AttributeError, match=missing):
            delattr(layer, missing)


def test_X1_torchs_failing_registration_of_another_tensor_harms_no_sibling():
    layer, *siblings = family()
    with untouched(*siblings), pytest.raises(ValueError, match="parameter"):
        torch_parametrize.register_parametrization(layer, "nothing", OneWay())


def test_X1_torchs_other_functions_work_on_our_modules():
    source, target = linear(Gain()), nn.Linear(3, 3)
    value = held(source.weight)
    torch_parametrize.transfer_parametrizations_and_params(source, target)
    assert_close(target.weight.detach(), value)
    with torch_parametrize.cached():
        assert_close(source.weight.detach(), value)
        source.parametrizations.weight.original.data.zero_()
        assert_close(source.weight.detach(), torch.full((3, 3), 0.5))


def test_X1_torchs_recipes_stack_on_our_modules():
    layer = linear(OneWay())
    value = held(layer.weight)
    torch_recipes.spectral_norm(layer.eval())
    sigma = torch.linalg.matrix_norm(layer.weight, 2)
    assert_close(sigma, torch.tensor(1.0), atol=1e-2, rtol=0)
    assert_close(layer.weight * (value.norm() / layer.weight.norm()), value)


OLDER = ["weight_norm", "spectral_norm", "remove_weight_norm", "remove_spectral_norm"]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("function", OLDER)
@pytest.mark.parametrize("whose", ["ours", "torch's"])
def test_X1_torchs_older_functions_refuse_what_is_parametrized_and_change_nothing(
    whose, function
):
    recipes = holdfast if whose == "ours" else torch_recipes
    layer = recipes.weight_norm(nn.Linear(3, 3))
    before, x = state_of(layer), torch.ones(2, 3)
    y = layer(x)
    with pytest.raises((KeyError, ValueError), match="weight"):
        getattr(nn.utils, function)(layer)
    assert state_of(layer) == before
    assert torch.equal(layer(x), y)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
def test_X1_torchs_older_functions_take_the_other_tensors_of_a_module_of_ours():
    layer = holdfast.orthogonal(nn.Linear(3, 3))
    nn.utils.weight_norm(layer, "bias", dim=None)
    W, b, x = held(layer.weight), held(layer.bias), torch.ones(2, 3)
    assert_close(layer(x).detach(), x @ W.T + b)
    before = state_of(layer)
    layer.bias_g.data.mul_(2)
    assert state_of(layer) != before  # control: what is compared above sees changes
    assert_close(layer(x).detach(), x @ W.T + 2 * b)
    holdfast.remove_parametrizations(layer, "weight")
    nn.utils.remove_weight_norm(layer, "bias")
    assert_close(layer(x).detach(), x @ W.T + 2 * b)


# ---- X1: our functions on torch's modules -------------------------------------------

TORCHS = {
    "one": lambda: torchs(Symmetric()),
    "chain": lambda: torchs(Symmetric(), Gain()),
    "several": lambda: torchs(Halves()),
    "weight_norm": lambda: torch_recipes.weight_norm(nn.Linear(3, 3)),
    "spectral_norm": lambda: torch_recipes.spectral_norm(nn.Linear(3, 3)).eval(),
    "orthogonal": lambda: torch_recipes.orthogonal(nn.Linear(3, 3)),
}


@pytest.mark.parametrize("kind", TORCHS)
def test_X1_our_questions_are_answered_of_torchs_modules(kind):
    layer = TORCHS[kind]()
    assert holdfast.is_parametrized(layer)
    assert holdfast.is_parametrized(layer, "weight")
    assert not holdfast.is_parametrized(layer, "bias")
    assert holdfast.type_before_parametrizations(layer) is nn.Linear


@pytest.mark.parametrize("kind", TORCHS)
def test_X1_our_removal_folds_torchs_modules(kind):
    layer, sibling = TORCHS[kind](), TORCHS[kind]()
    value, theirs = held(layer.weight), held(sibling.weight)
    one = layer.parametrizations.weight.is_tensor
    original = layer.parametrizations.weight.original if one else None
    assert holdfast.remove_parametrizations(layer, "weight") is layer
    assert type(layer) is nn.Linear
    assert_close(held(layer.weight), value, rtol=0, atol=0)
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight is original or not one
    assert layer.weight.requires_grad
    assert_close(layer(torch.eye(3)), value.mT + layer.bias)
    assert_close(held(sibling.weight), theirs, rtol=0, atol=0)


def test_X1_our_removal_of_torchs_leaves_the_original_on_request():
    layer = torchs(Symmetric())
    original = layer.parametrizations.weight.original
    expected = bits(original)
    holdfast.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is original
    assert bits(layer.weight) == expected
    with pytest.raises(ValueError, match="Cannot leave unparametrized"):
        holdfast.remove_parametrizations(torchs(Halves()), "weight", False)
    with pytest.raises(ValueError, match="does not have a parametrization on"):
        holdfast.remove_parametrizations(torchs(Halves()), "bias")


def test_X1_our_removal_of_one_of_torchs_two_tensors():
    layer = torchs(Symmetric())
    torch_parametrize.register_parametrization(layer, "bias", OneWay())
    weight, bias = held(layer.weight), held(layer.bias)
    holdfast.remove_parametrizations(layer, "bias")
    assert_close(held(layer.bias), bias, rtol=0, atol=0)
    assert_close(held(layer.weight), weight, rtol=0, atol=0)
    holdfast.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert_close(held(layer.weight), weight, rtol=0, atol=0)


def test_X1_our_registration_adds_to_torchs_modules():
    layer = torchs(Symmetric())
    weight, bias = held(layer.weight), held(layer.bias)
    holdfast.register_parametrization(layer, "weight", OneWay())
    holdfast.register_parametrization(layer, "bias", OneWay())
    assert_close(layer.weight.detach(), weight.tanh())
    assert_close(layer.bias.detach(), bias.tanh())
    assert holdfast.type_before_parametrizations(layer) is nn.Linear
    assert torch_parametrize.type_before_parametrizations(layer) is nn.Linear
    for name in ("weight", "bias"):
        holdfast.remove_parametrizations(layer, name)
    assert type(layer) is nn.Linear
    assert_close(layer(torch.eye(3)), weight.tanh().mT + bias.tanh())


def test_X1_our_scope_and_transfer_take_torchs_modules():
    layer = torchs(Symmetric(), Gain())
    value = held(layer.weight)
    with holdfast.cached(), holdfast.cached(layer):
        assert_close(layer.weight.detach(), value)
    before = state_of(layer)
    target = nn.Linear(3, 3)
    holdfast.transfer_parametrizations_and_params(layer, target)
    assert_close(target.weight.detach(), value)
    assert state_of(layer) == before


# ---- The built-in maps, all of them -------------------------------------------------

EXPORTED = {name: getattr(holdfast.maps, name) for name in holdfast.maps.__all__}
MAPS = {name: value for name, value in EXPORTED.items() if inspect.isclass(value)}
SHAPES = {"square": (4, 4), "tall": (3, 5), "wide": (5, 3)}  # Linear(in, out)


def registered(
    name: str,
    layer: nn.Module,
    register: Callable[..., nn.Module] = holdfast.register_parametrization,
) -> nn.Module:
    """Register a built-in map, after the one that leads into its domain."""
    if name in SECOND:
        register(layer, "weight", SECOND[name]())
    return register(layer, "weight", made(name, layer.weight))


ARGUMENTS: dict[str, dict[str, object]] = {
    "BlockDiagonal": {"blocks": 1},
    "BoundedSVD": {"low": 0.5, "high": 2.0},
    "Kronecker": {"left": (1, 1)},
    "LowRankPlusDiagonal": {"rank": 1},
    "Delta": {"map": holdfast.maps.LowRank(1)},
    "DoRA": {"rank": 1},
    "FixedRank": {"rank": 2},
    "LoRA": {"rank": 2},
    "LowRank": {"rank": 2},
    "SpectralLogistic": {"low": -1.0, "high": 2.0},
    "Cast": {"map": holdfast.maps.ThinOrthogonal()},
    "Frozen": {"map": holdfast.maps.Orthogonal("cayley")},
    "FromTransform": {"transform": AffineTransform(1.0, 2.0)},
    "Matricized": {"map": holdfast.maps.ThinOrthogonal(), "rows": 1},
    "PerBlock": {"map": holdfast.maps.ThinOrthogonal(), "blocks": 1},
    "Scaled": {"map": holdfast.maps.ThinOrthogonal("matrix_exp")},
    "StraightThrough": {"map": holdfast.maps.Polar()},
    "Transposed": {"map": holdfast.maps.ThinOrthogonal()},
    "TopK": {"count": 7},
    "GradualTopK": {"final": 1.0, "initial": 0.5, "steps": 10},
}
# which refuse the value of another module, whose base is another
AROUND_A_BASE = {"Delta", "DoRA", "LoRA", "OFT"}
COMPLEX = {"LRU"}  # tests/test_dynamics.py has it


def made(name: str, weight: Tensor) -> holdfast.Parametrization:
    """Return a built-in map with arguments that suit the weight."""
    if name == "Mask":
        return MAPS[name](mask=torch.ones_like(weight).tril())
    if name == "NMSparsity":
        return MAPS[name](n=2, m=weight.shape[-1])
    if name == "Product":
        return MAPS[name](holdfast.maps.Orthogonal("cayley"), holdfast.maps.Chain())
    if name == "Concatenated":
        return MAPS[name](holdfast.maps.Orthogonal())
    return MAPS[name](**copy.deepcopy(ARGUMENTS.get(name, {})))


# which take a skew or a symmetric matrix
SECOND = {"MatrixExp": holdfast.maps.Skew, "Cayley": holdfast.maps.Skew}
SECOND |= {
    name: holdfast.maps.Symmetric
    for name, value in MAPS.items()
    if isinstance(value.domain, holdfast.sets.SymmetricMatrices)
}


def only_square(name: str) -> bool:
    """Tell whether the map's sets have no matrices that are not square."""
    weight = torch.zeros(3, 5)
    link = made(name, weight)
    try:
        link.bind(weight)
    except holdfast.errors.InvalidTensorError:
        return True
    both = (link.domain, link.codomain)
    return any(bool(s.residual(weight).isinf().any()) for s in both)


SQUARE = {*SECOND, *filter(only_square, MAPS)}
BUILT_IN = [
    (name, shape)
    for name in MAPS
    if name not in COMPLEX
    for shape in SHAPES
    if shape == "square" or name not in SQUARE
]


def test_X1_the_maps_are_found():
    assert {"Symmetric", "Skew", "Cayley", "Orthogonal", "WeightNorm"} <= {*MAPS}


@pytest.mark.parametrize(("name", "shape"), BUILT_IN)
def test_X1_our_maps_work_with_torchs_registration(name, shape):
    ours = registered(name, nn.Linear(*SHAPES[shape])).eval()
    inside = held(ours.weight)  # torch itself never projects
    theirs = nn.Linear(*SHAPES[shape]).eval()
    if name not in SECOND:
        theirs.weight.data = inside.clone()
    registered(name, theirs, torch_parametrize.register_parametrization)
    theirs.weight = inside
    assert_close(theirs.weight.detach(), inside, atol=1e-5, rtol=1e-4)
    theirs(torch.randn(2, theirs.in_features)).sum().backward()
    trained = theirs.parameters() if name != "Frozen" else [theirs.bias]
    assert all(p.grad is not None for p in trained)
    torch_parametrize.remove_parametrizations(theirs, "weight")
    assert_close(theirs.weight.detach(), inside, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape"), [case for case in BUILT_IN if case[0] not in SECOND]
)
def test_X1_torchs_registration_of_our_maps_keeps_a_value_in_the_set(name, shape):
    inside = held(registered(name, nn.Linear(*SHAPES[shape])).eval().weight)
    theirs = nn.Linear(*SHAPES[shape]).eval()
    theirs.weight.data = inside.clone()
    registered(name, theirs, torch_parametrize.register_parametrization)
    assert_close(theirs.weight.detach(), inside, atol=1e-5, rtol=1e-4)


# ---- X2: the list is edited by hand -------------------------------------------------


def works(layer: nn.Module, value: Tensor) -> None:
    """The chain gives this value, follows assignment, saves, copies and goes."""
    chain = layer.parametrizations.weight
    assert isinstance(chain, nn.ModuleList)
    assert isinstance(chain, holdfast.ParametrizationList)
    for _ in range(2):
        assert_close(layer.weight.detach(), value)
        assert_close(chain().detach(), value)
        with torch.no_grad():
            assert_close(layer.weight, value)
    assert [*layer.parametrizations.values()] == [chain]
    assert len([*chain]) == len(chain)
    keys = {f"{i}" for i in range(len(chain))}
    assert {*chain._modules} == keys
    twin = copy.deepcopy(layer)
    assert twin.load_state_dict(layer.state_dict()) == ([], [])
    assert_close(twin.weight.detach(), value)
    layer(torch.randn(2, 3)).sum().backward()
    assert all(p.grad is not None for p in chain.parameters())
    if all("right_inverse" in dir(link) for link in chain):
        twin.weight = torch.eye(3)
        assert_close(twin.weight.detach(), torch.eye(3))
    holdfast.remove_parametrizations(twin, "weight")
    assert type(twin) is nn.Linear


def test_X2_an_original_is_replaced():
    layer, new = linear(Symmetric()), nn.Parameter(torch.randn(3, 3))
    chain = layer.parametrizations.weight
    assert layer.weight is not None
    chain.original = new
    assert chain.original is new
    assert dict(layer.named_parameters())["parametrizations.weight.original"] is new
    works(layer, Symmetric()(new.detach()))
    holdfast.remove_parametrizations(layer, "weight")
    assert layer.weight is new


def test_X2_one_of_several_originals_is_replaced():
    layer = linear(Halves())
    chain = layer.parametrizations.weight
    first = held(chain.original0)
    chain.original1 = nn.Parameter(torch.ones(3, 3))
    works(layer, first + 1)


def test_X2_a_buffers_original_is_replaced_by_any_tensor():
    layer = nn.BatchNorm1d(3)
    holdfast.register_parametrization(layer, "running_mean", Gain())
    chain = layer.parametrizations.running_mean
    chain.original = torch.ones(3)
    assert "original" in chain._buffers
    assert_close(layer.running_mean.detach(), torch.full((3,), 2.5))
    layer.running_mean = torch.zeros(3)
    assert_close(layer.running_mean.detach(), torch.zeros(3))


def test_X2_originals_are_replaced_in_the_parameters_of_the_list():
    layer = linear(Symmetric())
    chain, new = layer.parametrizations.weight, nn.Parameter(torch.ones(3, 3))
    del chain.original
    chain.register_parameter("original", new)
    works(layer, torch.ones(3, 3))
    chain.original.data = torch.zeros(3, 3)
    works(layer, torch.zeros(3, 3))


def test_X2_a_map_is_replaced():
    layer = linear(Symmetric(), OneWay())
    chain = layer.parametrizations.weight
    original = held(chain.original)
    chain[1] = Gain()
    works(layer, 2 * Symmetric()(original) + 0.5)
    chain[-1] = Symmetric()
    works(layer, Symmetric()(original))
    chain[0] = OneWay()
    works(layer, Symmetric()(original.tanh()))


def test_X2_a_map_is_deleted():
    layer = linear(Gain(), OneWay(), Symmetric())
    chain = layer.parametrizations.weight
    original = held(chain.original)
    del chain[1]
    works(layer, Symmetric()(2 * original + 0.5))
    del chain[0]
    works(layer, Symmetric()(original))
    assert type(chain[0]) is Symmetric


def test_X2_without_maps_the_value_is_the_original():
    layer = linear(Gain())
    chain = layer.parametrizations.weight
    original = held(chain.original)
    del chain[0]
    works(layer, original)
    chain.append(OneWay())
    works(layer, original.tanh())


def test_X2_maps_are_appended_inserted_extended_and_popped():
    layer = linear(Symmetric())
    chain = layer.parametrizations.weight
    original = held(chain.original)
    assert chain.append(Gain()) is chain
    works(layer, 2 * Symmetric()(original) + 0.5)
    chain.insert(0, OneWay())
    works(layer, 2 * Symmetric()(original.tanh()) + 0.5)
    assert [type(link) for link in chain] == [OneWay, Symmetric, Gain]
    popped = chain.pop(0)
    assert type(popped) is OneWay
    works(layer, 2 * Symmetric()(original) + 0.5)
    chain.extend([Gain(), Gain()])
    assert len(chain) == 4
    works(layer, 4 * (2 * Symmetric()(original) + 0.5) + 1.5)


def test_X2_editing_several_originals_chains():
    layer = linear(Halves(), OneWay())
    chain = layer.parametrizations.weight
    value = held(chain.original0 + chain.original1)
    chain[1] = Gain()
    works(layer, 2 * value + 0.5)
    del chain[1]
    works(layer, value)


def test_X2_values_are_iterated_as_the_tools_do():
    rnn = nn.RNN(3, 3)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        holdfast.register_parametrization(rnn, name, Symmetric())
        holdfast.register_parametrization(rnn, name, Gain())
    chains = [*rnn.parametrizations.values()]
    assert len(chains) == 2
    for name, chain in rnn.parametrizations.items():
        assert chain is rnn.parametrizations[name]
        assert [type(link) for link in chain] == [Symmetric, Gain]
        assert [type(link) for link in reversed(chain)] == [Gain, Symmetric]
        assert chain[0] in [*chain]
        assert type(chain[-1]) is Gain
        assert next(link for link in chain if isinstance(link, Gain)) is chain[1]


def test_X2_an_edit_shows_at_once_inside_a_scope():
    layer = linear(Symmetric())
    chain = layer.parametrizations.weight
    with holdfast.cached():
        assert layer.weight is layer.weight
        chain.append(Gain())
        assert_close(layer.weight, 2 * Symmetric()(chain.original) + 0.5)
        chain.original = nn.Parameter(torch.zeros(3, 3))
        assert_close(layer.weight.detach(), torch.full((3, 3), 0.5))
        del chain[1]
        assert_close(layer.weight.detach(), torch.zeros(3, 3))


# ---- X3: safetensors ---------------------------------------------------------------


def saves(layer: nn.Module, fresh: nn.Module) -> None:
    """The state dict goes through a safetensors file, bit for bit."""
    state = layer.state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())
    memory = [tensor.untyped_storage().data_ptr() for tensor in state.values()]
    sizes = [tensor.untyped_storage().nbytes() for tensor in state.values()]
    assert len({*memory}) == len(memory)
    assert sizes == [t.numel() * t.element_size() for t in state.values()]
    loaded = safetensors.torch.load(safetensors.torch.save(state))
    assert {*loaded} == {*state}
    assert all(bits(loaded[name]) == bits(state[name]) for name in state)
    assert fresh.load_state_dict(loaded) == ([], [])
    assert_close(fresh.eval().weight, layer.eval().weight, rtol=0, atol=0)


def always_saves(
    apply: Callable[[nn.Module], nn.Module], shape: str, *, own: bool = False
) -> None:
    """Registered, trained, assigned to, copied and removed, it can be saved."""
    make = partial(nn.Linear, *SHAPES[shape])
    layer = apply(make())
    saves(layer, apply(make()))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    layer(torch.randn(2, layer.in_features)).sum().backward()
    optimizer.step()
    saves(layer, apply(make()))
    with contextlib.suppress(holdfast.errors.NoRightInverseError):
        layer.weight = held(layer.weight if own else apply(make()).weight)
    saves(layer, apply(make()))
    saves(copy.deepcopy(layer), apply(make()))
    value = held(layer.weight)
    holdfast.remove_parametrizations(layer, "weight")
    saves(layer, make())
    assert_close(layer.weight.detach(), value, rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", recipes())
def test_X3_every_recipe_saves_as_safetensors(kind, shape):
    always_saves(recipes()[kind], shape)


@pytest.mark.parametrize(("name", "shape"), BUILT_IN)
def test_X3_every_map_saves_as_safetensors(name, shape):
    always_saves(partial(registered, name), shape, own=name in AROUND_A_BASE)


class Views(nn.Module):
    """Its originals are views of one tensor, transposed and sliced."""

    def forward(self, X: Tensor, Y: Tensor, Z: Tensor) -> Tensor:
        return X.mT + 0 * Y.sum() + 0 * Z

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return W.mT, W[:, :1], W[0, 0].expand(W.shape[0], 1)


class Transposes(nn.Module):
    """Its value is a view of its original."""

    def forward(self, X: Tensor) -> Tensor:
        return X.mT

    def right_inverse(self, W: Tensor) -> Tensor:
        return W.mT


@pytest.mark.parametrize("link", [Views, Halves, Transposes, Symmetric])
def test_X3_every_original_of_a_users_map_saves(link):
    always_saves(
        lambda m: holdfast.register_parametrization(m, "weight", link(), unsafe=True),
        "square",
    )


def test_X3_a_parametrized_buffer_saves():
    def apply(module: nn.Module) -> nn.Module:
        for name in ("running_mean", "running_var"):
            holdfast.register_parametrization(module, name, Halves())
        return module

    norm = apply(nn.BatchNorm1d(4))
    saves_all = safetensors.torch.save(norm.state_dict())
    other = apply(nn.BatchNorm1d(4))
    assert other.load_state_dict(safetensors.torch.load(saves_all)) == ([], [])
    for name in ("running_mean", "running_var"):
        holdfast.remove_parametrizations(norm, name)
    safetensors.torch.save(norm.state_dict())


def test_X3_negative_control_torchs_orthogonal_does_not_save():
    layer = torch_recipes.orthogonal(nn.Linear(3, 5))
    with pytest.raises(ValueError, match="non contiguous|contiguous"):
        safetensors.torch.save(layer.state_dict())


# ---- X4: the two questions on any module --------------------------------------------


class Named(nn.Module):
    """Has an attribute of that name, which means something else."""

    def __init__(self, thing: object) -> None:
        super().__init__()
        self.parametrizations = thing


class Delegates(nn.Module):
    """Hands on what it does not know, as wrappers do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)


PLAIN = {
    "uninitialised": lambda: nn.Module.__new__(nn.Linear),
    "uninitialised parametrized": lambda: nn.Module.__new__(type(linear(OneWay()))),
    "linear": lambda: nn.Linear(2, 2),
    "lazy": lambda: nn.LazyLinear(2),
    "bare": nn.Module,
    "container": lambda: nn.Sequential(linear(Symmetric())),
    "dictionary": lambda: nn.ModuleDict({"weight": nn.ReLU()}),
    "list attribute": lambda: Named(["weight"]),
    "module attribute": lambda: Named(nn.ReLU()),
    "empty": lambda: Named(nn.ModuleDict()),
    "none": lambda: Named(None),
    "meta": lambda: nn.Linear(2, 2, device="meta"),
    "exported": lambda: torch.export.export(
        nn.Linear(2, 2), (torch.zeros(1, 2),)
    ).module(),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_X4_any_module_can_be_asked(kind):
    module = PLAIN[kind]()
    assert holdfast.is_parametrized(module) is False
    assert holdfast.is_parametrized(module, "weight") is False
    assert holdfast.is_parametrized(module, "parametrizations") is False
    assert holdfast.type_before_parametrizations(module) in (
        type(module),
        *type(module).__bases__,
    )


def test_X4_an_uninitialised_module_is_of_its_own_type():
    module = nn.Module.__new__(nn.Linear)
    assert holdfast.type_before_parametrizations(module) is nn.Linear


def test_X4_a_parametrized_module_answers_by_tensor():
    layer = linear(Symmetric())
    assert holdfast.is_parametrized(layer) is True
    assert holdfast.is_parametrized(layer, "weight") is True
    assert holdfast.is_parametrized(layer, "bias") is False
    assert holdfast.is_parametrized(layer, "nothing") is False
    assert holdfast.is_parametrized(layer, None) is True
    assert holdfast.type_before_parametrizations(layer) is nn.Linear


def test_X4_a_wrapper_is_not_its_inner_module():
    wrapper = Delegates(linear(Symmetric()))
    assert holdfast.type_before_parametrizations(wrapper) is Delegates


def test_X4_asking_computes_nothing():
    class Loud(OneWay):
        def forward(self, X: Tensor) -> Tensor:
            raise AssertionError("was computed")

    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    link = OneWay()
    holdfast.register_parametrization(layer, "weight", link)
    link.__class__ = Loud
    assert holdfast.is_parametrized(layer, "weight")
    assert holdfast.type_before_parametrizations(layer) is nn.Linear


# ---- X5: tensor subclasses ---------------------------------------------------------


def two(a: Tensor, b: Tensor) -> nn.Parameter:
    return nn.Parameter(TwoTensor(a.clone(), b.clone()))


def pair() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 3), torch.randn(3, 3)


class Double(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X * 2

    def right_inverse(self, W: Tensor) -> Tensor:
        return W / 2


class Twice(Double):
    """A symmetric weight, made of an original of any kind."""

    def forward(self, X: Tensor) -> Tensor:
        return X + X.mT


def both(tensor: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(tensor, TwoTensor) or isinstance(tensor.data, TwoTensor)
    return tensor.a, tensor.b


def subclassed() -> tuple[nn.Linear, nn.Parameter]:
    layer = nn.Linear(3, 3)
    layer.weight = weight = two(*pair())
    return layer, weight


@pytest.mark.parametrize("links", [(Double,), (Twice,), (Twice, Double)])
def test_X5_a_subclass_original_is_registered_and_read(links):
    layer, weight = subclassed()
    values = [half.detach().clone() for half in both(weight)]
    for link in links:
        holdfast.register_parametrization(layer, "weight", link())
        values = [
            half
            if link is Double and len(links) == 1
            else link()(half / 2)
            if link is Twice
            else link()(half)
            for half in values
        ]
    original = layer.parametrizations.weight.original
    assert original is weight
    assert isinstance(original, TwoTensor)
    assert isinstance(original, nn.Parameter)
    for half, expected in zip(both(layer.weight), values, strict=True):
        assert_close(half.detach(), expected)
    layer.weight.sum().backward()
    assert isinstance(original.grad, TwoTensor)


def test_X5_a_subclass_is_assigned_copied_stepped_and_removed():
    layer, weight = subclassed()
    holdfast.register_parametrization(layer, "weight", Double())
    a, b = pair()
    value = TwoTensor(a.clone(), b.clone())
    layer.weight = value
    assert layer.parametrizations.weight.original is weight
    for half, expected in zip(both(layer.weight), (a, b), strict=True):
        assert_close(half.detach(), expected)
    twin = copy.deepcopy(layer)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    layer.weight.sum().backward()
    optimizer.step()
    for half, expected in zip(both(layer.weight), (a, b), strict=True):
        assert_close(half.detach(), expected - 4.0)
    for half, expected in zip((value.a, value.b), (a, b), strict=True):
        assert_close(half, expected, rtol=0, atol=0)
    holdfast.remove_parametrizations(layer, "weight")
    assert layer.weight is weight
    assert isinstance(weight, TwoTensor)
    assert weight.requires_grad
    for half, expected in zip(both(weight), (a, b), strict=True):
        assert_close(half.detach(), expected - 4.0)
    for half, expected in zip(both(twin.weight), (a, b), strict=True):
        assert_close(half.detach(), expected)


def test_X5_a_failure_leaves_a_subclass_as_it_was():
    layer, weight = subclassed()
    before = [bits(half) for half in both(weight)]

    class Wrong(Double):
        def forward(self, X: Tensor) -> Tensor:
            return (X * 2)[:1]

    with pytest.raises(ValueError, match="shape"):
        holdfast.register_parametrization(layer, "weight", Wrong())
    assert layer.weight is weight
    assert [bits(half) for half in both(weight)] == before
    assert type(layer) is nn.Linear


def test_X5_a_subclass_buffer_is_parametrized():
    module = nn.Module()
    a, b = pair()
    module.register_buffer("table", TwoTensor(a.clone(), b.clone()))
    holdfast.register_parametrization(module, "table", Double())
    for half, expected in zip(both(module.table), (a, b), strict=True):
        assert_close(half, expected)
    holdfast.remove_parametrizations(module, "table")
    assert isinstance(module.table, TwoTensor)
    assert "table" in module._buffers


class Quantized(torch.Tensor):
    """A weight of eight-bit integers and a scale per row, as quantizers make them."""

    @staticmethod
    def __new__(cls, levels: Tensor, scale: Tensor) -> Quantized:
        return torch.Tensor._make_wrapper_subclass(
            cls, levels.shape, dtype=scale.dtype, device=levels.device
        )

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.levels, self.scale = levels, scale

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["levels", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner, meta, outer_size, outer_stride) -> Quantized:
        return cls(inner["levels"], inner["scale"])

    def dequantize(self) -> Tensor:
        return self.levels * self.scale

    def __repr__(self) -> str:
        return f"Quantized({tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kept = {torch.ops.aten.detach.default, torch.ops.aten.clone.default}
        if func in kept:
            return cls(func(args[0].levels), func(args[0].scale))
        args, kwargs = pytree.tree_map_only(
            cls, Quantized.dequantize, (args, kwargs or {})
        )
        return func(*args, **kwargs)


class Unwrap(nn.Module):
    """Holds a quantized weight as the plain tensors it consists of."""

    def forward(self, levels: Tensor, scale: Tensor) -> Tensor:
        return Quantized(levels, scale)

    def right_inverse(self, W: Quantized) -> list[Tensor]:
        return [W.levels, W.scale]


def quantized() -> tuple[nn.Linear, Tensor]:
    layer = nn.Linear(3, 3)
    levels = torch.randint(-128, 128, (3, 3), dtype=torch.int8)
    weight = Quantized(levels, torch.rand(3, 1) + 0.5)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer, weight.dequantize()


@pytest.mark.parametrize("link", [Unwrap, UnwrapTensorSubclass])
def test_X5_a_subclass_flattens_into_plain_originals(link):
    layer, value = quantized()
    x = torch.randn(2, 3)
    expected = layer(x)
    holdfast.register_parametrization(layer, "weight", link())
    chain = layer.parametrizations.weight
    assert [chain.is_tensor, chain.ntensors] == [False, 2]
    assert [type(p) for p in (chain.original0, chain.original1)] == [nn.Parameter] * 2
    assert chain.original0.dtype == torch.int8
    assert not any(p.requires_grad for p in chain.parameters())
    assert isinstance(layer.weight, Quantized)
    assert_close(layer.weight.dequantize(), value, rtol=0, atol=0)
    assert_close(layer(x), expected, rtol=0, atol=0)
    state = layer.state_dict()
    assert {type(t) for t in state.values()} == {Tensor}
    assert {*safetensors.torch.load(safetensors.torch.save(state))} == {*state}
    twin = copy.deepcopy(layer)
    assert twin.load_state_dict(state) == ([], [])
    assert_close(twin(x), expected, rtol=0, atol=0)


def test_X5_a_flattened_subclass_comes_back_on_removal():
    layer, value = quantized()
    holdfast.register_parametrization(layer, "weight", Unwrap())
    holdfast.remove_parametrizations(layer, "weight")
    assert isinstance(layer.weight, Quantized)
    assert not layer.weight.requires_grad
    assert_close(layer.weight.dequantize(), value, rtol=0, atol=0)


def test_X5_a_trainable_subclass_flattens_into_trainable_originals():
    layer, weight = subclassed()
    a, b = (half.detach().clone() for half in both(weight))
    holdfast.register_parametrization(layer, "weight", UnwrapTensorSubclass())
    chain = layer.parametrizations.weight
    assert [type(p) for p in chain.parameters()] == [nn.Parameter] * 2
    assert all(p.requires_grad for p in chain.parameters())
    for half, expected in zip(both(layer.weight), (a, b), strict=True):
        assert_close(half.detach(), expected, rtol=0, atol=0)
    program = torch.export.export(layer, (torch.randn(2, 3),))
    assert {*program.state_dict} == {*layer.state_dict()}
    assert not any(isinstance(t, TwoTensor) for t in program.state_dict.values())


@pytest.fixture(params=[False, True], ids=["set data", "swap tensors"])
def swap(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(request.param)
    yield request.param
    torch.__future__.set_swap_module_params_on_conversion(before)


CONVERTED = {
    "user-written": lambda: linear(Symmetric(), Gain()),
    "several": lambda: linear(Halves()),
    "built-in": lambda: linear(holdfast.maps.Symmetric()),
    "orthogonal": lambda: holdfast.orthogonal(nn.Linear(3, 3)),
    "weight_norm": lambda: holdfast.weight_norm(nn.Linear(3, 3)),
    "spectral_norm": lambda: holdfast.spectral_norm(nn.Linear(3, 3)),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_X5_conversion_works_with_and_without_swapping(kind, swap):
    layer = CONVERTED[kind]().eval()
    value, parameters = held(layer.weight), [*layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]
    with torch.no_grad():
        assert_close(layer.weight, value)
    layer.to(torch.float64)
    assert [name for name, _ in layer.named_parameters()] == names
    assert all(p is q for p, q in zip(layer.parameters(), parameters, strict=True))
    with torch.no_grad():
        assert_close(layer.weight, value.double(), atol=1e-6, rtol=1e-5)
    assert layer.weight.dtype == torch.float64
    layer(torch.randn(2, 3, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    layer.weight = value.double()
    assert_close(layer.weight.detach(), value.double(), atol=1e-6, rtol=1e-5)
    holdfast.remove_parametrizations(layer, "weight")
    assert layer.weight.dtype == torch.float64
    assert_close(layer.weight.detach(), value.double(), atol=1e-6, rtol=1e-5)
    layer.float()
    assert_close(layer.weight.detach(), value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", CONVERTED)
def test_X5_everything_works_under_the_flag(kind, swap):
    weight = None
    layer = nn.Linear(3, 3)
    weight, optimizer = layer.weight, torch.optim.SGD(layer.parameters(), lr=0.1)
    for link in [*CONVERTED[kind]().parametrizations.weight]:
        holdfast.register_parametrization(layer, "weight", type(link)())
    chain = layer.parametrizations.weight
    assert not chain.is_tensor or chain.original is weight
    value = held(layer.weight)
    layer.weight = value
    assert_close(layer.weight.detach(), value, atol=1e-5, rtol=1e-5)
    twin = copy.deepcopy(layer)
    twin.load_state_dict(layer.state_dict())
    layer(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    if chain.is_tensor:
        assert not layer.weight.equal(value)
    holdfast.remove_parametrizations(layer, "weight")
    assert layer.weight is weight or not chain.is_tensor
    assert_close(twin.weight.detach(), value, atol=1e-5, rtol=1e-5)


def test_X5_a_subclass_is_converted_by_swapping():
    before = torch.__future__.get_swap_module_params_on_conversion()
    layer, weight = subclassed()
    holdfast.register_parametrization(layer, "weight", Double())
    value = [half.detach().clone() for half in both(layer.weight)]
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.to(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    assert layer.parametrizations.weight.original is weight
    for half, expected in zip(both(layer.weight), value, strict=True):
        assert_close(half.detach(), expected.double())


def test_X5_nothing_keeps_a_dropped_subclass_alive():
    layer, weight = subclassed()
    holdfast.register_parametrization(layer, "weight", Double())
    gone = weakref.ref(layer)
    del layer, weight
    assert gone() is None
