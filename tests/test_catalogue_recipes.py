"""The recipes that torch has none of: each is one registration of what `maps` has."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import errors, maps, recipes, sets

# The recipe, its arguments, the module, the tensor, the set, and the maps it registers
CASES = {
    "positive": ("positive", {}, nn.Linear(3, 2), sets.Interval(0.0)),
    "above 2": ("positive", {"bound": 2.0}, nn.Linear(3, 2), sets.Interval(2.0)),
    "positive square": (
        "positive",
        {"positive_map": "square"},
        nn.Linear(3, 2),
        sets.Interval(0.0),
    ),
    "simplex": ("simplex", {}, nn.Linear(3, 2), sets.Simplex(-1)),
    "simplex of columns": ("simplex", {"dim": 0}, nn.Linear(3, 2), sets.Simplex(0)),
    "stochastic": ("stochastic", {}, nn.Linear(3, 2), sets.Simplex(-1)),
    "doubly stochastic": (
        "doubly_stochastic",
        {},
        nn.Linear(3, 3),
        sets.TransportPolytope(),
    ),
    "sphere": ("sphere", {}, nn.Linear(3, 2), sets.Sphere()),
    "sphere of all": (
        "sphere",
        {"radius": 3.0, "dim": None},
        nn.Conv2d(2, 3, 3),
        sets.Sphere(3.0, None),
    ),
    "max norm": ("max_norm", {"bound": 0.1}, nn.Linear(3, 2), sets.LpBall(radius=0.1)),
    "max norm of kernels": (
        "max_norm",
        {"bound": 0.1},
        nn.Conv2d(2, 3, 3),
        sets.LpBall(radius=0.1, axis=(1, 2, 3)),
    ),
    "sparse": ("sparse", {"amount": 0.75}, nn.Linear(4, 4), sets.KSparse(4)),
    "2 of 4": ("sparse", {"pattern": (2, 4)}, nn.Linear(8, 4), sets.NMSparse(2, 4)),
    **{
        f"spd {kind}": (
            "spd",
            {"spd_map": kind},
            nn.Linear(3, 3),
            sets.SymmetricPositiveDefinite(),
        )
        for kind in ("cholesky", "matrix_exp", "softplus")
    },
    "low rank": ("low_rank", {"rank": 2}, nn.Linear(5, 4), sets.LowRankMatrices(2)),
    "low rank kernel": (
        "low_rank",
        {"rank": 2},
        nn.Conv2d(3, 4, 3),
        sets.Matricized(sets.LowRankMatrices(2)),
    ),
    "hurwitz": ("hurwitz", {"alpha": 0.5}, nn.Linear(3, 3), sets.Hurwitz(0.5)),
    "schur stable": (
        "schur_stable",
        {"rho": 0.5},
        nn.Linear(3, 3),
        sets.SchurStable(0.5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_keeps_the_weight_in_its_set_while_it_trains(case):
    recipe, arguments, module, constraint = CASES[case]
    module = copy.deepcopy(module)
    assert getattr(holdfast, recipe)(module, **arguments) is module
    assert constraint.contains(module.weight)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)
    before = module.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        (module.weight * torch.randn_like(before)).sum().backward()
        optimizer.step()
    assert constraint.contains(module.weight)
    assert not torch.equal(module.weight, before)


@pytest.mark.parametrize("recipe", ["lora", "dora"])
@pytest.mark.parametrize("module", [nn.Linear(6, 5), nn.Conv2d(2, 4, 3)], ids=str)
def test_adapters_keep_the_value_and_train_few_parameters(recipe, module):
    module = copy.deepcopy(module)
    before = module.weight.detach().clone()
    getattr(holdfast, recipe)(module, rank=2, alpha=4.0)
    assert_close(module.weight, before, rtol=1e-6, atol=1e-7)
    n, k = before.flatten(1).shape
    trained = sum(p.numel() for p in module.parametrizations.weight.parameters())
    assert trained == 2 * (n + k) + (n if recipe == "dora" else 0)
    module.weight.square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    value = module.weight.detach().clone()
    assert not torch.equal(value, before)
    holdfast.remove_parametrizations(module, "weight")
    assert torch.equal(module.weight, value)


@pytest.mark.parametrize("recipe", ["lora", "dora"])
def test_adapters_of_a_frozen_model_train(recipe):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(False)
    getattr(holdfast, recipe)(model[0])
    training = [name for name, p in model.named_parameters() if p.requires_grad]
    assert training == [
        f"0.parametrizations.weight.original{i}" for i in range(2 + (recipe == "dora"))
    ]


@pytest.mark.parametrize(
    ("module", "name", "gates"),
    [
        (nn.LSTM(3, 4), "weight_hh_l0", 4),
        (nn.GRU(3, 4, bidirectional=True), "weight_hh_l0_reverse", 3),
        (nn.RNN(3, 4), "weight_hh_l0", 1),
        (nn.LSTMCell(3, 4), "weight_hh", 4),
        (nn.GRUCell(3, 4), "weight_hh", 3),
        (nn.MultiheadAttention(4, 2), "in_proj_weight", 3),
    ],
    ids=str,
)
def test_every_gate_is_orthogonal(module, name, gates):
    module = holdfast.per_gate(copy.deepcopy(module), name)
    blocks = getattr(module, name).chunk(gates)
    assert len(blocks) == gates
    for Q in blocks:
        assert_close(Q.T @ Q, torch.eye(4), atol=1e-6, rtol=0)
    x = torch.randn(5, 2, 4 if name == "in_proj_weight" else 3)
    if isinstance(module, nn.RNNBase):
        module(x)[0].sum().backward()
    elif isinstance(module, nn.MultiheadAttention):
        module(x, x, x)[0].sum().backward()
    else:
        out = module(x[0])
        (out[0] if isinstance(out, tuple) else out).sum().backward()
    assert all(p.grad is not None for p in module.parametrizations.parameters())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.LSTM(3, 8, proj_size=4), "weight_hr_l0"),
        (nn.MultiheadAttention(6, 2, kdim=3, vdim=3), "q_proj_weight"),
        (nn.MultiheadAttention(6, 2), "bias_k"),
    ],
    ids=str,
)
def test_per_gate_does_not_cut_what_is_no_stack_of_gates(module, name):
    error = errors.UnknownTensorError if name == "bias_k" else errors.InvalidTensorError
    with pytest.raises(error, match="Give `gates` a number|bias_k"):
        holdfast.per_gate(module, name)
    assert not holdfast.is_parametrized(module)


def test_per_gate_takes_biases_and_any_number_of_gates_of_a_projection():
    module, map_ = nn.LSTM(3, 8, proj_size=4), maps.Normalize()
    holdfast.per_gate(module, "bias_ih_l0", map_)
    assert_close(module.bias_ih_l0.reshape(4, 8).norm(dim=-1), torch.ones(4))
    holdfast.per_gate(module, "weight_hr_l0", maps.Orthogonal(), gates=1)
    Q = module.weight_hr_l0
    assert_close(Q @ Q.T, torch.eye(4), atol=1e-6, rtol=0)


def test_per_gate_takes_any_map_and_any_number():
    layer = holdfast.per_gate(nn.Linear(3, 6), "weight", maps.Normalize(), gates=2)
    assert_close(layer.weight.norm(dim=-1), torch.ones(6))
    with pytest.raises(errors.InvalidTensorError, match="Give `gates` a number"):
        holdfast.per_gate(nn.Linear(3, 6), "weight")


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("positive", {"positive_map": "relu"}, r"`Linear\.weight`: positive_map has"),
        ("spd", {"spd_map": "qr"}, r"`Linear\.weight`: spd_map has to be one of"),
        ("sparse", {"amount": 1.0}, r"`Linear\.weight`: amount has to be at least 0"),
        ("sparse", {"amount": -0.1}, r"`Linear\.weight`: amount has to be at least 0"),
        ("spd", {}, r"[Ee]xpected a square matrix"),
        ("hurwitz", {}, r"square"),
        ("max_norm", {"name": "wieght"}, r"Did you mean `weight`\?"),
        ("low_rank", {"name": "wieght"}, r"Did you mean `weight`\?"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(recipe, arguments, message):
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        getattr(holdfast, recipe)(layer, **arguments)
    assert type(layer) is nn.Linear
    assert torch.equal(layer.weight, before)


def test_every_recipe_is_one_registration():
    """Recipes compose; what they do is in `maps` and `core`."""
    for name in recipes.__all__:
        source = inspect.getsource(getattr(recipes, name))
        body = source.split('"""')[2]
        calls = body.count("register_parametrization(") + body.count("_as_matrix(")
        assert calls == body.count("return "), name
        assert getattr(holdfast, name) is getattr(recipes, name)


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_the_outputs_of_a_transposed_convolution_are_its_second_dimension(kind):
    layer = holdfast.max_norm(kind(8, 2, 3), bound=0.1)
    outputs = layer.weight.transpose(0, 1).flatten(1)
    assert_close(outputs.norm(dim=1), torch.full((2,), 0.1))
