"""Convolutions: norms against dense matrices, bounds, and kernels that keep them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
import set_laws
from holdfast import errors, linalg, maps, sets

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# shape of the kernel, size, stride, dilation, groups
SETTINGS = [
    ((4, 3, 3), (7,), (1,), (1,), 1),
    ((2, 3, 3), (8,), (2,), (1,), 1),
    ((4, 2, 3), (8,), (2,), (2,), 2),
    ((3, 2, 5), (4,), (1,), (1,), 1),
    ((3, 2, 3, 3), (5, 6), (1, 1), (1, 1), 1),
    ((4, 2, 3, 2), (6, 6), (3, 2), (2, 1), 2),
    ((2, 2, 3, 2, 1), (3, 4, 2), (1, 2, 1), (1, 1, 1), 1),
]
settings = pytest.mark.parametrize("setting", SETTINGS, ids=str)
types = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)

SETS = {
    "any size": sets.ConvolutionBall(0.5),
    "zeros": sets.ConvolutionBall(size=5, stride=2, groups=2),
    "circular": sets.ConvolutionBall(2.0, size=6, padding="circular", dilation=2),
    "orthogonal": sets.OrthogonalKernels(),
    "orthogonal in groups": sets.OrthogonalKernels(stride=2, groups=2),
}
names = pytest.mark.parametrize("name", SETS)


def images(kernel: Tensor, size, groups) -> Tensor:
    channels = kernel.shape[1] * groups
    entries = channels * math.prod(size)
    return torch.eye(entries, dtype=kernel.dtype).reshape(entries, channels, *size)


def norm_of(outputs: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(outputs.flatten(1), 2)


def circular(kernel: Tensor, size, stride, dilation, groups) -> Tensor:
    """Return the norm of the dense matrix, made by shifting all images tap by tap."""
    x, total = images(kernel, size, groups), 0
    spaces = tuple(range(2, kernel.ndim))
    for taps in itertools.product(*map(range, kernel.shape[2:])):
        shifts = [-d * t for d, t in zip(dilation, taps, strict=True)]
        shifted = x.roll(shifts, spaces)
        for space, s in zip(spaces, stride, strict=True):
            shifted = shifted.index_select(space, torch.arange(0, x.shape[space], s))
        pixel = kernel[(..., *taps)].reshape(*kernel.shape[:2], *[1] * len(size))
        total = total + CONV[len(size)](shifted, pixel, groups=groups)
    return norm_of(total)


def padded(kernel: Tensor, size, stride, dilation, groups, padding: int) -> Tensor:
    """Return the norm of torch's own convolution with zero padding."""
    x = images(kernel, size, groups)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    return norm_of(CONV[len(size)](x, kernel, padding=padding, **options))


# ---- Norms --------------------------------------------------------------------------


@settings
@types
def test_the_norm_is_that_of_the_dense_matrix(setting, dtype):
    shape, size, stride, dilation, groups = setting
    kernel = torch.randn(shape, dtype=dtype)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    norm = linalg.conv_operator_norm(kernel, size, **options)
    assert_close(norm, circular(kernel, *setting[1:]))
    matrix = torch.linalg.matrix_norm(kernel.flatten(1), 2)
    assert not torch.isclose(norm, matrix)  # what SpectralNorm would take for it


@settings
@types
def test_the_bound_is_above_the_norm_for_every_zero_padding(setting, dtype):
    shape, size, stride, dilation, groups = setting
    kernel = torch.randn(shape, dtype=dtype)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    bound = linalg.conv_norm_bound(kernel, size, **options)
    everywhere = linalg.conv_norm_bound(kernel, groups=groups)
    found = []
    for padding in (0, 1, 2, 4):
        if all(
            n + 2 * padding > d * (k - 1)
            for n, d, k in zip(size, dilation, shape[2:], strict=True)
        ):
            found.append(padded(kernel, size, stride, dilation, groups, padding))
    assert max(found) <= bound * (1 + 1e-12)
    assert bound <= everywhere * (1 + 1e-12)
    assert circular(kernel, *setting[1:]) <= everywhere * (1 + 1e-12)
    assert max(found) > 0.3 * bound


def test_the_bound_for_every_size_is_tight_and_reaches_between_the_frequencies():
    for _ in range(20):
        kernel = torch.randn(2, 3, 4, dtype=torch.float64)
        fine = linalg.conv_operator_norm(kernel, 10_000)
        assert fine <= linalg.conv_norm_bound(kernel) <= 1.02 * fine
    between = torch.tensor([[[0.0, 1.0, -1.0]]]).double()
    assert (
        linalg.conv_operator_norm(between, 3) < 1.8
    )  # its norm is 2, at frequency 1/2
    assert linalg.conv_norm_bound(between) >= 2


@types
def test_the_gradient_of_the_norm_is_exact(dtype):
    kernel = torch.randn(3, 2, 3, 2, dtype=dtype, requires_grad=True)
    for norm in (
        lambda K: linalg.conv_operator_norm(K, (4, 6), stride=2),
        lambda K: linalg.conv_norm_bound(K, 5, dilation=2),
        linalg.conv_norm_bound,
    ):
        assert torch.autograd.gradcheck(norm, kernel)
        assert torch.autograd.gradgradcheck(norm, kernel)


def test_a_transposed_convolution_has_the_same_norm():
    layer = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, bias=False).double()
    x = images(torch.empty(2, 3, 3, 3, dtype=torch.float64), (4, 4), 1)
    with torch.no_grad():
        found = norm_of(layer(x))
        assert found <= linalg.conv_norm_bound(layer.weight)


def test_wrong_uses_are_refused():
    kernel = torch.randn(4, 2, 3, 3)
    refused = errors.InvalidTensorError
    with pytest.raises(refused, match="that the stride"):
        linalg.conv_operator_norm(kernel, 5, stride=2)
    with pytest.raises(refused, match="`size` to be positive, one number or 2"):
        linalg.conv_operator_norm(kernel, (5, 5, 5))
    with pytest.raises(refused, match="`dilation` to be positive"):
        linalg.conv_operator_norm(kernel, 5, dilation=0)
    with pytest.raises(refused, match="`groups` to divide the 4 channels"):
        linalg.conv_norm_bound(kernel, groups=3)
    for map_, message in (
        (maps.ConvSpectralBound(0), "`radius` to be positive"),
        (maps.ConvSpectralBound(padding="reflect"), "reflected or repeated"),
        (maps.ConvSpectralBound(size=5, padding="circular", stride=2), "the stride"),
        (maps.RKO(groups=3), "`groups` to divide"),
        (maps.RKO(stride=(1, 1, 1)), "`stride` to be positive"),
    ):
        layer = nn.Conv2d(2, 4, 3)
        before = layer.weight
        with pytest.raises(ValueError, match=message):
            holdfast.register_parametrization(layer, "weight", map_)
        assert layer.weight is before
    for map_ in (maps.RKO(), maps.ConvSpectralBound()):
        with pytest.raises(refused, match="of 2 to 5 dimensions"):
            holdfast.register_parametrization(nn.Linear(2, 2), "bias", map_)


# ---- Sets ---------------------------------------------------------------------------


@names
@pytest.mark.parametrize("dtype", set_laws.TYPES, ids=str)
def test_samples_and_projections_are_inside(name, dtype):
    for shape in ((4, 2, 3), (4, 2, 2, 2), (4, 3), (2, 5, 1)):
        set_laws.law_membership(SETS[name], shape, dtype)


@names
@types
def test_the_laws_of_sets_hold(name, dtype):
    constraint, shape = SETS[name], (4, 2, 3)
    set_laws.law_kept(constraint, shape, dtype)
    if "orthogonal" in name:
        set_laws.law_nearest(constraint, shape, dtype)
        set_laws.law_dimension(constraint, shape, dtype)
        edge = constraint.sample(shape, dtype=dtype)
    else:
        edge = torch.randn(shape, dtype=dtype)
        edge = edge * constraint.radius / constraint.norm(edge)
        assert constraint.dim(shape, dtype) == 24 * (1 + dtype.is_complex)
    set_laws.law_residual(constraint, lambda eps: edge * (1 + eps))


def test_a_vector_is_no_kernel():
    for constraint in SETS.values():
        assert not constraint.contains(torch.zeros(4))
        with pytest.raises(errors.InvalidTensorError, match="Expected a kernel"):
            constraint.project(torch.zeros(4))


# ---- Maps ---------------------------------------------------------------------------


@settings
@types
def test_RKO_stretches_nothing_whatever_the_padding(setting, dtype):
    shape, size, stride, dilation, groups = setting
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    kernel = maps.RKO(**options)(torch.randn(shape, dtype=dtype))
    assert circular(kernel, *setting[1:]) <= 1 + 1e-12
    assert padded(kernel, size, stride, dilation, groups, 4) <= 1 + 1e-12
    assert linalg.conv_operator_norm(kernel, size, **options) <= 1 + 1e-12
    assert linalg.conv_operator_norm(kernel, size, **options) > 0.4


def test_RKO_is_orthogonal_where_windows_do_not_overlap():
    kernel = maps.RKO(stride=2)(torch.randn(4, 1, 2, 2, dtype=torch.float64))
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    assert_close(F.conv2d(x, kernel, stride=2).norm(), x.norm())
    assert not torch.isclose(F.conv2d(x, kernel).norm(), x.norm())


def test_RKO_with_a_stride_that_the_layer_lacks_breaks_the_bound():
    kernel = maps.RKO(stride=3)(torch.ones(1, 1, 3, 3))
    assert linalg.conv_operator_norm(kernel, 6) > 2.9
    assert linalg.conv_operator_norm(kernel, 6, stride=3) <= 1 + 1e-6


def test_a_map_without_the_groups_of_the_layer_keeps_the_bound():
    kernel = maps.RKO()(torch.randn(4, 2, 3, 3, dtype=torch.float64))
    assert linalg.conv_operator_norm(kernel, 6, groups=2) <= 1


def test_a_kernel_inside_is_kept_and_one_outside_divided():
    map_ = maps.ConvSpectralBound(2.0, size=6, padding="circular")
    K = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    norm = linalg.conv_operator_norm(K, 6)
    assert_close(map_(K / norm), K / norm, rtol=0, atol=0)
    assert_close(map_(5 * K), 2 * K / norm)
    layer = nn.Conv2d(2, 3, 3).double()
    holdfast.register_parametrization(layer, "weight", map_)
    layer.weight = 5 * K
    assert_close(layer.weight.detach(), 2 * K / norm)
    assert torch.equal(layer.parametrizations.weight.original, 5 * K)


@pytest.mark.parametrize("map_", [maps.RKO(), maps.ConvSpectralBound()], ids=str)
def test_degenerate_kernels_have_finite_values_and_gradients(map_):
    for dtype in (torch.float32, torch.float64):
        for factor in (1e18, 1e-18, 0.0, -0.0, 1.0):
            X = torch.randn(4, 2, 3, 3, dtype=dtype) * factor
            X[0] = 0
            set_laws.law_finite(map_, X)
        for X in (torch.ones(4, 2, 3, 3), torch.eye(4).reshape(4, 4, 1, 1)):
            set_laws.law_finite(map_, X.to(dtype))


def test_compiled_values_and_gradients_are_the_same():
    layer, x = nn.Conv1d(2, 3, 3), torch.randn(1, 2, 6)
    map_ = maps.ConvSpectralBound(0.5, size=6)
    layer = holdfast.register_parametrization(layer, "weight", map_).eval()
    expected = layer(x).square().sum()
    slopes = torch.autograd.grad(expected, [*layer.parameters()])
    torch._dynamo.reset()
    value = torch.compile(layer, backend="aot_eager", fullgraph=True)(x).square().sum()
    assert_close(value, expected)
    assert_close(torch.autograd.grad(value, [*layer.parameters()]), slopes)
