"""The map for thin matrices: everything is reached, and nothing large is made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import holdfast
from holdfast import linalg, maps, sets

N, K = 8192, 16


class Largest(TorchDispatchMode):
    """Notes the memory of the largest tensor that any operation makes, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for made in tree_leaves(results):
            if isinstance(made, Tensor):
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return results


def life(make, n: int, k: int) -> int:
    """Register, train, assign, load, and return the size of the largest tensor made."""
    layer = nn.Linear(k, n, bias=False)
    with Largest() as largest:
        make(layer)
        optimizer = torch.optim.AdamW(layer.parameters())
        layer(torch.randn(2, k)).square().sum().backward()
        optimizer.step()
        layer.weight = nn.init.normal_(torch.empty(n, k))
        layer.weight = layer.weight.detach()
        layer.load_state_dict(holdfast.plain_state_dict(layer))
        layer.load_state_dict(layer.state_dict())
        with torch.no_grad():
            assert layer.weight.shape == (n, k)
        holdfast.remove_parametrizations(layer, "weight")
    W = layer.weight.detach()
    assert linalg.orthogonality(W if n >= k else W.mT) < 1e-5
    return largest.bytes


def orthogonal(kind: str | None):
    return lambda layer: holdfast.orthogonal(layer, orthogonal_map=kind)


def horizontal(layer: nn.Module) -> nn.Module:
    return holdfast.register_parametrization(layer, "weight", maps.Horizontal())


THIN = {
    "the default": orthogonal(None),
    "Cayley": orthogonal("thin_cayley"),
    "the exponential": orthogonal("thin_matrix_exp"),
    "subspaces": horizontal,
}


@pytest.mark.parametrize("shape", [(N, K), (K, N)], ids=["tall", "wide"])
@pytest.mark.parametrize("kind", THIN)
def test_N5_no_square_matrix_is_made_of_a_thin_one(kind, shape):
    in_double = 8 * N * K  # in which right inverses are computed
    assert life(THIN[kind], *shape) == in_double < 4 * N * N / 100


def test_N5_the_square_base_of_torchs_maps_is_seen():
    """Negative control."""
    assert life(orthogonal("householder"), 512, K) >= 4 * 512**2


HOSTILE = {
    "minus the identity": lambda n, k: -torch.eye(n, k),
    "the last axes": lambda n, k: torch.eye(n).flip(0)[:, :k],
    "a permutation": lambda n, k: torch.eye(n).roll(1, 0)[:, :k],
    "one reflection": lambda n, k: (torch.eye(n) - 2 / n)[:, :k],
    "equal signs": lambda n, k: torch.eye(n, k) * (-1.0) ** torch.arange(k),
    "random": lambda n, k: sets.Stiefel().sample((n, k)),
}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (2, 1), (2, 2), (5, 3), (9, 8), (16, 16), (64, 3), (96, 64)]
)
@pytest.mark.parametrize("kind", HOSTILE)
def test_every_matrix_with_orthonormal_columns_can_be_assigned(kind, n, k, wide):
    W = HOSTILE[kind](n, k)
    W = W.mT if wide else W
    layer = nn.Linear(*reversed(W.shape))
    holdfast.register_parametrization(layer, "weight", maps.ThinOrthogonal("cayley"))
    layer.weight = W
    assert_close(layer.weight.detach(), W, rtol=0, atol=1e-5)
    layer.weight.square().sum().backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())


def test_what_is_not_orthonormal_is_made_so_by_qr():
    layer = holdfast.orthogonal(nn.Linear(3, 6), orthogonal_map="thin_cayley")
    W = torch.randn(6, 3)
    layer.weight = W
    assert_close(layer.weight.detach(), linalg.positive_qr(W))


def test_the_coordinates_have_zeros_above_the_diagonal_which_is_not_read():
    thin, W = maps.ThinOrthogonal("cayley"), sets.Stiefel().sample((6, 3))
    X = thin.right_inverse(W)
    assert torch.equal(X, X.tril())
    assert_close(thin(X + torch.ones(6, 3).triu()), W)


def test_it_is_the_first_columns_of_the_cayley_transform():
    X = torch.randn(6, 3, dtype=torch.float64)
    padded = nn.functional.pad(X, (0, 3))
    expected = linalg.cayley_transform(linalg.lower_skew(padded))[:, :3]
    assert_close(maps.ThinOrthogonal("cayley")(X), expected)


@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (150, 150), (150, 9)])
@pytest.mark.parametrize(
    "kind", ["matrix_exp", "cayley", "householder", "thin_cayley", "thin_matrix_exp"]
)
def test_every_orthogonal_map_can_be_recorded(kind, shape):
    layer = holdfast.orthogonal(nn.Linear(*shape).double(), orthogonal_map=kind)
    with torch.no_grad():
        original = layer.parametrizations.weight.original
        original.add_(0.1 * torch.randn_like(original).tril(-1))
    x, parameters = torch.randn(2, shape[0]).double(), dict(layer.named_parameters())

    def slopes(parameters):
        def loss(parameters):
            return torch.func.functional_call(layer, parameters, x).square().sum()

        return torch.func.grad(loss)(parameters)

    def value(parameters):
        return torch.func.functional_call(layer, parameters, x)

    assert_close(make_fx(value)(parameters)(parameters), layer(x))
    layer(x).square().sum().backward()
    graph = make_fx(slopes)(parameters)
    found = graph(parameters)["parametrizations.weight.original"]
    assert_close(found, original.grad)
