"""Subspaces: horizontal coordinates around a base point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import holdfast
from holdfast import linalg, maps, sets
from test_cayley import KINDS, PRECISIONS, differentiable, normal, off
from test_thin import haar

SHAPES = [(1, 1), (3, 3), (4, 1), (5, 4), (9, 3), (2, 6, 2), (0, 4, 2), (2, 3, 5, 3)]
MAPS = {
    "cayley": linalg.horizontal_cayley_at,
    "matrix_exp": linalg.horizontal_exponential_at,
}
BOTH = pytest.mark.parametrize("kind", MAPS)


def square(A, kind):
    """Return SciPy's exponential or NumPy's Cayley transform of each matrix."""
    flat = A.reshape(-1, *A.shape[-2:]).numpy()
    identity = np.eye(A.shape[-1])
    values = [
        scipy.linalg.expm(a)
        if kind == "matrix_exp"
        else np.linalg.solve(identity - a / 2, identity + a / 2)
        for a in flat
    ]
    return torch.from_numpy(np.array(values).reshape(A.shape))


def point(*shape, size=1.0, dtype=torch.float64):
    """Return coordinates whose horizontal part has a norm, and a base."""
    Z, base = normal(*shape, dtype=dtype), haar(*shape, dtype=dtype)
    K = linalg.horizontal_slope(Z, base)
    norm = torch.linalg.matrix_norm(K, 2, keepdim=True).clamp_min(1e-300)
    vertical = base @ normal(*shape[:-2], shape[-1], shape[-1], dtype=dtype)
    flat = shape[-1] == shape[-2]
    return vertical + (0 * K if flat else K * (size / norm)), base


def projector(Q):
    return Q @ Q.mH


def angles(Q, R):
    """Return SciPy's angles between subspaces, the smallest first."""
    return torch.from_numpy(
        scipy.linalg.subspace_angles(Q.numpy(), R.numpy())[::-1].copy()
    )


# ---- Values -------------------------------------------------------------------------


@BOTH
@KINDS
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1.6, 10.0, 49.0])
@pytest.mark.parametrize("shape", [*SHAPES, (150, 70)])
def test_the_value_is_that_of_the_square_map(shape, size, dtype, kind):
    Z, base = point(*shape, size=size, dtype=dtype)
    K = linalg.horizontal_slope(Z, base)
    A = K @ base.mH - base @ K.mH
    value = MAPS[kind](Z, base)
    assert_close(value, square(A, kind) @ base, rtol=0, atol=3e-14 * (5 + size))
    assert_close(MAPS[kind](0 * Z, base), base, rtol=0, atol=0)


@BOTH
@PRECISIONS
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((300, 70), 0.1),
        ((300, 70), 1.5),
        ((300, 70), 30.0),
        ((200, 8), 30.0),
        ((90, 60), 3.0),  # K lacks rank
    ],
)
def test_single_precision_is_orthonormal_to_a_few_roundings(shape, size, dtype, kind):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    Z, base = point(*shape, size=size, dtype=wide)
    Z = Z - base @ (base.mH @ Z)
    found = MAPS[kind](Z.to(dtype), base.to(dtype))
    assert off(found) < 5e-6
    assert_close(found.to(wide), MAPS[kind](Z, base), rtol=0, atol=3e-6 * (1 + size))


@BOTH
@KINDS
def test_the_coordinates_are_the_angles(kind, dtype):
    for size in (1e-3, 1.0, 1.5):
        Z, base = point(9, 3, size=size, dtype=dtype)
        K = linalg.horizontal_slope(Z, base)
        expected = torch.linalg.svdvals(K).flip(-1)
        if kind == "cayley":
            expected = 2 * (expected / 2).atan()
        assert_close(angles(MAPS[kind](Z, base), base), expected, rtol=0, atol=1e-12)


def coordinates(Q, base, kind):
    """Return the coordinates of the span of Q, by its principal angles."""
    U, cosines, Vh = torch.linalg.svd(base.mH @ Q)
    aligned = Q @ (U @ Vh).mH
    below = aligned - base @ (base.mH @ aligned)
    if kind == "cayley":
        half = torch.linalg.inv(torch.eye(Q.shape[-1]).double() + base.mH @ aligned)
        return 2 * below @ half
    sizes = cosines.clamp_max(1).acos()
    stretch = torch.where(sizes > 1e-8, sizes / sizes.sin(), 1)
    return below @ U @ torch.diag(stretch) @ U.mH


@BOTH
@pytest.mark.parametrize("special", [None, "same", "orthogonal"])
def test_every_subspace_is_reached_within_the_stated_bounds(kind, special):
    base, Q = haar(9, 3), haar(9, 3)
    if special == "same":
        Q = base @ haar(3, 3)
    if special == "orthogonal":
        Q = linalg.complete(base)[:, 3:6]
    Z = coordinates(Q, base, kind)
    assert_close(projector(MAPS[kind](Z, base)), projector(Q), rtol=0, atol=1e-12)
    bound = 2 if kind == "cayley" else math.pi / 2
    assert float(torch.linalg.matrix_norm(Z, 2)) <= bound + 1e-12


@BOTH
def test_the_value_is_the_basis_nearest_to_the_base(kind):
    Z, base = point(9, 3, size=1.5)
    Q = MAPS[kind](Z, base)
    inside = base.mH @ Q
    assert_close(inside, inside.mH)
    assert bool((torch.linalg.eigvalsh(inside) > 0).all())


# ---- What does not matter -----------------------------------------------------------


@BOTH
@KINDS
def test_what_is_in_the_span_of_the_base_does_not_count(kind, dtype):
    Z, base = point(9, 3, dtype=dtype)
    more = base @ normal(3, 3, dtype=dtype)
    value = MAPS[kind](Z, base)
    assert_close(MAPS[kind](Z + more, base), value)
    leaf = Z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(MAPS[kind](leaf, base), leaf, normal(9, 3).to(dtype))
    assert float((base.mH @ slope).abs().max()) < 1e-13
    assert float(slope.abs().max()) > 0.1


@BOTH
def test_another_basis_of_the_base_gives_another_basis_of_the_same_subspace(kind):
    Z, base = point(9, 3)
    R = haar(3, 3)
    assert_close(MAPS[kind](Z @ R, base @ R), MAPS[kind](Z, base) @ R)


def test_negative_control_for_the_stiefel_map_both_count():
    Z, base = point(9, 3)
    value = linalg.thin_cayley_at(Z, base)
    more = base @ normal(3, 3)
    assert torch.dist(linalg.thin_cayley_at(Z + more, base), value) > 0.1


@BOTH
def test_the_derivative_has_the_rank_that_the_set_has_dimensions(kind):
    Z, base = point(6, 2)

    def subspace(Z):
        return projector(MAPS[kind](Z, base))

    def slopes(Z):
        return torch.linalg.svdvals(torch.func.jacrev(subspace)(Z).reshape(36, 12))

    count = sets.Grassmann().dim((6, 2))
    assert float(slopes(Z)[count - 1]) > 0.1
    assert float(slopes(Z)[count]) < 1e-12
    U = linalg.complete(base)[:, 2:4]
    size = 2 if kind == "cayley" else math.pi / 2
    assert float(slopes(size * U)[count - 1]) < 1e-9, "two angles whose sum is pi"


# ---- Derivatives --------------------------------------------------------------------


@BOTH
@KINDS
@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (5, 3), (2, 1, 4, 2)])
def test_every_derivative_is_that_of_finite_differences(shape, kind, dtype):
    Z, base = point(*shape, size=1.3, dtype=dtype)
    assert differentiable(MAPS[kind], Z.requires_grad_(), base.requires_grad_())


@BOTH
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_no_rank_and_no_repeated_angle_is_special(rank, kind):
    base = torch.eye(7, 3, dtype=torch.float64)
    Z = torch.zeros(7, 3, dtype=torch.float64)
    Z[3 : 3 + rank, :rank] = torch.eye(rank)
    around = MAPS[kind]
    assert differentiable(lambda Z: around(Z, base), Z.requires_grad_())


def test_negative_control_singular_vectors_have_no_derivative_there():
    Z = torch.eye(4, 3, dtype=torch.float64).requires_grad_()
    U, angle, Vh = torch.linalg.svd(Z, full_matrices=False)
    (slope,) = torch.autograd.grad((U * angle.sin() @ Vh).sum(), Z)
    assert not torch.isfinite(slope).all()


@BOTH
def test_the_derivative_at_the_base_is_the_horizontal_part(kind):
    _, base = point(6, 3)
    G = normal(6, 3)
    zero = torch.zeros_like(G).requires_grad_()
    (slope,) = torch.autograd.grad(MAPS[kind](zero, base), zero, G)
    assert_close(slope, linalg.horizontal_slope(G, base))


# ---- Large angles, and where the host may not look ----------------------------------


def test_a_batch_may_have_angles_of_all_sizes():
    pairs = [point(7, 3, size=size) for size in (0.0, 1.0, 3.0, 7.0, 49.0)]
    Z, base = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    around = linalg.horizontal_exponential_at
    loop = torch.stack([around(*pair) for pair in pairs])
    assert_close(around(Z, base), loop, rtol=0, atol=1e-12)
    mapped = torch.func.vmap(around)(Z, base)
    assert_close(mapped, loop, rtol=0, atol=1e-12)


def test_angles_that_are_too_large_where_nobody_looks_give_nan():
    pairs = [point(7, 3, size=3e3), point(7, 3)]
    Z, base = (torch.stack(p) for p in zip(*pairs, strict=True))
    around = linalg.horizontal_exponential_at
    assert off(around(Z, base)[0]) < 1e-9
    found = torch.func.vmap(around)(Z, base)
    assert bool(found[0].isnan().any())
    assert bool(found[1].isfinite().all())


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_numbers_that_are_none_give_nan_in_their_own_matrix(kind, bad):
    pairs = [point(7, 3), point(7, 3)]
    Z, base = (torch.stack(p) for p in zip(*pairs, strict=True))
    alone = MAPS[kind](Z[1], base[1])
    Z[0, 2, 1] = bad
    found = MAPS[kind](Z, base)
    assert bool(found[0].isnan().any())
    assert_close(found[1], alone, rtol=0, atol=1e-14)


def thin_products(call, n, k):
    """Return how many products of an n x k and a k x k matrix a call takes."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / (2 * n * k * k)


@BOTH
def test_it_costs_the_products_that_are_stated(kind):
    n, k = 4000, 4
    Z, base = point(n, k, size=1.0)
    Z.requires_grad_()
    G = normal(n, k)
    assert thin_products(lambda: MAPS[kind](Z, base), n, k) == pytest.approx(5, abs=0.1)
    value = MAPS[kind](Z, base)
    count = thin_products(lambda: value.backward(G), n, k)
    assert count == pytest.approx(6, abs=0.1)


# ---- The map ------------------------------------------------------------------------


def holder(kind, *shape, dtype=torch.float64):
    """Return a module whose weight has moved away from its base."""
    module = nn.Linear(shape[1], shape[0], bias=False, dtype=dtype)
    map_ = maps.Horizontal(kind)
    holdfast.register_parametrization(module, "weight", map_)
    with torch.no_grad():
        module.parametrizations.weight.original.add_(0.3 * normal(*shape).to(dtype))
    return module


@BOTH
def test_any_matrix_keeps_its_span_and_an_orthonormal_one_itself(kind):
    module, W, Q = holder(kind, 7, 3), normal(7, 3), haar(7, 3)
    module.weight = W
    assert_close(projector(module.weight.detach()), projector(haar_of(W)))
    module.weight = Q
    assert_close(module.weight.detach(), Q, rtol=0, atol=1e-15)
    module.weight = Q @ haar(3, 3)
    assert_close(projector(module.weight.detach()), projector(Q))


def haar_of(W):
    return torch.linalg.qr(W).Q


@BOTH
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4)])
@pytest.mark.parametrize("repair", [True, False])
def test_moving_the_base_keeps_the_value(kind, shape, repair):
    module = holder(kind, *shape)
    before, chain = module.weight.detach(), module.parametrizations.weight
    chain.rebase_(repair=repair)
    assert_close(module.weight.detach(), before, rtol=0, atol=1e-14)
    assert not chain.original.any()
    assert_close(chain[0].base, before, rtol=0, atol=1e-14)


@BOTH
@pytest.mark.parametrize("rebase", [False, True])
def test_a_subspace_is_learnt(kind, rebase):
    """The span of the leading eigenvectors, from far away where the base follows."""
    module = holder(kind, 12, 3)
    base = module.parametrizations.weight[0].base
    near = MAPS[kind](0.2 * normal(12, 3), base)
    target = haar(12, 3) if rebase else near
    S = projector(target)
    module.parametrizations.weight.original.data.zero_()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    if rebase:
        holdfast.Rebase(module, optimizer, every=1)
    for _ in range(600):
        optimizer.zero_grad()
        Q = module.weight
        (-(Q.mT @ S @ Q).trace()).backward()
        optimizer.step()
    Q = module.weight.detach()
    assert sets.Grassmann().contains(Q)
    assert_close(projector(Q), projector(target), rtol=0, atol=1e-8)


def test_an_unknown_map_is_refused():
    with pytest.raises(ValueError, match='has to be "cayley" or "matrix_exp"'):
        holder("householder", 4, 2)
    with pytest.raises(ValueError, match="matrix or batch of matrices"):
        holdfast.register_parametrization(nn.Linear(2, 2), "bias", maps.Horizontal())
