"""What is computed otherwise on an accelerator is as right as on the processor.

There nobody looks at a value to choose a way, so that one way has to do for all. Where
there is no CUDA device, one is pretended, see `pretended.py`: it rounds as the
processor does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.testing import assert_close

from holdfast import linalg
from holdfast.linalg.portable import portable_exponential
from holdfast.linalg.precision import _tensor_cores, exactly
from test_cuda import ORTHOGONAL, aside, step

pytestmark = pytest.mark.usefixtures("device")

SINGLE, DOUBLE = torch.float32, torch.float64


def settings(*shapes: tuple[int, ...]) -> list[Any]:
    """Return all maps with the shapes that they take."""
    return [
        pytest.param(case, shape, id=f"{case}-{shape}")
        for case in ORTHOGONAL
        for shape in shapes
        if shape[-1] == shape[-2] or (5, 3) in case.shapes
    ]


def spectral(E: Tensor) -> float:
    return float(torch.linalg.matrix_norm(E.cpu().double(), 2).amax())


def off(Q: Tensor) -> float:
    """Return the norm of Q'Q - I."""
    Q = Q.cpu().double()
    return spectral(Q.mT @ Q - torch.eye(Q.shape[-1], dtype=DOUBLE))


def skew(n: int, norm: float) -> Tensor:
    X = torch.randn(n, n, dtype=DOUBLE)
    A = X - X.mT
    return A * (norm / max(spectral(A), 1e-300))


def long(n: int, k: int, norm: float) -> Tensor:
    """Return small coordinates but for one long direction, which hides the others."""
    u, v = torch.randn(n, 1, dtype=DOUBLE), torch.randn(1, k, dtype=DOUBLE)
    small = torch.randn(n, k, dtype=DOUBLE) * (0.3 / n**0.5)
    return small + u @ v * (norm / (u.norm() * v.norm()))


def columns(n: int, k: int) -> Tensor:
    return torch.linalg.qr(torch.randn(n, k, dtype=DOUBLE))[0]


@pytest.mark.parametrize("norm", [1e-3, 1.0, 30.0, 100.0, 300.0])
@pytest.mark.parametrize("n", [1, 2, 3, 32, 130])
@pytest.mark.parametrize("function", [linalg.cayley_transform, linalg.skew_exponential])
def test_square_ones_are_orthogonal_and_right(function, n, norm):
    A = skew(n, norm).float()
    Q = function(A.cuda())
    assert off(Q) < 1e-5
    assert spectral(Q.cpu() - function(A.double())) < max(1e-5, 2e-7 * norm)


@pytest.mark.parametrize("norm", [3.0, 100.0])
@pytest.mark.parametrize("function", [linalg.cayley_transform, linalg.skew_exponential])
def test_large_ones_are_orthogonal(function, norm):
    assert off(function(skew(512, norm).float().cuda())) < 5e-6


def test_an_inverse_of_a_large_one_is_made_of_halves_and_corrected():
    Q = linalg.cayley_transform(skew(520, 100.0).float().cuda())
    assert off(Q) < 5e-6


@pytest.mark.parametrize("norm", [0.1, 3.0, 10.0, 30.0, 100.0])
@pytest.mark.parametrize(("n", "k"), [(40, 8), (64, 48), (9, 1)])
def test_a_long_direction_hides_no_other(n, k, norm):
    X, B = long(n, k, norm).float(), columns(n, k).float()
    around = (
        linalg.thin_cayley_at,
        linalg.thin_exponential_at,
        linalg.horizontal_cayley_at,
        linalg.horizontal_exponential_at,
    )
    for function in (linalg.thin_cayley_lower, linalg.thin_exponential_lower):
        Q = function(X.cuda())
        assert off(Q) < 1e-5
        assert spectral(Q.cpu() - function(X.double())) < max(1e-5, 2e-7 * norm)
    for function in around:
        Q = function(X.cuda(), B.cuda())
        assert off(Q) < 1e-5
        expected = function(X.double(), B.double())
        assert spectral(Q.cpu() - expected) < max(1e-5, 4e-7 * norm)


@pytest.mark.parametrize("norm", [10.0, 30.0, 100.0])
def test_a_long_direction_hides_no_other_on_the_processor(norm):
    X, B = long(40, 8, norm).float(), columns(40, 8).float()
    for function in (linalg.horizontal_cayley_at, linalg.horizontal_exponential_at):
        assert off(function(X, B)) < 1e-5


@pytest.mark.parametrize("n", [8, 64, 256])
def test_reflections_of_parallel_vectors_are_orthogonal(n):
    same = torch.ones(n, n)
    near = 10 * torch.randn(n, 1) + 1e-3 * torch.randn(n, n)
    for X in (same, near, 1e4 * torch.randn(n, n)):
        assert off(linalg.reflections(X.cuda())) < 1e-5
        assert off(linalg.reflections(X.double().cuda())) < 1e-13


@pytest.mark.parametrize("kappa", [1, 10, 1e3, 1e5])
@pytest.mark.parametrize(("n", "k"), [(64, 64), (128, 32), (4, 4), (3, 1)])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_polar_factors_are_orthonormal_and_nearest(n, k, kappa, dtype):
    values = torch.logspace(0, -torch.tensor(float(kappa)).log10(), k, dtype=DOUBLE)
    W = ((columns(n, k) * values) @ columns(k, k).mT).to(dtype)
    Q = linalg.polar(W.cuda())
    eps = torch.finfo(dtype).eps
    assert off(Q) < 20 * eps
    expected = torch.from_numpy(scipy.linalg.polar(W.double().numpy())[0])
    assert spectral(Q.cpu() - expected) < 4 * n**0.5 * kappa * eps


def test_empty_matrices_have_polar_factors():
    for shape in ((5, 0), (0, 0), (0, 3, 2), (2, 4, 0)):
        assert linalg.polar(torch.empty(shape, device="cuda")).shape == shape


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 10.0])
def test_exponentials_of_any_matrix(norm, dtype):
    A = torch.randn(3, 6, 6, dtype=DOUBLE)
    A = (A * (norm / spectral(A))).to(dtype)
    expected = torch.from_numpy(scipy.linalg.expm(A.double().numpy()))
    close = {SINGLE: 1e-6, DOUBLE: 1e-12}[dtype]
    scale = float(expected.abs().amax())
    found = linalg.matrix_exponential(A.cuda()).cpu().double()
    assert_close(found, expected, rtol=close, atol=close * scale)
    S = A + A.mT
    expected = linalg.symmetric_exponential(S.double())
    found = linalg.symmetric_exponential(S.cuda()).cpu().double()
    assert_close(found, expected, rtol=close, atol=close * float(expected.amax()))
    assert torch.equal(found, found.mT)


def test_what_is_too_large_for_an_exponential_is_not_a_number():
    for norm, fits in ((1e3, True), (1e4, False), (1e30, False)):
        A = skew(5, norm)
        assert bool(portable_exponential(A).isfinite().all()) == fits
        assert bool(linalg.skew_exponential(A.cuda()).isfinite().all()) == fits


@pytest.mark.parametrize(
    ("case", "shape"), settings((5, 5), (3, 4, 4), (12, 3), (2, 12), (20, 2))
)
def test_derivatives_of_derivatives_are_those_of_the_processor(case, shape):
    dtype = DOUBLE if DOUBLE in case.dtypes else torch.complex128
    host = case.registered(torch.randn(shape, dtype=dtype))
    with torch.no_grad():
        for parameter in host.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    x = torch.randn(shape, dtype=dtype)
    expected = derivatives(host, x)
    for mine, other in zip(
        derivatives(copy.deepcopy(host).cuda(), x.cuda()), expected, strict=True
    ):
        # some compute in single precision whatever comes
        close = 1e-5 if "single" in str(case) else 1e-9
        scale = max(1.0, float(other.abs().max()))
        assert_close(mine.cpu(), other, rtol=0, atol=close * scale)


def derivatives(host: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """Return a weight, the slopes of a function of it, and those of their squares."""
    originals, W = [*host.parameters()], host.weight
    loss = (W * x).sum().abs() + (W * W * x).abs().sum()
    slopes = torch.autograd.grad(loss, originals, create_graph=True)
    size = sum((slope * slope.conj()).real.sum() for slope in slopes)
    second = torch.autograd.grad(size, originals, allow_unused=True)
    return [
        W.detach(),
        *(s.detach() for s in slopes),
        *(s for s in second if s is not None),
    ]


# ---- Products of three digits -------------------------------------------------------


@pytest.fixture
def tensor_cores(device: None) -> Iterator[None]:
    """Allow TF32, as Lightning tells everybody to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    assert torch.get_float32_matmul_precision() == "high", "it is the user's"
    torch.set_float32_matmul_precision(before)


def test_products_are_rounded_where_that_is_allowed(tensor_cores):
    """Negative control; on devices older than Ampere they are not."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this device has no TF32")
    Q = columns(64, 64).float().cuda()
    assert off(Q @ Q) > 1e-4
    with exactly(Q):
        assert off(Q @ Q) < 1e-5


def test_the_setting_comes_back_when_the_last_one_leaves(tensor_cores):
    Q = columns(64, 64).float().cuda()

    def fails() -> None:
        with _tensor_cores.unused(nullcontext()):
            raise KeyError

    with exactly(Q), ThreadPoolExecutor(1) as pool:
        with exactly(Q), pytest.raises(KeyError):
            fails()
        with pytest.raises(KeyError):
            pool.submit(fails).result()
        assert off(Q @ Q) < 1e-5, "another one has left"
    assert off(Q @ Q) > 1e-4


@pytest.mark.parametrize(("case", "shape"), settings((16, 16), (24, 3), (3, 4, 4)))
def test_weights_keep_their_digits_on_tensor_cores(case, shape, tensor_cores):
    dtype = SINGLE if SINGLE in case.dtypes else torch.complex64
    host = aside(case, shape, dtype).cuda()
    x = torch.randn(shape, dtype=dtype, device="cuda")
    step(host, x)
    W = host.weight.detach()
    assert float(case.codomain(shape).residual(W).amax()) < 1e-5
    torch.set_float32_matmul_precision("highest")
    expected = [p.grad.clone() for p in host.parameters()]
    host.zero_grad()
    step(host, x)
    torch.set_float32_matmul_precision("high")
    for mine, parameter in zip(expected, host.parameters(), strict=True):
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert_close(mine, parameter.grad, rtol=0, atol=1e-2 * scale)
