"""Low rank and changes of a base: definitions, starts, frozen bases, lost ranks."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets
from holdfast.testing.case import Host
from holdfast.testing.given import AroundGiven, given

DOUBLE = torch.float64
CHANGES = {
    "LoRA": lambda: maps.LoRA(2, alpha=3.0),
    "DoRA": lambda: maps.DoRA(2),
    "OFT": lambda: maps.OFT(block_size=2),
    "Delta": lambda: maps.Delta(maps.LowRank(2)),
}
EACH = pytest.mark.parametrize("kind", CHANGES)


def registered(map_, W, **options):
    host = Host(W.clone())
    return holdfast.register_parametrization(host, "weight", map_, **options)


def held(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def base_of(host):
    return host.parametrizations.weight[0].base


def truncated(W: Tensor, rank: int) -> Tensor:
    """Return numpy's best approximation."""
    U, values, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    return torch.from_numpy(U[:, :rank] * values[:rank] @ Vh[:rank])


def randn(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(shape, dtype=dtype)


# ---- Factors ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DOUBLE, torch.complex128])
def test_factors_are_balanced_and_give_the_nearest_of_their_rank(dtype):
    W = randn(7, 5, dtype=dtype)
    A, B = maps.LowRank(3).right_inverse(W)
    assert_close(A.mH @ A, B.mH @ B)
    assert_close(torch.linalg.norm(A) ** 2, torch.linalg.svdvals(W)[:3].sum())
    assert_close(maps.LowRank(3)(A, B), truncated(W, 3))


def test_a_zero_weight_of_low_rank_can_leave_zero():
    host = registered(maps.LowRank(2), torch.zeros(4, 3))
    assert not host.weight.any()
    (host.weight - 1).square().sum().backward()
    assert any(bool(p.grad.any()) for p in host.parameters())
    A, B = (torch.zeros(n, 2, requires_grad=True) for n in (4, 3))  # balanced: stuck
    (A @ B.mT - 1).square().sum().backward()
    assert not A.grad.any()
    assert not B.grad.any()


def test_a_lost_rank_is_kept_exactly_and_can_be_found_again():
    W = torch.outer(torch.arange(1.0, 5), torch.ones(3))
    host = registered(maps.LowRank(2), W)
    assert_close(host.weight, W)
    (host.weight - torch.eye(4, 3)).square().sum().backward()
    host.parametrizations.weight.original0.data.sub_(
        0.01 * host.parametrizations.weight.original0.grad
    )
    assert int(torch.linalg.matrix_rank(host.weight)) == 2


@pytest.mark.parametrize("map_", [maps.LowRank(2), maps.FixedRank(2)])
@pytest.mark.parametrize(
    "W",
    [torch.eye(4, 3), 1e18 * torch.randn(4, 3), 1e-18 * torch.randn(4, 3)],
    ids=["equal values", "huge", "tiny"],
)
def test_registering_gives_finite_values_and_slopes(map_, W):
    host = registered(map_, W)
    assert_close(host.weight, truncated(W, 2), rtol=1e-4, atol=1e-5 * float(W.max()))
    host.weight.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in host.parameters())


@pytest.mark.parametrize(
    "entries",
    [
        torch.zeros,
        lambda *shape: -torch.zeros(shape),
        torch.ones,
        lambda *shape: 1e6 * torch.ones(shape),
        lambda *shape: 1e6 * torch.randn(shape),
        lambda *shape: 1e-18 * torch.randn(shape),
    ],
    ids=["zero", "minus zero", "equal", "large and equal", "large", "tiny"],
)
def test_coordinates_of_a_fixed_rank_have_finite_slopes(entries):
    map_ = maps.FixedRank(2)
    map_.bind(torch.zeros(4, 3))
    X, Y = (entries(n, 2).requires_grad_() for n in (4, 3))
    W = map_(X, Y)
    assert bool(W.isfinite().all())
    for slope in torch.autograd.grad(W.sum(), (X, Y)):
        assert bool(slope.isfinite().all())


def test_the_singular_values_of_a_fixed_rank_are_on_the_diagonal():
    map_, X, Y = maps.FixedRank(2), randn(5, 2), randn(4, 2)
    map_.bind(torch.zeros(5, 4))
    sizes = linalg.log_size(X.diagonal()).exp().sort(descending=True).values
    assert_close(torch.linalg.svdvals(map_(X, Y))[:2], sizes)


def test_no_coordinates_lose_a_fixed_rank_as_zeros_do_a_low_one():
    fixed, low = maps.FixedRank(2), maps.LowRank(2)
    fixed.bind(torch.zeros(5, 4))
    for scale in (0.0, 1.0, 1e3):
        X, Y = scale * randn(5, 2), scale * randn(4, 2)
        assert sets.FixedRankMatrices(2).contains(fixed(X, Y))
    X[:, 1] = 0
    assert sets.FixedRankMatrices(2).contains(fixed(X, Y))
    assert not sets.FixedRankMatrices(2).contains(low(X, Y))
    assert sets.LowRankMatrices(2).contains(low(X, Y))


@pytest.mark.parametrize(
    ("shape", "rank"), [((64, 48), 8), ((32, 64), 16), ((20, 20), 20)]
)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_right_inverses_are_exact_at_larger_sizes(shape, rank, dtype):
    close = 1e-12 if dtype is DOUBLE else 1e-5
    W = sets.FixedRankMatrices(rank).sample(shape, dtype=dtype)
    base = randn(*shape, dtype=dtype)
    R = sets.Stiefel().sample((shape[1] // 4, 4, 4), dtype=dtype)
    m = torch.rand(shape[0], dtype=dtype) + 0.5
    for map_, value in (
        (maps.LowRank(rank), W),
        (maps.FixedRank(rank), W),
        (maps.LoRA(rank, alpha=0.3), base + W),
        (maps.Delta(maps.FixedRank(rank)), base + W),
        (maps.OFT(4), linalg.turn_columns(base, R)),
        (maps.DoRA(rank), m[:, None] * (base + W)),
    ):
        if rank == 20 and isinstance(map_, maps.DoRA):
            continue  # every matrix is reached, in many ways
        map_.bind(base)
        originals = map_.right_inverse(value)
        again = map_(*([originals] if isinstance(originals, Tensor) else originals))
        error = torch.linalg.norm(again - value) / torch.linalg.norm(value)
        assert float(error) < close, map_


def test_ranks_that_the_shape_does_not_have_are_refused():
    for map_ in (maps.LowRank(4), maps.FixedRank(0)):
        with pytest.raises(errors.InvalidTensorError, match="rank from 1 to the small"):
            registered(map_, torch.ones(5, 3))
    with pytest.raises(errors.InvalidTensorError, match="rank of at least 1. Got 0"):
        registered(maps.LoRA(0), torch.ones(5, 3))
    with pytest.raises(ValueError, match="alpha other than 0, and finite. Got 0"):
        registered(maps.DoRA(1, alpha=0.0), torch.ones(5, 3))
    with pytest.raises(errors.InvalidTensorError, match="matrix or batch of matrices"):
        registered(maps.LoRA(1), torch.ones(5))


# ---- A frozen base ------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(
    "dtype", [torch.float32, DOUBLE, torch.bfloat16, torch.float16, torch.complex64]
)
def test_registering_keeps_the_value_exactly_and_removal_gives_it_back(kind, dtype):
    W = randn(6, 4, dtype=dtype)
    W[1] = 0
    host = registered(CHANGES[kind](), W)
    assert host.parametrizations.weight.moved == 0
    assert torch.equal(host.weight, W)
    host.weight = W
    assert torch.equal(host.weight, W)
    holdfast.remove_parametrizations(host, "weight")
    assert torch.equal(host.weight, W)
    assert type(host.weight) is nn.Parameter


@EACH
def test_the_base_is_saved_and_no_optimizer_moves_it(kind):
    W = torch.randn(6, 4)
    host = registered(CHANGES[kind](), W)
    optimizer = torch.optim.AdamW(host.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        host(torch.randn(6, 4)).backward()
        optimizer.step()
    assert not torch.equal(host.weight, W)
    assert torch.equal(base_of(host), W)
    other = registered(CHANGES[kind](), torch.randn(6, 4))
    other.load_state_dict(host.state_dict())
    assert torch.equal(other.weight, host.weight)
    assert torch.equal(base_of(other), W)
    host.weight = held(host.weight)  # what was trained can be assigned
    assert_close(host.weight, other.weight, atol=1e-5, rtol=1e-5)
    assert torch.equal(base_of(host), W)


@EACH
def test_the_base_is_kept_once(kind):
    layer = nn.Linear(64, 64, bias=False)
    storage = weakref.ref(layer.weight.untyped_storage())
    gc.collect()
    assert storage() is not None
    layer = holdfast.register_parametrization(layer, "weight", CHANGES[kind]())
    gc.collect()
    tensors = [*layer.parameters(), *layer.buffers()]
    assert sum(t.untyped_storage().nbytes() for t in tensors) < 1.2 * 64 * 64 * 4
    assert storage() is None


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "Delta"])
def test_the_base_is_nobody_elses(kind):
    layer, owner = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    layer.weight = nn.Parameter(owner.weight.data)  # the same memory
    before = held(owner.weight)
    layer = holdfast.register_parametrization(layer, "weight", CHANGES[kind]())
    owner.weight.data.add_(1)  # as an optimizer does that trains the owner
    assert torch.equal(layer.weight, before)


@EACH
def test_compiled_changes_are_the_same(kind):
    host = registered(CHANGES[kind](), torch.randn(6, 4))
    for p in host.parameters():
        nn.init.normal_(p)
    x = torch.randn(6, 4)
    slopes = torch.autograd.grad(host(x), [*host.parameters()])
    torch._dynamo.reset()
    compiled = torch.compile(host, backend="aot_eager", fullgraph=True)(x)
    assert_close(compiled, host(x))
    for mine, slope in zip(
        torch.autograd.grad(compiled, [*host.parameters()]), slopes, strict=True
    ):
        assert_close(mine, slope)


@EACH
def test_registering_takes_no_decomposition_of_the_weight(kind, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decomposed")

    for name in ("svd", "svdvals", "qr"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    make = (lambda: maps.Delta(maps.Skew())) if kind == "Delta" else CHANGES[kind]
    host = registered(make(), torch.randn(4, 4))
    assert host.parametrizations.weight.moved == 0
    with pytest.raises(AssertionError, match="decomposed"):
        registered(maps.LowRank(2), torch.randn(4, 4))


def test_a_frozen_weight_has_a_frozen_change_until_it_is_asked_to_train():
    layer = nn.Linear(4, 3).requires_grad_(False)
    layer = holdfast.register_parametrization(layer, "weight", maps.LoRA(2))
    chain = layer.parametrizations.weight
    assert not any(p.requires_grad for p in chain.parameters())
    chain.requires_grad_()
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == [
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ]


@EACH
def test_what_the_base_does_not_lead_to_is_refused_and_changes_nothing(kind):
    host = registered(CHANGES[kind](), randn(6, 4))
    before = {name: t.clone() for name, t in host.state_dict().items()}
    with pytest.raises(errors.NotInSetError, match=r"outside=.project"):
        host.weight = randn(6, 4) * 3
    assert all(torch.equal(t, before[name]) for name, t in host.state_dict().items())


# ---- LoRA ---------------------------------------------------------------------------


def test_lora_is_the_papers_sum_with_either_scale():
    W, B, A = randn(5, 4), randn(5, 2), randn(2, 4)
    for options, scale in (
        ({}, 1.0),
        ({"alpha": 16}, 8.0),
        ({"alpha": 16, "rank_stabilized": True}, 16 / math.sqrt(2)),
        ({"rank_stabilized": True}, math.sqrt(2)),
    ):
        map_ = maps.LoRA(2, **options)
        map_.bind(W)
        assert_close(map_(B, A), W + scale * B @ A)


def test_lora_starts_as_the_authors_code_does():
    layer = nn.Linear(40, 30)
    torch.manual_seed(3)
    layer = holdfast.register_parametrization(layer, "weight", maps.LoRA(8))
    torch.manual_seed(3)
    A = nn.init.kaiming_uniform_(torch.empty(8, 40), a=math.sqrt(5))
    chain = layer.parametrizations.weight
    assert_close(chain.original1.detach(), A)
    assert not chain.original0.any()
    layer.weight.sum().backward()
    assert bool(chain.original0.grad.any())


def test_complex_lora_starts_at_the_same_size():
    host = registered(maps.LoRA(8), torch.randn(30, 400, dtype=torch.complex64))
    A = host.parametrizations.weight.original1.detach()
    assert_close(A.abs().square().mean(), torch.tensor(1 / 1200), rtol=0.1, atol=0)


def test_lora_takes_the_best_part_of_a_target_if_asked_to():
    W, target = randn(6, 5), randn(6, 5)
    host = registered(maps.LoRA(2, alpha=0.7), W, outside="project")
    host.weight = target
    assert_close(held(host.weight), W + truncated(target - W, 2))
    B, A = (held(p) for p in host.parameters())
    assert_close(B.mT @ B, A @ A.mT)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_a_target_that_lacks_rank_leaves_the_rest_of_a_lora_at_its_start(dtype):
    W, change = (X.to(dtype) for X in (randn(6, 5), torch.outer(randn(6), randn(5))))
    host = registered(maps.LoRA(3), W)
    host.weight = W + change
    B, A = (held(p) for p in host.parameters())
    assert_close(held(host.weight), W + change)
    spare = ~B.any(dim=0)
    assert spare.tolist() == [False, True, True]
    assert bool((A[spare].norm(dim=1) > 0.1).all())


def test_the_rank_of_a_lora_may_exceed_the_sizes():
    host = registered(maps.LoRA(8), randn(4, 3))
    host.weight = W = randn(4, 3)
    assert_close(held(host.weight), W)


# ---- DoRA ---------------------------------------------------------------------------


def test_dora_is_the_papers_quotient_and_its_lengths_are_those_of_the_rows():
    W, m, B, A = randn(5, 4), randn(5), randn(5, 2), randn(2, 4)
    map_ = maps.DoRA(2, alpha=6.0)
    map_.bind(W)
    V = W + 3 * B @ A
    assert_close(map_(m, B, A), m[:, None] * V / V.norm(dim=1, keepdim=True))
    assert_close(map_(m, B, A).norm(dim=1), m.abs())


def test_zero_rows_of_a_dora_stay_zero_with_finite_slopes():
    W = torch.randn(4, 3)
    W[2] = 0
    host = registered(maps.DoRA(1), W)
    for _ in range(2):
        host.weight.square().sum().backward()
        for p in host.parameters():
            assert bool(p.grad.isfinite().all())
            p.data.sub_(0.1 * p.grad)
    assert not host.weight[2].any()
    assert bool(host.weight[:2].any())


def test_a_row_that_loses_its_length_can_be_assigned_to_a_dora():
    W = randn(12, 8)
    host = registered(maps.DoRA(1), W)
    target = W.clone()
    target[3] = 0
    target[5] *= -2
    host.weight = target
    assert_close(held(host.weight), target)
    lengths = held(host.parametrizations.weight.original0)
    assert float(lengths[3]) == 0
    assert float(lengths[5]) == pytest.approx(-2 * float(W[5].norm()))


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("size", [0.3, 1.0])
def test_a_dora_finds_changes_as_large_as_the_base(rank, size):
    for _ in range(10):
        base, m = randn(8, 8), torch.rand(8, dtype=DOUBLE) + 0.5
        host = registered(maps.DoRA(rank), base)
        change = size * randn(8, rank) @ randn(rank, 8) / rank**0.5
        W = m[:, None] * (base + change)
        host.weight = W
        assert_close(held(host.weight), W)


def test_multiples_of_rows_are_found_where_there_are_any():
    base, L = randn(40, 30), sets.LowRankMatrices(3).sample((40, 30), dtype=DOUBLE)
    m = torch.rand(40, dtype=DOUBLE) + 0.5
    t = linalg.row_multiples(m[:, None] * (base + L), base, 3, 1e-16)
    assert_close(t, 1 / m)
    plain = linalg.row_multiples(randn(40, 30), base, 3, 1e-16)
    assert int(torch.linalg.matrix_rank(plain[:, None] * randn(40, 30) - base)) > 3


def test_a_batch_of_doras_is_a_loop():
    W = randn(3, 5, 4)
    many = maps.DoRA(2)
    many.bind(W)
    originals = randn(3, 5), randn(3, 5, 2), randn(3, 2, 4)
    for i, values in enumerate(many(*originals)):
        one = maps.DoRA(2)
        one.bind(W[i])
        assert_close(values, one(*(x[i] for x in originals)))


# ---- OFT ----------------------------------------------------------------------------


def energy(W: Tensor) -> Tensor:
    """Return the hyperspherical energy of the paper, of the rows."""
    rows = W / W.norm(dim=1, keepdim=True)
    return (1 / torch.pdist(rows)).sum()


def test_oft_keeps_the_energy_of_the_neurons_and_the_left_side_does_not():
    W = torch.randn(6, 8, dtype=DOUBLE)
    for side, kept in (("right", True), ("left", False)):
        host = registered(maps.OFT(side=side), W)
        nn.init.normal_(host.parametrizations.weight.original)
        assert torch.dist(host.weight, W) > 1
        same = torch.isclose(energy(host.weight), energy(W), rtol=1e-12, atol=0)
        assert bool(same) == kept


def test_oft_is_orthogonal_to_rounding_as_a_truncated_series_is_not():
    x = 0.3 * torch.randn(3, 6)
    map_ = maps.OFT(4)
    map_.bind(torch.eye(12))
    stiefel = sets.Stiefel()
    assert float(stiefel.residual(map_(x))) < 1e-6
    A = linalg.lower_skew(linalg.unpacked_lower(x, 4, strict=True)) / 2
    identity = torch.eye(4)
    series = sum((torch.linalg.matrix_power(A, i) for i in range(1, 5)), identity)
    assert float(stiefel.residual((identity + A) @ series).max()) > 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_oft_moves_to_the_nearest_turned_base(side):
    W, target = randn(6, 4), randn(6, 4)
    host = registered(maps.OFT(2, side=side), W, outside="project")
    host.weight = target
    best = torch.dist(held(host.weight), target)
    chain = host.parametrizations.weight
    for size in (1.0, 1e-2, 1e-3):
        for _ in range(20):
            near = chain[0](chain.original + size * torch.randn_like(chain.original))
            assert torch.dist(near, target) >= best - 1e-12


def test_oft_reaches_turns_of_either_determinant():
    W, R = randn(6, 4), torch.diag(torch.tensor([1.0, -1, -1, -1], dtype=DOUBLE))
    host = registered(maps.OFT(2), W)
    host.weight = W @ R
    assert_close(held(host.weight), W @ R)
    assert base_of(host).equal(W)
    host.weight = W
    assert torch.equal(host.weight, W)
    assert not host.parametrizations.weight.original.any()


@pytest.mark.parametrize("n", [2, 4, 9])
def test_the_condition_of_the_base_does_not_matter_to_a_turn(n):
    U, V, R = (sets.Stiefel().sample((9, k, k), dtype=DOUBLE) for k in (n, 4, 4))
    sizes = torch.logspace(0, -9, min(n, 4), dtype=DOUBLE)
    base = (U[..., : min(n, 4)] * sizes) @ V[..., : min(n, 4), :]
    target = base @ R
    turned = linalg.turn_columns(base, linalg.nearest_turn(target, base, 4))
    assert float((turned - target).abs().max()) < 1e-14
    U, _, Vh = torch.linalg.svd(base.mT @ target)  # what it improves on
    assert float((base @ U @ Vh - target).abs().max()) > 1e-11


def test_blocks_that_do_not_divide_the_side_are_refused():
    with pytest.raises(errors.InvalidTensorError, match="multiple of the block size 4"):
        registered(maps.OFT(4), torch.ones(8, 6))
    with pytest.raises(ValueError, match='side has to be "left" or "right"'):
        registered(maps.OFT(side="top"), torch.ones(4, 4))


# ---- Delta --------------------------------------------------------------------------


def test_a_delta_is_the_base_plus_the_maps_value():
    W, mask = randn(4, 4), torch.eye(4, dtype=torch.bool)
    host = registered(maps.Delta(maps.Mask(mask)), W)
    assert torch.equal(host.weight, W)
    host.weight = W + torch.eye(4)
    assert_close(held(host.weight), W + torch.eye(4))
    assert_close(held(host.parametrizations.weight.original), torch.eye(4).to(DOUBLE))


def test_a_map_that_cannot_make_zero_moves_the_value_unless_the_base_is_trained():
    W = randn(4, 3)
    moved = registered(maps.Delta(maps.ThinOrthogonal()), W)
    assert moved.parametrizations.weight.moved > 0.1
    assert_close(torch.linalg.svdvals(moved.weight - W), torch.ones(3, dtype=DOUBLE))
    kept = registered(maps.Delta(maps.ThinOrthogonal(), train_base=True), W)
    assert_close(held(kept.weight), W)
    assert kept.parametrizations.weight.ntensors == 2
    assert base_of(kept) is None


def test_a_delta_rebases_its_map_and_not_itself():
    W = randn(4, 3)
    host = registered(maps.Delta(maps.ThinOrthogonal()), W)
    chain = host.parametrizations.weight
    nn.init.normal_(chain.original)
    before = held(host.weight)
    chain.rebase_()
    assert_close(held(host.weight), before)
    assert not chain.original.any()
    assert torch.equal(base_of(host), W)


def test_a_delta_of_a_map_without_a_right_inverse_says_so():
    delta = maps.Delta(maps.Orthogonal("cayley", use_trivialization=False))
    host = registered(delta, torch.eye(3))
    with pytest.raises(errors.NoRightInverseError, match="not possible to assign"):
        host.weight = torch.eye(3)


# ---- Layers, and what they count ----------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parametrizations.weight.parameters())


@pytest.mark.parametrize(
    ("make", "rows", "n", "k"),
    [
        (lambda: nn.Linear(12, 8), 0, 8, 12),
        (lambda: nn.Conv2d(4, 8, 3), 0, 8, 36),
        (lambda: nn.Embedding(10, 6), 1, 6, 10),
    ],
    ids=["linear", "conv", "embedding"],
)
def test_layers_keep_their_value_and_count_parameters_as_peft(make, rows, n, k):
    for map_, expected in (
        (maps.LoRA(2), 2 * (n + k)),
        (maps.DoRA(2), 2 * (n + k) + n),
        (maps.OFT(2), k // 2),
        (maps.LowRank(2), 2 * (n + k)),
    ):
        layer = make()
        W = held(layer.weight)
        map_ = maps.Matricized(map_, rows=rows)
        layer = holdfast.register_parametrization(layer, "weight", map_)
        assert count(layer) == expected
        if not isinstance(map_.map, maps.LowRank):
            assert torch.equal(layer.weight, W)
        layer.weight.square().sum().backward()
        assert all(p.grad is not None for p in layer.parametrizations.parameters())
        holdfast.remove_parametrizations(layer, "weight")
        assert isinstance(map_.map, maps.LowRank) or torch.equal(layer.weight, W)


def test_a_given_base_is_one_that_cases_know():
    map_ = AroundGiven(maps.LoRA(2))
    map_.bind(torch.zeros(2, 5, 4, dtype=DOUBLE))
    assert_close(map_.map.base[1], given((5, 4)))
    assert not sets.Shifted(sets.LowRankMatrices(2), given((5, 4))).contains(
        randn(5, 4)
    )


def test_a_base_of_another_shape_is_outside():
    for constraint in (
        sets.Shifted(sets.LowRankMatrices(1), torch.eye(3)),
        sets.Isometric(torch.eye(3)),
    ):
        assert constraint.residual(torch.eye(4)) == math.inf
        assert constraint.residual(torch.ones(3)) == math.inf
        with pytest.raises(errors.InvalidTensorError, match="the base's shape"):
            constraint.project(torch.eye(4))


def test_a_zero_change_is_inside_where_the_set_has_zero():
    W = torch.randn(3, 3)
    assert sets.Shifted(sets.LowRankMatrices(1), W).contains(W)
    assert not sets.Shifted(sets.Stiefel(), W).contains(W)


def test_complex_factors_train_with_adam():
    host = Host(torch.randn(5, 4, dtype=torch.complex64))
    holdfast.register_parametrization(host, "weight", maps.LowRank(2))
    before = host.weight.detach().clone()
    steps = torch.optim.Adam(host.parameters())
    host.weight.abs().sum().backward()
    steps.step()
    assert not torch.equal(host.weight, before)
