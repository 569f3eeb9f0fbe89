"""Products on the CPU keep their digits where torch is allowed to round them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import holdfast
from holdfast.linalg import precision


@pytest.fixture
def tiles(monkeypatch) -> Iterator[None]:
    """Take the processor for one with tiles, and allow bfloat16 there."""
    monkeypatch.setattr(precision, "_HAS_TILES", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    assert precision._tiles.used(), "it is the user's"
    torch.set_float32_matmul_precision(before)


def test_products_on_tiles_may_be_rounded_outside_alone(tiles, monkeypatch):
    X = torch.eye(2)
    assert precision.coarse(X)
    with precision.exactly(X):
        assert not precision.coarse(X)
    assert not precision.coarse(torch.empty(2, device="meta"))
    monkeypatch.setattr(precision, "_HAS_TILES", False)
    assert not precision.coarse(X), "nothing is switched where nothing rounds"


@pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="torch has one setting"
)
@pytest.mark.parametrize("own", ["none", "bf16"])
@pytest.mark.parametrize("backend", ["mkldnn", "cuda"])
def test_a_setting_for_all_backends_is_followed_after_a_map_as_before(backend, own):
    matmul = getattr(torch.backends, backend).matmul
    own = own if backend == "mkldnn" else own.replace("bf16", "ieee")
    before = torch.backends.fp32_precision, matmul.fp32_precision
    rounding = precision._Rounding(matmul)
    try:
        torch.backends.fp32_precision, matmul.fp32_precision = "tf32", own
        found = matmul.fp32_precision
        with rounding.unused(contextlib.nullcontext()):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == found
        torch.backends.fp32_precision = "ieee"
        assert matmul.fp32_precision == ("ieee" if own == "none" else own)
    finally:
        torch.backends.fp32_precision, matmul.fp32_precision = before


@pytest.mark.parametrize("kind", ["cayley", "matrix_exp"])
def test_weights_and_gradients_do_without_tiles(kind, tiles, monkeypatch):
    seen: list[bool] = []
    for name in ("mm", "bmm", "addmm", "baddbmm"):
        ours = getattr(torch, name)

        def noted(*args, ours=ours, **kwargs):
            seen.append(precision._tiles.used())
            return ours(*args, **kwargs)

        monkeypatch.setattr(torch, name, noted)
    layer = holdfast.orthogonal(nn.Linear(5, 5), orthogonal_map=kind)
    layer.parametrizations.weight.original.data.add_(torch.randn(5, 5))
    layer.weight.square().mul(torch.randn(5, 5)).sum().backward()
    torch.addmm(*[torch.eye(2)] * 3)
    *inside, outside = seen
    assert inside
    assert outside, "negative control"
    assert not any(inside)
