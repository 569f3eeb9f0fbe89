"""R3 for attention: values, gradients and evaluations of attention and encoders."""

from __future__ import annotations

import copy
import gc
from unittest import mock

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import maps
from support import Sine, Traced, Wave, evaluations

ATTENTION = {
    "packed": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    "no bias": lambda: nn.MultiheadAttention(8, 2, batch_first=True, bias=False),
    "apart": lambda: nn.MultiheadAttention(8, 2, batch_first=True, kdim=8, vdim=6),
}
WEIGHTS = {
    "packed": ["in_proj_weight", "in_proj_bias"],
    "no bias": ["in_proj_weight"],
    "apart": ["q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"],
}


def attention(kind, make=Sine):
    torch.manual_seed(0)
    plain = ATTENTION[kind]()
    ours = copy.deepcopy(plain)
    for name in WEIGHTS[kind]:
        holdfast.register_parametrization(ours, name, make())
    holdfast.register_parametrization(ours.out_proj, "weight", make())
    counts(ours, kind)
    return ours, plain


def counts(module, kind):
    """Return how often each weight was computed since the last question."""
    own = [evaluations(module, name) for name in WEIGHTS[kind]]
    return [*own, evaluations(module.out_proj)]


def inputs(kind):
    x = torch.randn(3, 5, 8)
    return x, x, torch.randn(3, 5, 6) if kind == "apart" else x


@pytest.mark.parametrize("kind", ATTENTION)
def test_R3_attention_computes_each_weight_once_in_a_training_forward(kind):
    ours, plain = attention(kind)
    once = [1] * (len(WEIGHTS[kind]) + 1)
    for _ in range(2):
        args = inputs(kind)
        found, expected = ours(*args)[0], plain(*args)[0]
        assert counts(ours, kind) == once
        assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        for name in WEIGHTS[kind]:
            original = ours.parametrizations[name].original
            assert_close(original.grad, getattr(plain, name).grad * original.cos())
        ours.zero_grad()
        plain.zero_grad()


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("make", [Sine, Wave])
def test_R3_attention_serves_without_gradients(kind, make):
    ours, plain = (module.eval() for module in attention(kind, make))
    args = inputs(kind)
    with torch.no_grad():
        assert_close(ours(*args)[0], plain(*args)[0])
        first = counts(ours, kind)
        assert first[:-1] == [1] * len(WEIGHTS[kind])
        ours(*args)
    again = counts(ours, kind)
    if make is Wave:  # remembered
        assert first[-1] == 1
        assert again == [0] * len(again)
    else:
        assert again == first


def test_R3_control_torch_computes_a_weight_of_attention_several_times():
    module, map_ = ATTENTION["packed"](), Sine()
    nn.utils.parametrize.register_parametrization(module, "in_proj_weight", map_)
    map_.calls.clear()
    module(*inputs("packed"))
    assert len(map_.calls) > 1


def test_R3_attention_holds_no_graph_and_can_be_copied():
    module, link = ATTENTION["packed"](), Traced()
    holdfast.register_parametrization(module, "in_proj_weight", link)
    args = inputs("packed")
    out = module(*args)[0]
    assert link.alive() == 1
    copy.deepcopy(module)(*args)
    out.sum().backward()
    del out
    gc.collect()
    assert link.alive() == 0


def test_R3_a_scope_around_attention_serves_it():
    ours, _ = attention("packed")
    args = inputs("packed")
    with holdfast.cached():
        ours(*args)[0].sum().backward()
        assert counts(ours, "packed") == [1, 1, 1]
        ours.in_proj_weight  # noqa: B018  # the backward pass has used its graph up
        assert counts(ours, "packed") == [1, 0, 0]
    with torch.no_grad(), holdfast.cached():
        ours(*args)
        ours(*args)
        assert counts(ours, "packed") == [1, 1, 1]


def test_R3_heads_are_constrained_one_by_one():
    module = ATTENTION["packed"]()
    map_ = maps.PerBlock(maps.ThinOrthogonal(), blocks=3 * 2)  # q, k and v of two heads
    holdfast.register_parametrization(module, "in_proj_weight", map_)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        module(*inputs("packed"))[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    heads = module.in_proj_weight.unflatten(0, (6, 4))
    assert_close(heads @ heads.mT, torch.eye(4).expand(6, 4, 4), rtol=0, atol=1e-5)


# ---- The fast path of the encoder ----------------------------------------------------


def encoder(recipe):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    rules = {
        "*.in_proj_weight": recipe(),
        "*.out_proj.weight": recipe(),
        "*.linear1.weight": recipe(),
        "*.linear2.weight": recipe(),
        "*.linear1.bias": maps.Softplus(),
    }
    holdfast.plan(model, rules).apply()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) / 16)
    return model.eval()


RECIPES = {
    "weight norm": maps.WeightNorm,
    "orthogonal": maps.ThinOrthogonal,
    "spectral norm": maps.SpectralNorm,
    "counting": Wave,
}
FAST = "torch._transformer_encoder_layer_fwd"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
def test_R3_the_fast_path_of_an_encoder_has_the_values_of_the_folded_model(
    recipe, padded
):
    model, x = encoder(RECIPES[recipe]), torch.randn(3, 5, 8)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    if padded:
        mask[0, 3:] = mask[1, 4:] = True
    choices = {"src_key_padding_mask": mask} if padded else {}
    with mock.patch(FAST, wraps=torch._transformer_encoder_layer_fwd) as fast:
        with torch.no_grad():
            found = model(x, **choices)
            taken = fast.call_count
            with holdfast.folded(model):
                folded = model(x, **choices)
            assert fast.call_count == taken + 2
        slow = model(x, **choices)  # with gradients it is not taken
        assert fast.call_count == taken + 2
    # spectral norm has a hook on its module, and torch then takes the ordinary path
    assert taken == (0 if recipe == "spectral norm" else 2)
    inside = ~mask
    assert_close(found[inside], folded[inside])
    assert_close(found[inside], slow[inside], rtol=1e-4, atol=1e-5)


def test_R3_the_fast_path_follows_the_originals_and_computes_a_weight_once():
    model, x = encoder(Wave), torch.randn(3, 5, 8)
    layer = model.layers[0]
    hosts = [
        (layer.self_attn, "in_proj_weight"),
        (layer.self_attn.out_proj, "weight"),
        (layer.linear1, "weight"),
        (layer.linear2, "weight"),
    ]
    with torch.no_grad():
        before = model(x)
        for host, name in hosts:
            evaluations(host, name)
        model(x)
        assert [evaluations(host, name) for host, name in hosts] == [0, 0, 0, 0]
        for parameter in model.parameters():
            parameter.mul_(0.5)
        after = model(x)
        assert [evaluations(host, name) for host, name in hosts] == [1, 1, 1, 1]
        assert torch.dist(before, after) > 1e-2
        with holdfast.folded(model):
            assert_close(after, model(x))


def test_R3_an_encoder_trains_with_one_evaluation_of_each_weight():
    model, x = encoder(Wave).train(), torch.randn(3, 5, 8)
    chains = [m for m in model.modules() if isinstance(m, holdfast.ParametrizationList)]
    links = [link for chain in chains for link in chain if isinstance(link, Wave)]
    for link in links:
        link.calls.clear()
    model(x).square().sum().backward()
    assert [len(link.calls) for link in links] == [1] * len(links)
    for chain in chains:
        assert chain.original.grad is not None


def test_C8_who_else_goes_through_the_modules_may_write_and_is_seen():
    model, x = encoder(maps.ThinOrthogonal), torch.randn(3, 5, 8)
    with torch.no_grad():
        before = model(x)
        for module in model.modules():
            for parameter in module._parameters.values():
                if parameter is not None:
                    parameter.data.mul_(0.5)
        after = model(x)
        assert torch.dist(before, after) > 1e-2
        with holdfast.folded(model):
            assert_close(after, model(x))


def test_C9_an_encoder_layer_compiles_in_one_graph():
    layer, x = encoder(maps.ThinOrthogonal).layers[0], torch.randn(3, 5, 8)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)
