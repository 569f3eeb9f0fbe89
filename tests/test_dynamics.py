"""Stable dynamics: the spectrum, the equations of Lyapunov, and diagonals."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import holdfast
import set_laws
from holdfast import errors, linalg, maps, sets

SETS = {
    "left half plane": sets.Hurwitz(),
    "further left": sets.Hurwitz(0.5),
    "disc": sets.SchurStable(),
    "smaller disc": sets.SchurStable(0.5),
    "unit disc": sets.UnitDisc(),
}
SQUARE = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))
MATRICES = (maps.Lyapunov(), maps.Lyapunov(0.5), maps.Stein(), maps.Stein(0.5))

names = pytest.mark.parametrize("name", SETS)
matrices = pytest.mark.parametrize("map_", MATRICES, ids=str)
exact = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def excess(map_, W: Tensor) -> Tensor:
    """Return how far the spectrum is beyond the bound, positive for outside."""
    values = torch.linalg.eigvals(W.to(torch.complex128))
    if isinstance(map_, maps.Lyapunov):
        return (values.real + map_.alpha).amax(-1)
    return (values.abs() - map_.rho).amax(-1)


def with_spectrum(values: list[complex], coupling: float = 0.3) -> Tensor:
    """Return a complex upper triangular matrix, in another basis."""
    n = len(values)
    T = torch.diag(torch.tensor(values, dtype=torch.complex128))
    T = T + coupling * torch.randn(n, n, dtype=torch.complex128).triu(1)
    Q = sets.Stiefel().sample((n, n), dtype=torch.complex128)
    return Q @ T @ Q.mH


# ---- The sets -----------------------------------------------------------------------


@names
@pytest.mark.parametrize("dtype", set_laws.TYPES, ids=str)
def test_samples_and_projections_are_inside(name, dtype):
    for shape in SQUARE:
        set_laws.law_membership(SETS[name], shape, dtype)


@names
@exact
def test_what_is_inside_stays_and_the_sets_have_full_dimension(name, dtype):
    for shape in SQUARE[:3]:
        set_laws.law_kept(SETS[name], shape, dtype)
        set_laws.law_dimension(SETS[name], shape, dtype)


def test_the_residual_is_how_far_the_spectrum_is_outside():
    for alpha in (0.0, 0.5):

        def right(eps, alpha=alpha):
            W = with_spectrum([-alpha + eps, -alpha - 1, -alpha - 0.5 + 0.2j])
            return W / torch.linalg.matrix_norm(W, 2) if alpha == 0 else W

        set_laws.law_residual(sets.Hurwitz(alpha), right)
    for rho in (1.0, 0.5):

        def large(eps, rho=rho):
            return with_spectrum([rho * (1 + eps) * 1j, rho / 2, 0.1], 0.3 * rho)

        set_laws.law_residual(sets.SchurStable(rho), large)
    set_laws.law_residual(
        sets.UnitDisc(),
        lambda eps: torch.tensor([0.5, (1 + eps) * 1j], dtype=torch.complex128),
    )


def test_the_spectrum_decides_and_not_the_norm():
    large = torch.tensor([[0.5, 100.0], [0.0, -0.5]])
    assert sets.SchurStable().contains(large)
    assert not sets.SpectralBall().contains(large)
    rotation = torch.tensor([[0.0, -9.0], [9.0, 0.0]])
    assert sets.Hurwitz().contains(rotation - torch.eye(2))
    assert not sets.Hurwitz().contains(rotation + 0.01 * torch.eye(2))
    assert sets.Hurwitz().contains(torch.zeros(2, 2))
    assert not sets.Hurwitz(0.1).contains(torch.zeros(2, 2))


def test_what_is_not_square_is_outside():
    for name in list(SETS)[:-1]:
        assert not SETS[name].contains(torch.zeros(2, 3))
        with pytest.raises(errors.InvalidTensorError, match="Expected a square matrix"):
            SETS[name].project(torch.zeros(2, 3))


def test_the_nearest_point_of_the_disc():
    set_laws.law_nearest(sets.UnitDisc(), (5,), torch.complex128)
    W = torch.tensor([3 + 4j, 0.1, -2])
    assert_close(sets.UnitDisc().project(W), torch.tensor([0.6 + 0.8j, 0.1, -1]))


# ---- Images -------------------------------------------------------------------------


@matrices
@exact
def test_every_original_gives_a_stable_matrix_even_of_64_rows(map_, dtype):
    for n, count in ((64, 60), (8, 300), (2, 1000)):
        X = torch.randn(count, n, n, dtype=dtype)
        assert float(excess(map_, map_(X)).max()) < 0


@matrices
def test_a_wrong_sign_would_be_seen(map_):
    X = torch.randn(60, 64, 64, dtype=torch.float64)
    W = -map_(X) if isinstance(map_, maps.Lyapunov) else torch.linalg.inv(map_(X))
    assert float(excess(map_, W).min()) > 0


@matrices
def test_the_originals_are_as_many_as_the_entries_and_none_is_idle(map_):
    """The derivative has full rank: the map is a local coordinate system."""
    for dtype in (torch.float64, torch.complex128):
        X = torch.randn(4, 4, dtype=dtype)
        if dtype.is_complex:
            parts = torch.view_as_real(X)
            J = torch.func.jacrev(
                lambda x: torch.view_as_real(map_(torch.view_as_complex(x)))
            )(parts)
        else:
            J = torch.func.jacrev(map_)(X)
        count = 16 * (2 if dtype.is_complex else 1)
        assert int(torch.linalg.matrix_rank(J.reshape(count, count))) == count


@matrices
@exact
def test_the_map_is_one_to_one(map_, dtype):
    X = torch.randn(20, 6, 6, dtype=dtype)
    assert_close(map_.right_inverse(map_(X)), X, rtol=1e-8, atol=1e-8)


# ---- Right inverses -----------------------------------------------------------------


@matrices
def test_the_right_inverse_of_large_matrices_is_exact(map_):
    for n in (1, 2, 64, 100):
        W = map_.codomain.sample((n, n), dtype=torch.float64)
        assert_close(map_(map_.right_inverse(W)), W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_the_right_inverse_near_the_boundary_is_close(gap):
    rotation = sets.Stiefel().sample((8, 8), dtype=torch.float64)
    rotation[0] *= torch.linalg.det(rotation).sign()  # and so without eigenvalue -1
    for map_, W in (
        (maps.Stein(), (1 - gap) * rotation),
        (maps.Stein(), (gap - 1) * torch.eye(8, dtype=torch.float64)),
        (maps.Lyapunov(), rotation - rotation.mT - gap * torch.eye(8)),
    ):
        W = W.double()
        assert_close(map_(map_.right_inverse(W)), W, rtol=0, atol=1e-8)


def test_matrices_without_a_basis_of_eigenvectors_have_a_right_inverse():
    block = 0.2 * torch.diag(torch.ones(5), 1).double()
    identity = torch.eye(6, dtype=torch.float64)
    for map_, W in (
        (maps.Stein(), 0.5 * identity + block),
        (maps.Lyapunov(), block - 0.5 * identity),
    ):
        assert_close(map_(map_.right_inverse(W)), W, rtol=0, atol=1e-12)


def test_the_identity_is_on_the_boundary_and_kept_to_rounding():
    identity = torch.eye(3, dtype=torch.float64)
    stein, lyapunov = maps.Stein(), maps.Lyapunov(1.0)
    for map_, W in ((stein, identity), (stein, -identity), (lyapunov, -identity)):
        assert_close(map_(map_.right_inverse(W)), W, rtol=0, atol=1e-15)


def test_a_right_inverse_that_would_miss_is_refused():
    layer = holdfast.register_parametrization(nn.Linear(6, 6), "weight", maps.Stein())
    before = layer.weight.detach().clone()
    tangled = torch.eye(6) + torch.diag(torch.ones(5), 1)
    with pytest.raises(errors.NonFiniteError, match="away from the boundary"):
        layer.weight = tangled
    with pytest.raises(errors.NotInSetError, match=r"SchurStable\(\)"):
        layer.weight = 2 * torch.eye(6)
    assert torch.equal(layer.weight, before)


def test_the_solutions_are_those_of_scipy():
    A = sets.Hurwitz().sample((3, 7, 7), dtype=torch.float64)
    W = sets.SchurStable().sample((3, 7, 7), dtype=torch.float64)
    Q = torch.randn(3, 7, 7, dtype=torch.float64)
    Q = Q @ Q.mT
    P, R = linalg.continuous_lyapunov(A, Q), linalg.discrete_lyapunov(W, Q)
    for i in range(3):
        expected = scipy.linalg.solve_continuous_lyapunov(A[i].T, -Q[i])
        assert_close(P[i], torch.from_numpy(expected), rtol=1e-11, atol=1e-11)
        expected = scipy.linalg.solve_discrete_lyapunov(W[i].T, Q[i])
        assert_close(R[i], torch.from_numpy(expected), rtol=1e-11, atol=1e-11)
        assert not torch.allclose(P[i], R[i])


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.entries = max(self.entries, value.numel())
        return out


@pytest.mark.parametrize("map_", [maps.Lyapunov(), maps.Stein()], ids=str)
def test_the_right_inverse_costs_n_cubed_and_makes_no_larger_matrix(map_):
    counts = []
    for n in (16, 32, 64):
        W = map_.codomain.sample((n, n), dtype=torch.float64)
        with FlopCounterMode(display=False) as flops, Largest() as largest:
            map_.right_inverse(W)
        assert largest.entries == n * n
        counts.append(flops.get_total_flops())
    assert counts[0] > 16**3
    assert counts[2] == 8 * counts[1] == 64 * counts[0]


# ---- Degenerate originals and wrong arguments ---------------------------------------


def test_degenerate_originals_have_finite_values_and_gradients():
    for dtype in (torch.float32, torch.float64):
        for factor in (1e18, 1e-18, 0.0, -0.0, 1e3):
            for map_ in MATRICES:
                if factor > 1e9 and dtype is torch.float32:
                    factor = 1e12  # its cube is what the type can hold
                X = torch.randn(4, 4, dtype=dtype) * factor
                X[0] = 0
                set_laws.law_finite(map_, X)
                set_laws.law_finite(map_, -X.abs())
                value = map_(X)
                assert bool(map_.codomain.residual(value) <= 1e-5)


def test_wrong_arguments_are_refused():
    for rho in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="`rho` to be positive and finite. Got"):
            holdfast.register_parametrization(
                nn.Linear(2, 2), "weight", maps.Stein(rho)
            )
    with pytest.raises(errors.InvalidTensorError, match="of a complex type. Got a"):
        holdfast.register_parametrization(nn.Linear(2, 2), "weight", maps.LRU())
    for map_ in (maps.Stein(), maps.Lyapunov()):
        with pytest.raises(errors.InvalidTensorError, match="square matri"):
            holdfast.register_parametrization(nn.Linear(2, 3), "weight", map_)


# ---- Diagonals ----------------------------------------------------------------------


def test_the_diagonal_is_that_of_the_paper():
    nu, phi = torch.randn(2, 5, dtype=torch.float64)
    expected = torch.exp(torch.complex(-nu.exp(), phi.exp()))
    assert_close(maps.LRU()(nu, phi), expected)


def test_the_inverse_is_exact_on_the_whole_disc_even_at_zero_and_at_the_edge():
    for dtype, atol in ((torch.complex64, 1e-6), (torch.complex128, 1e-14)):
        values = [0, 1e-30, 1e-3j, 0.5, -0.5, 1 - 1e-6, -1j, 1, -1, 0.6 + 0.8j, -0.3j]
        W = torch.tensor(values, dtype=dtype)
        nu, phi = maps.LRU().right_inverse(W)
        assert nu.dtype == phi.dtype == dtype.to_real()
        assert bool(torch.isfinite(torch.stack([nu, phi])).all())
        assert_close(maps.LRU()(nu, phi), W, rtol=0, atol=atol)
        assert bool((maps.LRU()(nu, phi).abs() <= 1 + atol).all())


def test_a_batch_of_diagonals_is_a_loop():
    nu, phi = torch.randn(2, 3, 5, dtype=torch.float64)
    loop = torch.stack([maps.LRU()(a, b) for a, b in zip(nu, phi, strict=True)])
    assert_close(maps.LRU()(nu, phi), loop)
    assert_close(torch.vmap(maps.LRU())(nu, phi), loop)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_rates_and_phases_have_finite_values_and_gradients(dtype):
    for size in (1e18, -1e18, 30.0, 7.0, 0.0, -0.0, 1e-18):
        leaf = torch.full((2, 1), size, dtype=dtype, requires_grad=True)
        value = torch.view_as_real(maps.LRU()(*leaf))
        value.sum().backward()
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(leaf.grad).all())
        assert float(value.detach().square().sum()) <= 1 + 1e-6


def test_a_complex_parameter_trains_and_stays_inside():
    host = nn.Module()
    host.diagonal = nn.Parameter(torch.randn(6, dtype=torch.complex64))
    holdfast.register_parametrization(host, "diagonal", maps.LRU())
    assert all(not p.is_complex() for p in host.parameters())
    before = host.diagonal.detach().clone()
    optimizer = torch.optim.AdamW(host.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (-host.diagonal.abs().sum()).backward()
        optimizer.step()
        assert sets.UnitDisc().contains(host.diagonal)
    assert not torch.equal(host.diagonal, before)


def test_torchs_registration_of_a_diagonal_keeps_its_value(tmp_path):
    host = nn.Module()
    W = sets.UnitDisc().sample((6,), dtype=torch.complex64)
    host.diagonal = nn.Parameter(W)
    parametrize.register_parametrization(host, "diagonal", maps.LRU())
    assert_close(host.diagonal.detach(), W, rtol=0, atol=1e-6)
    save_file(host.state_dict(), tmp_path / "diagonal.safetensors")
    host.diagonal = W / 2
    assert_close(host.diagonal.detach(), W / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("map_", [maps.Lyapunov(), maps.Stein()], ids=str)
def test_a_value_that_its_rounded_original_misses_is_refused(map_):
    A = torch.randn(32, 32, generator=torch.Generator().manual_seed(3)).double()
    values = torch.linalg.eigvals(A)
    if isinstance(map_, maps.Lyapunov):
        W = A - (values.real.max() + 1e-6) * torch.eye(32)
    else:
        W = A / values.abs().max() * (1 - 1e-6)
    assert_close(map_(map_.right_inverse(W)), W, rtol=0, atol=1e-4)
    X = map_.right_inverse(W.float())
    missed = torch.linalg.matrix_norm(map_(X) - W) / torch.linalg.matrix_norm(W)
    assert bool(missed.isnan()) or missed < 1e-3
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        projected = map_.codomain.project(A.to(dtype))
        assert bool(torch.isfinite(map_.right_inverse(projected)).all())
