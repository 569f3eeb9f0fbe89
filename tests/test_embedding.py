"""Embeddings that scale their rows down in place, with computed weights."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import holdfast
from support import state_of

ROWS = torch.tensor([[0, 1], [1, 3]])


def embedding(recipe, cls=nn.Embedding, **options) -> nn.Module:
    made = cls(5, 3, max_norm=1.0, **options)
    with torch.no_grad():
        made.weight.mul_(10)
    return recipe(made)


def exponential(module: nn.Module) -> nn.Module:
    """Parametrize by a map that saves its value for the backward pass."""

    class Exp(nn.Module):
        def forward(self, X):
            return X.exp()

        def right_inverse(self, W):
            return W.abs().log()

    return holdfast.register_parametrization(module, "weight", Exp())


KINDS = {
    "weight_norm": holdfast.weight_norm,
    "spectral_norm": holdfast.spectral_norm,
    "exp": exponential,
    "LoRA": lambda m: holdfast.lora(m, rank=2),
}


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["none", "cached", "accumulate"])
def test_rows_are_looked_up_with_the_norm_and_the_weight_stays(cls, kind, scope):
    module = embedding(KINDS[kind], cls).eval()
    W = module.weight.detach().clone()
    small = W * (1 / W.norm(dim=1, keepdim=True)).clamp_max(1)
    plain = nn.Embedding if cls is nn.Embedding else nn.EmbeddingBag
    expected = plain.from_pretrained(small)(ROWS)
    scopes = {"cached": holdfast.cached, "accumulate": holdfast.accumulate}
    with scopes.get(scope, lambda m: warnings.catch_warnings())(module):
        for _ in range(2):
            out = module(ROWS)
            assert_close(out, expected)
            out.square().sum().backward()
            assert_close(module.weight.detach(), W)
        with torch.no_grad():  # where the memo would see a write, and warn
            for _ in range(3):
                assert_close(module(ROWS), expected)
                assert_close(module.weight, W)
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("kind", [*KINDS, "orthogonal", "positive"])
@pytest.mark.parametrize("scope", ["none", "cached", "accumulate"])
def test_sparse_gradients_go_back_through_every_map(cls, kind, scope, max_norm):
    def gradients(*, sparse):
        torch.manual_seed(0)
        module = cls(5, 3, max_norm=max_norm, sparse=sparse)
        recipe = KINDS.get(kind) or getattr(holdfast, kind)
        recipe(module).eval()
        scopes = {"cached": holdfast.cached, "accumulate": holdfast.accumulate}
        with scopes.get(scope, lambda m: warnings.catch_warnings())(module):
            module(ROWS).square().sum().backward()
        return [p.grad for p in module.parameters()]

    thin = gradients(sparse=True)
    assert {g.layout for g in thin} == {torch.strided}
    assert_close(thin, gradients(sparse=False))


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_control_a_plain_embedding_beside_it_keeps_its_sparse_gradients(cls):
    ours, plain = cls(5, 3, sparse=True), cls(5, 3, sparse=True)
    holdfast.weight_norm(ours)
    plain.__class__ = type(ours)  # of the shared class, without a chain
    plain(ROWS).sum().backward()
    assert plain.weight.grad.layout == torch.sparse_coo
    with holdfast.folded(ours):
        ours(ROWS).sum().backward()
        assert ours.weight.grad.layout == torch.sparse_coo


def test_the_gradient_is_that_of_torchs_lookup():
    module = embedding(holdfast.weight_norm)
    twin = copy.deepcopy(module)
    module(ROWS).sin().sum().backward()
    F.embedding(ROWS, twin.weight.clone(), max_norm=1.0).sin().sum().backward()
    for ours, torchs in zip(module.parameters(), twin.parameters(), strict=True):
        assert_close(ours.grad, torchs.grad)


@pytest.mark.parametrize("padding_idx", [None, 0])
def test_other_choices_of_the_module_count(padding_idx):
    module = embedding(
        holdfast.weight_norm, nn.EmbeddingBag, mode="sum", padding_idx=padding_idx
    )
    plain = nn.EmbeddingBag(5, 3, max_norm=1.0, mode="sum", padding_idx=padding_idx)
    plain.load_state_dict(holdfast.plain_state_dict(module))
    offsets, weights = torch.tensor([0, 2]), torch.rand(4)
    given = ROWS.flatten(), offsets
    assert_close(
        module(*given, per_sample_weights=weights),
        plain(*given, per_sample_weights=weights),
    )


def test_control_a_lookup_in_the_weight_itself_breaks_a_backward_pass():
    """What a module that has a forward of its own is told by torch."""
    module = embedding(exponential)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        F.embedding(ROWS, module.weight, max_norm=1.0).sum().backward()


def test_without_max_norm_nothing_is_copied(monkeypatch):
    module = holdfast.weight_norm(nn.Embedding(5, 3))
    monkeypatch.setattr(torch.Tensor, "clone", None)
    with torch.no_grad():
        module.weight  # noqa: B018  # the memo
        assert module(ROWS).shape == (2, 2, 3)


def test_a_bound_for_the_weight_itself_is_a_map():
    module = embedding(holdfast.weight_norm)
    module.max_norm = None
    module = holdfast.max_norm(module, bound=1.0, dim=1)
    assert bool((module.weight.norm(dim=1) <= 1 + 1e-6).all())
    before = state_of(module)
    module(ROWS)
    assert state_of(module) == before
