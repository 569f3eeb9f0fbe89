"""What is special to norms: oracles, edges, errors, and wrong formulas found out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets

EXACT = (torch.float64, torch.complex128)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype)


def registered(map_: holdfast.Parametrization, weight: torch.Tensor) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter(weight)
    return holdfast.register_parametrization(layer, "weight", map_)


# ---- Slices over their norms --------------------------------------------------------


@pytest.mark.parametrize("dim", [-1, 0, (0, 2), (-1, 1), None])
def test_slices_run_along_any_dimensions(dim):
    V = normal(3, 4, 5)
    dims = tuple(range(3)) if dim is None else dim
    expected = 2 * V / torch.linalg.vector_norm(V, dim=dims, keepdim=True)
    assert_close(maps.Normalize(2.0, dim)(V), expected)


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_the_size_of_a_slice_does_not_matter(size):
    V = normal(2, 5000, dtype=torch.float32)
    expected = F.normalize(V, dim=-1)
    leaf = (size * V).requires_grad_()
    value = maps.Normalize()(leaf)
    assert_close(value, expected)
    G = torch.randn_like(V)
    (slope,) = torch.autograd.grad(value, leaf, G)
    tangent = G - expected * (G * expected).sum(-1, keepdim=True)
    assert_close(slope * size, tangent / V.norm(dim=-1, keepdim=True))


def test_a_plain_quotient_is_found_out_by_the_size():
    V = normal(5000, dtype=torch.float32)
    assert not bool((F.normalize(1e18 * V, dim=-1) != 0).any())


@pytest.mark.parametrize("map_", [maps.Normalize(), maps.Standardize()], ids=str)
def test_training_leaves_a_slice_of_zeros(map_):
    V = torch.zeros(2, 4).requires_grad_()
    W = map_(V)
    assert map_.codomain.contains(W)
    (W * torch.arange(4.0)).sum().backward()
    assert bool(V.grad.isfinite().all())
    assert bool(map_(V - 0.1 * V.grad).isfinite().all())
    target = torch.tensor([3.0, 1.0, 2.0, 5.0])
    (slope,) = torch.autograd.grad((map_(V) * target).sum(), V)
    assert bool(slope.any())


# ---- Great circles ------------------------------------------------------------------


def test_the_angle_is_the_length_of_the_tangent_vector():
    base, X = linalg.normalized(normal(3, 5)), normal(3, 5)
    v = X - (X * base).sum(-1, keepdim=True) * base
    W = linalg.sphere_exponential(X, base)
    cosine = (W * base).sum(-1)
    assert_close(cosine, v.norm(dim=-1).cos())
    assert_close(W, linalg.sphere_exponential(v, base))


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-3, 0.2, 3.0])
def test_derivatives_of_great_circles_are_right_near_zero(size, dtype):
    base = linalg.normalized(normal(2, 3, dtype=dtype))
    X = (size * normal(2, 3, dtype=dtype)).requires_grad_()

    def circle(X):
        return linalg.sphere_exponential(X, base)

    assert torch.autograd.gradcheck(circle, X, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(circle, X)


def circle_by_lengths(X: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """The obvious formula, whose length has no second derivative at zero."""
    v = X - (X * base).sum(-1, keepdim=True) * base
    length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return length.cos() * base + torch.sinc(length / math.pi) * v


def bending(circle) -> float:
    """Return the second derivative at the base along a tangent unit vector."""
    base, v = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    X = torch.zeros(2, dtype=torch.float64)
    along = torch.func.hessian(lambda X: (circle(X, base) * base).sum())(X)
    return float(v @ along @ v)


def test_a_great_circle_bends_at_its_base():
    assert bending(linalg.sphere_exponential) == -1
    assert bending(circle_by_lengths) != -1


def test_what_lies_along_the_base_does_not_leave_the_sphere():
    base = linalg.normalized(torch.randn(4, 64))
    X = 1e4 * base + torch.randn(4, 64)
    W = linalg.sphere_exponential(X, base)
    assert float((W.double().norm(dim=-1) - 1).abs().max()) < 1e-6
    assert float((circle_by_lengths(X, base).norm(dim=-1) - 1).abs().max()) > 1e-6


def test_the_base_follows_an_optimizer():
    layer = registered(maps.SphereExp(2.0, -2), torch.randn(4, 3))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    holdfast.Rebase(layer, optimizer, every=1, repair_every=2)
    for _ in range(4):
        before = layer.weight.detach().clone()
        (layer.weight * torch.ones(4, 3)).sum().backward()
        optimizer.step()
        assert not bool(layer.parametrizations.weight.original.any())
        assert not torch.equal(layer.weight, before)
        assert sets.Sphere(2.0, -2).contains(layer.weight)
        assert_close(layer.weight, 2 * layer.parametrizations.weight[0].base)
        optimizer.zero_grad()


# ---- Balls --------------------------------------------------------------------------


def obtuse(W: torch.Tensor, P: torch.Tensor, points: torch.Tensor) -> bool:
    """Tell whether P is the nearest point to W of a convex set, by its points."""
    return float(((W - P).conj() * (points - P)).real.sum(-1).max()) < 1e-9


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("p", [1, 2, "inf"])
def test_the_nearest_point_of_a_ball_sees_it_under_obtuse_angles(p, dtype):
    ball = sets.LpBall(p, 1.5)
    points = ball.sample((2000, 4), dtype=dtype)
    norms = torch.linalg.vector_norm(points, float(p), -1, keepdim=True)
    points = torch.cat([points, 1.5 * points / norms])
    for _ in range(10):
        W = normal(4, dtype=dtype) * 2
        assert obtuse(W, ball.project(W), points)


def test_a_rescaled_point_is_not_the_nearest_one():
    W = torch.tensor([3.0, 1.0, 0.1, 0.0]).double()
    points = sets.LpBall(1).sample((2000, 4), dtype=torch.float64)
    points = torch.cat([points, torch.eye(4).double(), -torch.eye(4).double()])
    assert obtuse(W, sets.LpBall(1).project(W), points)
    assert not obtuse(W, W / W.abs().sum(), points)


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_samples_of_the_euclidean_ball_are_uniform(dtype):
    W = sets.LpBall(radius=2.0).sample((40000, 3), dtype=dtype)
    entries = 6 if dtype.is_complex else 3
    volume = (torch.linalg.vector_norm(W, dim=-1) / 2) ** entries
    levels = torch.linspace(0.1, 0.9, 9).double()
    assert_close(torch.quantile(volume, levels), levels, rtol=0, atol=0.02)


def test_keras_norms_are_these():
    """Its formulas, for a kernel of shape (inputs, outputs), but for their epsilon."""
    W = normal(5, 3)
    norm = W.square().sum(0, keepdim=True).sqrt()
    middle = float(norm.median())
    clipped = norm.clip(0, middle)
    assert_close(maps.ClipNorm(middle, dim=0)(W), W * clipped / norm)
    low = 0.9 * middle
    both = norm.clip(low, middle)
    assert_close(maps.ClipNorm(middle, low=low, dim=0)(W), W * both / norm)
    assert_close(maps.Normalize(dim=0)(W), W / norm)


def test_slices_inside_of_the_bounds_are_not_touched():
    W = torch.tensor([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0]])
    clipped = maps.ClipNorm(1.0, low=0.1)(W)
    assert torch.equal(clipped[0], W[0])
    assert_close(clipped.norm(dim=-1), torch.tensor([0.5, 1.0, 0.1]))
    assert torch.equal(maps.ClipNorm(1.0)(W)[::2], W[::2])


def test_the_radial_sigmoid_is_the_identity_to_first_order():
    X = torch.zeros(4, dtype=torch.float64)
    J = torch.func.jacrev(maps.RadialSigmoid(3.0))(X)
    assert_close(J, torch.eye(4).double())
    far = 1e6 * linalg.normalized(normal(4))
    assert_close(maps.RadialSigmoid(3.0)(far).norm(), torch.tensor(3.0).double())


def test_a_slice_on_the_boundary_of_a_ball_is_moved_inside():
    layer = registered(maps.RadialSigmoid(), torch.tensor([[3.0, 4.0], [0.1, 0.2]]))
    assert_close(layer.weight, torch.tensor([[0.594, 0.792], [0.1, 0.2]]))
    layer.weight = torch.tensor([[0.6, 0.8], [0.1, 0.2]])
    assert_close(layer.weight, torch.tensor([[0.6, 0.8], [0.1, 0.2]]))
    assert bool(layer.parametrizations.weight.original.isfinite().all())


# ---- Standardized slices ------------------------------------------------------------


def test_means_and_deviations_are_those_of_torch():
    W = maps.Standardize(0.5, (1, 2, 3))(normal(4, 2, 3, 3))
    std, mean = torch.std_mean(W, (1, 2, 3), correction=0)
    assert_close(mean, torch.zeros(4).double(), rtol=0, atol=1e-15)
    assert_close(std, torch.full((4,), 0.5).double())
    W = maps.Standardize(1.7, (1, 2, 3), fan_in=True)(normal(4, 2, 3, 3))
    assert_close(W.flatten(1).norm(dim=-1), torch.full((4,), 1.7).double())


def test_equal_entries_of_any_size_have_no_deviation():
    ramp = maps.Standardize()(torch.zeros(7))
    for size in (0.1, 1 / 3, 1e18, 1e-18):
        V = torch.full((7,), size).requires_grad_()
        W = maps.Standardize()(V)
        assert torch.equal(W, ramp)
        W[0].backward()
        assert bool(V.grad.isfinite().all())


# ---- Singular values ----------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-18, 1.0, 1e18])
@pytest.mark.parametrize("shape", [(64, 64), (200, 30), (3, 5, 7), (1, 4)])
def test_the_largest_singular_value_is_that_of_a_decomposition(shape, size):
    for dtype in (torch.float32, torch.complex128):
        W = size * normal(*shape, dtype=dtype)
        expected = torch.linalg.svdvals(W)[..., 0]
        assert_close(linalg.largest_singular_value(W), expected)


def test_the_slope_of_a_multiple_singular_value_is_finite():
    W = torch.eye(4, 3).double().requires_grad_()
    (slope,) = torch.autograd.grad(linalg.largest_singular_value(W), W)
    assert_close(torch.linalg.matrix_norm(slope, "nuc"), torch.ones(()).double())


def test_a_linear_map_is_as_steep_as_its_bound_and_no_steeper():
    bound = maps.SpectralBound(0.7)
    W = bound(torch.randn(50, 30))
    assert_close(torch.linalg.matrix_norm(W, 2), torch.tensor(0.7))
    assert_close(bound(W / 2), W / 2)


def test_an_exact_spectral_norm_has_no_state_and_is_exact():
    W = torch.randn(20, 30)
    layer = registered(maps.SpectralNorm(exact=True), W)
    assert not list(layer.buffers())
    assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(1.0))
    estimate = registered(maps.SpectralNorm(), W).weight
    assert not torch.equal(estimate, layer.weight)


def test_sigma_reparam_keeps_the_value_and_learns_the_norm():
    W = normal(6, 4)
    layer = registered(maps.SigmaReparam(), W.clone())
    assert_close(layer.weight, W)
    gain, X = layer.parametrizations.weight.parameters()
    assert_close(gain, torch.linalg.matrix_norm(W, 2), rtol=1e-2, atol=0)
    with torch.no_grad():
        X.mul_(7)
        assert_close(layer.weight, W)
        gain.fill_(3.0)
    for _ in range(200):
        layer(normal(1, 4))
    assert_close(torch.linalg.matrix_norm(layer.weight, 2), gain)


def test_sigma_reparam_moves_once_in_a_training_forward_and_never_on_a_read():
    layer = registered(maps.SigmaReparam(), torch.randn(6, 4))
    layer.parametrizations.weight[0].norm._u.copy_(torch.eye(6)[0])
    first = layer.weight.detach().clone()
    assert torch.equal(layer.weight, first)
    layer(torch.randn(1, 4))
    second = layer.weight.detach().clone()
    assert not torch.equal(first, second)
    layer.eval()(torch.randn(1, 4))
    assert torch.equal(layer.weight, second)


def test_sigma_reparam_works_with_torchs_registration():
    W = torch.randn(6, 4)
    layer = nn.Linear(4, 6)
    layer.weight.data = W.clone()
    parametrize.register_parametrization(layer, "weight", maps.SigmaReparam())
    map_ = layer.parametrizations.weight[0]
    u = map_.norm._u.clone()
    layer(torch.randn(1, 4))
    assert not torch.equal(map_.norm._u, u)
    assert_close(layer.weight, W, rtol=0, atol=1e-2)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-18, 1e18])
def test_sigma_reparam_of_any_size_can_be_trained(size):
    W = size * torch.randn(4, 3)
    layer = registered(maps.SigmaReparam(), W.clone())
    assert_close(layer.weight, W, rtol=1e-5, atol=0)
    layer.weight.sum().backward()
    gain, _ = layer.parametrizations.weight.parameters()
    assert bool(gain.grad.isfinite())
    assert bool(gain.grad)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 4, 3)])
def test_condition_numbers_are_bounded_wherever_the_coordinates_go(shape):
    layer = registered(maps.BoundedSVD(0.5, high=1.5), torch.randn(shape))
    for size in (0.1, 1.0, 100.0):
        with torch.no_grad():
            layer.parametrizations.weight.original.normal_(0, size)
        values = torch.linalg.svdvals(layer.weight)
        assert bool((values < 1.5 + 1e-5).all())
        assert bool((values > 0.5 - 1e-5).all())


def test_singular_values_reach_both_ends_and_start_inside():
    map_ = maps.BoundedSVD(0.5, high=1.5)
    layer = registered(map_, torch.diag(torch.tensor([9.0, 1.0, 0.1])))
    values = torch.linalg.svdvals(layer.weight)
    assert_close(values, torch.tensor([1.49, 1.0, 0.51]))
    W = torch.diag(torch.tensor([1.5, -1.0, 0.5]))
    layer.weight = W
    assert_close(layer.weight, W)
    (layer.weight * torch.randn(3, 3)).sum().backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())


def test_an_interval_of_one_number_makes_multiples_of_orthonormal_columns():
    W = registered(maps.BoundedSVD(2.0, high=2.0), torch.randn(5, 3)).weight
    assert_close(W.mT @ W, 4 * torch.eye(3))


# ---- Errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("map_", "match"),
    [
        (maps.Normalize(0.0), "Expected `radius` to be positive. Got 0.0"),
        (maps.SphereExp(-1.0), "Expected `radius` to be positive"),
        (maps.RadialSigmoid(0.0), "Expected `radius` to be positive"),
        (maps.SpectralBound(0.0), "Expected `radius` to be positive"),
        (maps.Standardize(0.0), "Expected `std` to be positive"),
        (maps.ClipNorm(0.0), "Expected `high` to be positive"),
        (maps.ClipNorm(1.0, low=2.0), "Expected 0 <= low <= high. Got low=2.0"),
        (maps.ClipNorm(1.0, p=0.5), "Expected p of at least 1. Got p=0.5"),
        (maps.ClipNorm(1.0, low=0.5, p=1), "Expected p=2 for norms of at least"),
        (maps.BoundedSVD(2.0, high=1.0), "Expected 0 <= low <= high"),
        (maps.BoundedSVD(0.0, high=0.0), "Expected `high` to be positive"),
        (maps.SigmaReparam(0), "Expected n_power_iterations to be positive"),
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(map_, match):
    with pytest.raises(ValueError, match=match):
        map_.bind(torch.ones(3, 2))


def test_slices_that_are_too_short_are_refused():
    with pytest.raises(errors.InvalidTensorError, match="slices of at least 2 entries"):
        maps.Standardize().bind(torch.ones(3, 1))
    with pytest.raises(errors.InvalidTensorError, match="slices of at least 1 entries"):
        maps.Normalize().bind(torch.ones(3, 0))
    with pytest.raises(errors.InvalidTensorError, match="slices of at least 1 entries"):
        sets.Sphere().project(torch.ones(3, 0))
    for constraint in (sets.Sphere(), sets.LpBall(), sets.NormInterval()):
        assert not constraint.contains(torch.ones(3, 0))
    assert not sets.Standardized().contains(torch.ones(3, 1))


def test_where_there_are_no_slices_nothing_is_outside():
    W = torch.ones(2, 0, 3)
    for constraint in (sets.Sphere(), sets.LpBall(), sets.SingularValuesIn(1, high=2)):
        assert constraint.residual(W).tolist() == [0, 0]
    assert maps.Normalize()(W).shape == W.shape


def test_dimensions_that_are_not_there_are_refused():
    with pytest.raises(IndexError, match=r"range of \[-2, 1\], but got 2"):
        maps.Normalize(dim=2).bind(torch.ones(2, 2))
    with pytest.raises(errors.InvalidTensorError, match="Expected each dimension once"):
        maps.Normalize(dim=(0, -2)).bind(torch.ones(2, 2))
    assert not sets.Sphere(axis=(0, 2)).contains(torch.eye(2))
    for map_ in (maps.Normalize(dim=()), maps.ClipNorm(dim=()), maps.SphereExp(dim=())):
        with pytest.raises(errors.InvalidTensorError, match="at least one of 2 dim"):
            map_.bind(torch.ones(2, 2))
    maps.Normalize(dim=()).bind(torch.tensor(2.0))  # a number has none


@pytest.mark.parametrize("map_", [maps.SpectralBound(), maps.BoundedSVD(0.0, high=1.0)])
def test_a_vector_has_no_singular_values(map_):
    with pytest.raises(errors.InvalidTensorError, match="Expected a matrix"):
        map_.bind(torch.ones(3))


def test_a_weight_outside_of_its_set_is_refused_or_projected():
    layer = registered(maps.Normalize(), torch.tensor([[3.0, 4.0]]))
    assert_close(layer.weight, torch.tensor([[0.6, 0.8]]))
    with pytest.raises(errors.NotInSetError, match="is not in Sphere"):
        layer.weight = torch.tensor([[3.0, 4.0]])
    layer = registered(maps.SpectralBound(), torch.eye(2))
    layer.weight = torch.diag(torch.tensor([3.0, 0.5]))
    assert_close(layer.weight, torch.diag(torch.tensor([1.0, 0.5 / 3])))
