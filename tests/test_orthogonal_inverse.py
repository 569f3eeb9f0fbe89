"""T9: every orthogonal matrix can be assigned, and is what the weight then is.

A thousand of them of sizes 1 to 64 and of both determinants, and those where inverses
are known to fail: -I, permutations, reflections, rotations by nearly a half turn.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from holdfast import linalg, maps, sets

CLOSE = 1e-5
RANDOM = 1000


def linear(n: int, *links: nn.Module) -> nn.Linear:
    layer = nn.Linear(n, n, bias=False)
    for link in links:
        holdfast.register_parametrization(layer, "weight", link)
    return layer


def _recipe(kind: str, **options):
    def make(n: int) -> nn.Module:
        return holdfast.orthogonal(
            nn.Linear(n, n, bias=False), "weight", kind, **options
        )

    return make


LAYERS = {
    "Skew, Cayley": lambda n: linear(n, maps.Skew(), maps.Cayley()),
    "Skew, MatrixExp": lambda n: linear(n, maps.Skew(), maps.MatrixExp()),
    "orthogonal matrix_exp": _recipe("matrix_exp"),
    "orthogonal cayley": _recipe("cayley"),
    "orthogonal householder": _recipe("householder"),
    "orthogonal thin_cayley": _recipe("thin_cayley"),
    "householder without base": _recipe("householder", use_trivialization=False),
}
MAKERS = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def haar(n: int, generator: torch.Generator | None = None) -> Tensor:
    return sets.Stiefel().sample((n, n), generator=generator)


@functools.cache
def random_matrices(n: int) -> list[Tensor]:
    """Return this size's share of the thousand, alternating in determinant."""
    generator = torch.Generator().manual_seed(n)
    count = RANDOM // 64 + (n <= RANDOM % 64)
    found = []
    for i in range(count):
        W = haar(n, generator)
        if (torch.linalg.det(W.double()) < 0) == (i % 2 == 0):
            W[0] *= -1
        found.append(W)
    return found


def reflection(v: Tensor) -> Tensor:
    v = v.double() / torch.linalg.vector_norm(v.double())
    return (torch.eye(len(v)) - 2 * v[:, None] * v).float()


def rotation(angles: list[float]) -> Tensor:
    """Return a rotation by the angles, in random planes."""
    blocks = [
        torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        for a in angles
        for c, s in [(torch.cos(torch.tensor(a)), torch.sin(torch.tensor(a)))]
    ]
    Q = haar(2 * len(angles)).double()
    return (Q @ torch.block_diag(*blocks) @ Q.mT).float()


def hadamard(n: int) -> Tensor:
    H = torch.ones(1, 1)
    while len(H) < n:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H / n**0.5


PI = torch.pi
SPECIAL = {
    **{f"-I of size {n}": -torch.eye(n) for n in (1, 2, 3, 8, 33, 64)},
    **{f"I of size {n}": torch.eye(n) for n in (1, 2, 64)},
    "transposition": torch.eye(4)[[1, 0, 2, 3]],
    "cycle of 5": torch.eye(5).roll(1, 0),
    "cycle of 64": torch.eye(64).roll(1, 0),
    "reversal": torch.eye(9).flip(0),
    "signed permutation": torch.eye(6)[[3, 1, 5, 0, 2, 4]]
    * torch.tensor([1.0, -1] * 3),
    "signs": torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0])),
    "reflection of an axis": reflection(torch.eye(5)[2]),
    "reflection of ones": reflection(torch.ones(64)),
    "half turn": torch.diag(torch.tensor([-1.0, -1.0])),
    "quarter turn": torch.tensor([[0.0, -1.0], [1.0, 0.0]]),
    "Hadamard": hadamard(64),
    "minus Hadamard": -hadamard(16),
}


def nearly_half_turns() -> dict[str, Tensor]:
    angles = {
        "half turns": [PI] * 4,
        "nearly half turns": [PI - 1e-3, PI - 1e-4, PI - 1e-5, PI - 1e-7],
        "many angles": [PI - 1e-6, PI / 2, 1e-7, 2.0, -3.0],
        "equal angles": [2.5] * 8,
    }
    return {name: rotation(a) for name, a in angles.items()}


def check(layer: nn.Module, W: Tensor) -> float:
    """Assign, and return the largest error of an entry."""
    layer.weight = W
    value = layer.weight.detach()
    assert bool(torch.isfinite(layer.parametrizations.weight.original).all())
    return float((value - W).abs().max())


@MAKERS
@pytest.mark.parametrize("sizes", [range(1, 33), range(33, 65)], ids=["small", "large"])
def test_T9_a_thousand_orthogonal_matrices_come_back(make, sizes):
    worst, counts = 0.0, {-1: 0, 1: 0}
    for n in sizes:
        layer = make(n)
        for W in random_matrices(n):
            worst = max(worst, check(layer, W))
            counts[round(float(torch.linalg.det(W.double())))] += 1
    assert worst < CLOSE
    assert min(counts.values()) > sum(counts.values()) // 3


def test_there_are_a_thousand():
    assert sum(RANDOM // 64 + (n <= RANDOM % 64) for n in range(1, 65)) == RANDOM


@MAKERS
@pytest.mark.parametrize("name", SPECIAL)
def test_T9_special_orthogonal_matrices_come_back(make, name):
    W = SPECIAL[name]
    assert check(make(len(W)), W) < CLOSE


@MAKERS
def test_T9_rotations_by_nearly_half_a_turn_come_back(make):
    for name, W in nearly_half_turns().items():
        assert check(make(len(W)), W) < CLOSE, name


@MAKERS
def test_T9_what_comes_back_is_orthogonal_and_trains_in_its_component(make):
    for n in (2, 3, 8):
        for W in random_matrices(n)[:2]:
            layer = make(n)
            layer.weight = W
            sign = torch.linalg.det(W.double()).sign()
            steps = torch.optim.SGD(layer.parameters(), lr=0.05)
            for _ in range(3):
                steps.zero_grad()
                (layer.weight * torch.ones(n, n)).sum().backward()
                steps.step()
            Q = layer.weight.detach().double()
            assert linalg.orthogonality(Q) < CLOSE
            assert torch.linalg.det(Q).sign() == sign
            assert n == 1 or not torch.equal(Q, W.double())


@MAKERS
def test_T9_assigning_its_own_value_changes_nothing(make):
    layer = make(6)
    layer.weight = haar(6)
    before = layer.weight.detach()
    signs = [b.clone() for name, b in layer.named_buffers() if name.endswith("signs")]
    layer.weight = before
    assert_close(layer.weight.detach(), before, rtol=0, atol=1e-6)
    after = [b for name, b in layer.named_buffers() if name.endswith("signs")]
    assert all(torch.equal(a, b) for a, b in zip(signs, after, strict=True))


@pytest.mark.parametrize("name", ["Skew, Cayley", "Skew, MatrixExp"])
def test_T9_what_is_not_orthogonal_is_refused(name):
    layer = LAYERS[name](4)
    before = layer.weight.detach()
    singular = torch.ones(4, 4)
    for W in (2 * haar(4), torch.randn(4, 4), singular):
        with pytest.raises(
            ValueError, match=r"(?i)expected|not in Stiefel|not in Gene"
        ):
            layer.weight = W
        assert torch.equal(layer.weight.detach(), before)


def test_T9_the_tutorials_inverse_fails_the_same_checks():
    """Negative control: the sign error, and the singular system."""

    class CayleyMap(nn.Module):
        def forward(self, X):
            identity = torch.eye(len(X))
            return torch.linalg.solve(identity - X, identity + X)

        def right_inverse(self, A):
            identity = torch.eye(len(A))
            return torch.linalg.solve(A + identity, identity - A)

    layer = linear(4, maps.Skew(), CayleyMap())
    near = linalg.cayley_transform(linalg.skew(torch.randn(4, 4)))
    layer.parametrizations.weight.outside = "project"
    assert check(layer, near) > CLOSE
    with pytest.raises(RuntimeError, match="singular"):
        layer.weight = -torch.eye(4)


@pytest.mark.parametrize("link", [maps.Cayley, maps.MatrixExp])
def test_T9_unitary_matrices_come_back(link):
    for n in (1, 2, 5, 16):
        layer = nn.Linear(n, n)
        layer.weight = nn.Parameter(layer.weight.to(torch.complex64))
        holdfast.register_parametrization(layer, "weight", maps.Skew())
        holdfast.register_parametrization(layer, "weight", link())
        for W in (haar(n).to(torch.complex64) * 1j, -torch.eye(n) + 0j):
            assert check(layer, W) < CLOSE
        W = sets.Stiefel().sample((n, n), dtype=torch.complex64)
        assert check(layer, W) < CLOSE
