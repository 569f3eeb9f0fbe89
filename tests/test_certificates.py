"""What sets tell without a decomposition is a bound of what they tell with one."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from holdfast import sets
from holdfast.linalg import certificates
from holdfast.linalg.tolerances import tolerance

N = 24


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=dtype)


def exact(constraint: sets.Constraint, W: Tensor) -> Tensor:
    """Return the residual by decompositions, which have derivatives."""
    with torch.enable_grad():
        return constraint.residual(W.clone().requires_grad_()).detach()


BASE = normal(N, N, seed=7)
SETS: dict[str, sets.Constraint] = {
    "low rank": sets.LowRankMatrices(3),
    "fixed rank": sets.FixedRankMatrices(3),
    "change of low rank": sets.Shifted(sets.LowRankMatrices(3), BASE),
    "Kronecker": sets.KroneckerProducts((4, 6)),
    "factor model": sets.LowRankPlusDiagonalMatrices(2),
    "turned": sets.Isometric(BASE),
    "turned in blocks": sets.Isometric(BASE, block_size=6, side="left"),
    "continuous": sets.Hurwitz(0.1),
    "discrete": sets.SchurStable(0.9),
    "invertible": sets.GeneralLinear(),
    "positive determinant": sets.PositiveDeterminant(),
    "unit determinant": sets.SpecialLinear(),
    "spectral ball": sets.SpectralBall(1.5),
    "singular values": sets.SingularValuesIn(0.5, high=2.0),
    "definite": sets.SymmetricPositiveDefinite(),
    "spectrum": sets.SpectrumIn(-1.0, high=2.0),
    "semidefinite": sets.PositiveSemidefinite(),
    "correlation": sets.CorrelationMatrices(),
    "sparse": sets.KSparse(40),
    "sparse rows": sets.KSparse(3, axis=-1),
    "N:M": sets.NMSparse(2, 4, axis=-2),
}
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)


def samples(constraint: sets.Constraint, dtype: torch.dtype) -> list[Tensor]:
    """Return matrices that are inside, about on the boundary, and outside."""
    point = constraint.project(normal(N, N, seed=1, dtype=dtype))
    noise = normal(N, N, seed=2, dtype=dtype)
    found = [point, constraint.sample((N, N), dtype=dtype), noise, torch.zeros(N, N)]
    size = float(torch.linalg.vector_norm(point) / torch.linalg.vector_norm(noise))
    limit = tolerance(point)
    for share in (1e-2, 0.3, 1.0, 3.0, 100.0):
        found.append((point + share * limit * size * noise).to(dtype))
        symmetric = noise + noise.mH
        found.append((point + share * limit * size * symmetric).to(dtype))
    return [W.to(dtype) for W in found]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_residual_is_a_bound_and_the_verdict_is_the_same(name, dtype):
    constraint = SETS[name]
    if dtype.is_complex and "determinant" in name:
        dtype = torch.float32
    for W in samples(constraint, dtype):
        told, true = constraint.residual(W), exact(constraint, W)
        assert told.shape == true.shape
        # to the rounding of the decomposition
        assert bool((told >= true * (1 - 1e-9) - 1e-13).all())
        if bool((true > tolerance(W)).any()):
            assert_close(told, true, rtol=1e-9, atol=1e-13, check_dtype=False)
        if not bool(((true / tolerance(W) - 1).abs() < 0.05).any()):  # or by a rounding
            assert constraint.contains(W) == bool((true <= tolerance(W)).all())


def decomposing(monkeypatch) -> list[str]:
    """Note which decompositions run from now on."""
    found: list[str] = []
    for name in ("svd", "svdvals", "eigvals", "eigvalsh", "eigh"):
        function = getattr(torch.linalg, name)

        def noted(X, *rest, _name=name, _function=function, **options):
            if min(X.shape[-2:]) >= N // 4:
                found.append(_name)
            return _function(X, *rest, **options)

        monkeypatch.setattr(torch.linalg, name, noted)
    return found


@pytest.mark.parametrize("name", [n for n in SETS if n != "factor model"])
def test_what_is_inside_is_not_decomposed(name, monkeypatch):
    W = SETS[name].sample((N, N), generator=torch.Generator().manual_seed(3))
    if name in ("continuous", "discrete"):  # inside, and not by a hair
        W = 0.5 * W - (torch.eye(N) if name == "continuous" else 0.0)
    ran = decomposing(monkeypatch)
    assert SETS[name].contains(W)
    assert ran == []


@pytest.mark.parametrize("name", [n for n in SETS if "sparse" not in n and n != "N:M"])
def test_what_is_outside_is_measured_by_a_decomposition(name, monkeypatch):
    """The control of the test above: it sees the decompositions."""
    W = -normal(N, N, seed=5, dtype=torch.float32)
    if name in ("invertible", "positive determinant"):
        W = torch.ones(N, N)
    ran = decomposing(monkeypatch)
    assert not SETS[name].contains(W)
    assert ran != []


def test_in_a_batch_one_that_is_outside_is_found():
    for name, constraint in SETS.items():
        if name == "sparse":  # one number for the tensor
            continue
        inside = constraint.sample((2, N, N))
        outside = torch.stack([inside[0], -normal(N, N, dtype=torch.float32)])
        if name in ("invertible", "positive determinant"):
            outside[1] = 1.0
        assert constraint.contains(inside), name
        assert not constraint.contains(outside), name
        assert float(constraint.residual(outside)[0]) <= tolerance(inside), name


BY_ROUNDING = {"fixed rank", "invertible", "positive determinant"}


@pytest.mark.parametrize("name", sorted(SETS.keys() - BY_ROUNDING))
def test_integers_are_numbers(name):
    W = torch.eye(N, dtype=torch.int64) * 2
    found, expected = (SETS[name].residual(X) for X in (W, W.double()))
    assert_close(found.double(), expected.double())


def test_what_is_not_finite_is_in_no_set():
    for name, value in itertools.product(SETS, (torch.nan, torch.inf)):
        W = SETS[name].sample((N, N))
        W[2, 3] = W[3, 2] = value
        with contextlib.suppress(torch.linalg.LinAlgError):  # of a decomposition
            assert not SETS[name].contains(W), name


@pytest.mark.parametrize("seed", range(20))
def test_definite_is_said_of_definite_matrices_only(seed):
    V = torch.linalg.qr(normal(N, N, seed=seed)).Q
    values = normal(N, seed=seed + 100).exp()
    for smallest in (-1e-3, -1e-12, 0.0, 1e-9, 1e-3):
        values[0] = smallest
        H = (V * values) @ V.mT
        told = certificates.surely_definite((H + H.mT) / 2)
        assert told == (smallest >= 1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_intervals_are_told_of_values_inside_only(seed):
    U, _, Vh = torch.linalg.svd(normal(N, N, seed=seed))
    values = torch.linspace(1.0, 2.0, N, dtype=torch.float64)
    W = (U * values) @ Vh
    for room, expected in ((1e-6, True), (-1e-12, False), (-1e-6, False)):
        assert certificates.surely_between(W, 1 - room, 2 + room) is expected
        assert certificates.surely_between(W, 0.0, 2 + room) is expected
        assert certificates.surely_between(W, 1 - room, torch.inf) is expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("skewed", [0.0, 1.0, 1e4])
def test_decay_is_told_of_matrices_that_decay_only(seed, skewed):
    V = normal(N, N, seed=seed) + skewed * normal(N, 1, seed=seed + 1)
    phases = torch.polar(torch.ones(N).double(), normal(N, seed=seed + 2))
    for radius in (0.5, 0.9, 1.001, 1.5):
        values = radius * phases
        W = torch.linalg.solve(V + 0j, values.unsqueeze(-1) * (V + 0j))
        told = certificates.surely_decays(W)
        assert not (told and radius > 1)
        if radius == 0.5 and skewed < 1e4:
            assert told


def test_decay_is_not_told_of_what_only_seems_to():
    """All eigenvalues of a nilpotent matrix are zero, but not of a neighbour of it."""
    J = 1.2 * torch.diag(torch.ones(N - 1).double(), 1)
    assert certificates.surely_decays(J)
    J[-1, 0] = 1.2**-23 * 2  # the eigenvalues are roots of 2
    assert float(torch.linalg.eigvals(J).abs().max()) > 1
    assert not certificates.surely_decays(J)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_columns_are_as_good_as_singular_vectors_for_a_matrix_of_that_rank(dtype):
    for seed in range(20):
        sizes = 10 ** normal(3, seed=seed)
        left, right = (normal(40, 3, seed=seed + s, dtype=dtype) for s in (1, 2))
        W = (left * sizes) @ right[:N].mH
        off = certificates.beyond_rank(W, 3)
        assert off is not None
        assert float(off) < 1e-13 * float(torch.linalg.matrix_norm(W))
        more = certificates.beyond_rank(W, 2)
        assert more is not None
        assert float(more) >= float(torch.linalg.svdvals(W)[2]) * (1 - 1e-12)


def test_of_a_determinant_that_rounding_does_not_tell_from_zero():
    """Its logarithm over its sensitivity is small, but it is far from 1."""
    special = sets.SpecialLinear()
    for W in (torch.arange(9.0).reshape(3, 3), normal(64, 8) @ normal(8, 64, seed=1)):
        assert not special.contains(W)
        assert float(special.residual(W)) < 1
    for small in (1e-9, 1e-3, 0.05, 0.1, 0.111):
        W = torch.diag(torch.tensor([3.0, 3.0, small]).double())
        away = (1 / 9 - small) / torch.linalg.matrix_norm(W)
        assert_close(exact(special, W), away, rtol=1e-2, atol=0.0)


# those that looked at no values before
MAPPED = {*SETS} - {"low rank", "change of low rank", "turned", "turned in blocks"}
MAPPED -= {"sparse", "factor model"}


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_nothing_is_looked_at_where_functions_are_transformed(name):
    constraint = SETS[name]
    W = constraint.sample((2, N, N), dtype=torch.float64)
    mapped = torch.func.vmap(constraint.residual)(W)
    assert_close(mapped, exact(constraint, W), rtol=1e-6, atol=1e-12)


def test_looking_at_weights_draws_no_random_numbers():
    model = nn.Sequential(holdfast.low_rank(nn.Linear(N, N), rank=2))
    state = torch.get_rng_state()
    holdfast.residuals(model)
    assert torch.equal(torch.get_rng_state(), state)
