"""Products by oneDNN are those of torch, wherever they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.testing import assert_close

import holdfast
from holdfast import linalg
from holdfast.linalg import onednn, products

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)

N = 260  # two pieces


@pytest.fixture
def half_idle(monkeypatch) -> None:
    """Take the processor for one of those that gain by it."""
    monkeypatch.setattr(onednn, "_HALF_IDLE", True)


LAYOUTS = {
    "dense": lambda X: X,
    "transposed": lambda X: X.mT.contiguous().mT,
    "part": lambda X: torch.nn.functional.pad(X, (1, 2, 3, 4))[3:-4, 1:-2],
    "part of transposed": lambda X: (
        nn.functional.pad(X.mT, (1, 2, 3, 4))[3:-4, 1:-2].mT
    ),
    "negative": lambda X: torch.complex(X, -X).conj().imag,
}


def error(found: Tensor, A: Tensor, B: Tensor) -> float:
    """Return the root mean square of the errors of a product."""
    return float((found.double() - A.double() @ B.double()).square().mean().sqrt())


@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_every_layout_of_the_factors(left, right, monkeypatch):
    A, B = LAYOUTS[left](torch.randn(30, N)), LAYOUTS[right](torch.randn(N, 20))
    C = torch.randn(30, 20)
    before, ours = C.clone(), onednn.linear_pointwise

    def checked(X: Tensor, W: Tensor, other: Tensor | None) -> Tensor:
        assert W.is_contiguous() or W.mT.is_contiguous(), "a thousand times slower"
        return ours(X, W, other)

    monkeypatch.setattr(onednn, "linear_pointwise", checked)
    assert_close(onednn.sum_of_products(None, A, B), A @ B, rtol=1e-5, atol=1e-4)
    found = onednn.sum_of_products(C, A, B)
    assert_close(found, C + A @ B, rtol=1e-5, atol=1e-4)
    assert torch.equal(C, before)
    found.zero_()
    assert torch.equal(C, before), "the memory is new"


def test_pieces_keep_the_rounding_errors_small(monkeypatch):
    A, B = torch.randn(64, 1024), torch.randn(1024, 64)
    in_pieces = error(onednn.sum_of_products(None, A, B), A, B)
    monkeypatch.setattr(onednn, "_PIECE", 1024)
    at_once = error(onednn.sum_of_products(None, A, B), A, B)
    assert in_pieces < 0.75 * at_once


def test_a_batch_of_no_matrices(half_idle):
    X = torch.zeros(0, N, N, requires_grad=True)
    for function in (linalg.cayley_transform, linalg.skew_exponential):
        value = function(X - X.mT)
        assert value.shape == X.shape
        (gradient,) = torch.autograd.grad(value.sum(), X)
        assert gradient.shape == X.shape


def test_what_is_multiplied_by_onednn(half_idle, monkeypatch):
    A = torch.randn(N, N)
    with torch.no_grad():
        assert onednn.quicker(A, A)
        assert onednn.quicker(A.expand(2, N, N), A.expand(2, N, N))
        for X, Y in (
            (A[:128, :128], A[:128, :128]),
            (A.double(), A.double()),
            (A, A.double()),
            (A.cfloat(), A.cfloat()),
            (A.bfloat16(), A.bfloat16()),
            (A.to("meta"), A.to("meta")),
            (A, nn.Buffer(A).as_subclass(Marked)),
            (A.expand(2, N, N), A),
            (A.expand(2, N, N), A.expand(1, N, N)),
            (A.expand(2, 2, N, N), A.expand(2, 2, N, N)),
        ):
            assert not onednn.quicker(X, Y)
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.mkldnn, "enabled", False)
            assert not onednn.quicker(A, A)
        seen = []
        vmap(lambda X: seen.append(onednn.quicker(X, X)) or X)(A.expand(2, N, N))
        assert seen == [False]
        monkeypatch.setattr(onednn, "_HALF_IDLE", False)
        assert not onednn.quicker(A, A)
    assert not onednn.quicker(A, A), "derivatives are recorded"


class Marked(Tensor):
    """A tensor of somebody else's."""


@pytest.mark.parametrize("batch", [(), (2,)])
def test_products_are_the_same_by_either_library(batch, half_idle, monkeypatch):
    A, B, C = (torch.randn(*batch, N, N) for _ in range(3))
    with torch.no_grad():
        for found, expected in (
            (products.product(A, B), A @ B),
            (products.add_product(C, A, B), C + A @ B),
            (products.add_product(C, A, B, alpha=-2, beta=3), 3 * C - 2 * A @ B),
            (products.add_product(C[..., :1], A, B), C[..., :1] + A @ B),
            (products.add_product(C[..., :1], A, B, alpha=2), C[..., :1] + 2 * A @ B),
            (products.add_product(C[..., :1, :], A, B), C[..., :1, :] + A @ B),
            (products.scaled_product(A, B, 0.5), A @ B / 2),
            (products.accumulate_product(C.clone(), A, B), C + A @ B),
        ):
            assert_close(found, expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
def test_products_into_rows_and_into_parts_of_rows(beta, half_idle, monkeypatch):
    A, B = torch.randn(2, N, N)
    for columns in (N, N + 1):
        C = torch.randn(N + 1, columns)
        part = C[1:, :N]
        before, expected = C.clone(), beta * part + 2 * A @ B
        with torch.no_grad(), counted(monkeypatch) as calls:
            products.product_into(part, A, B, alpha=2, beta=beta)
        assert bool(calls) == part.is_contiguous()
        assert_close(part, expected, rtol=1e-5, atol=2e-4)
        assert torch.equal(C[0], before[0]), "the rest is as it was"
        assert torch.equal(C[:, N:], before[:, N:])


@pytest.mark.parametrize("kind", ["cayley", "matrix_exp"])
@pytest.mark.parametrize("based", [True, False])
def test_weights_and_gradients_are_the_same(kind, based, half_idle, monkeypatch):
    layer = nn.Linear(N, N, bias=False)
    holdfast.orthogonal(layer, orthogonal_map=kind, use_trivialization=based)
    (original,) = layer.parameters()
    with torch.no_grad():
        original.add_(torch.randn(N, N) / N**0.5)
    G, found, uses = torch.randn(N, N), [], []
    for used in (True, False):
        monkeypatch.setattr(onednn, "_HALF_IDLE", used)
        with counted(monkeypatch) as calls:
            W = layer.weight
            (slope,) = torch.autograd.grad(W, original, G, create_graph=True)
            (second,) = torch.autograd.grad(slope.square().sum(), original)
            layer.weight.backward(G)
        assert_close(original.grad, slope.detach(), rtol=1e-4, atol=1e-5)
        found.append((W.detach(), original.grad, second))
        uses.append(len(calls) > 0)
        original.grad = None
    assert uses == [True, False]
    for mine, expected in zip(*found, strict=True):
        assert_close(mine, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@contextmanager
def counted(monkeypatch) -> Iterator[list[Tensor]]:
    """Collect what oneDNN returns."""
    found, ours = [], onednn.linear_pointwise
    with monkeypatch.context() as patch:
        patch.setattr(
            onednn,
            "linear_pointwise",
            lambda *args: found.append(ours(*args)) or found[-1],
        )
        yield found
