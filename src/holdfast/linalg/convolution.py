r"""Operator norms of convolutions.

Kernels are those of ``nn.Conv1d`` to ``nn.Conv3d``, ``(c_out, c_in / groups, *taps)``;
a matrix is a kernel without spatial dimensions. A transposed convolution is the adjoint
of the convolution with the same kernel, and has its norm.

Note [Exact norms]
    On a circle of N points a convolution is diagonal in the basis of Fourier: at each
    frequency :math:`\omega` it is the matrix
    :math:`\hat K(\omega) = \sum_t K_t e^{-2\pi i \omega d t / N}`, d the dilation, and
    its norm is the largest singular value of them all. A stride s that divides N folds
    the s frequencies :math:`\omega + jN/s` onto one: the matrix there is
    :math:`[\hat K(\omega), \hat K(\omega + N/s), \ldots]/\sqrt{s}`. Groups are the
    blocks of a block-diagonal matrix.

Note [Zero padding]
    A convolution of n points with any amount of zero padding is a part of the circular
    one on :math:`n + d(k - 1)` points, or more, which leaves room for all of a kernel
    of k taps. The norm of a part is no larger.

    On images of any size the norm is below the maximum over all real frequencies. Its
    square is a trigonometric polynomial of degree k - 1 in each dimension, along any
    vector, so that the maximum over M equispaced ones, divided by
    :math:`\cos(\pi (k - 1)/M)` for each dimension, is above it: near its maximum such a
    polynomial stays above the cosine of the same degree (Riesz), and the next point is
    at most :math:`\pi/M` away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .precision import full_precision

Sizes = int | tuple[int, ...]

# So many frequencies for each tap bound all others within 1 percent in a dimension.
_DENSITY = 16


def require_kernel(kernel: Tensor, groups: int = 1) -> None:
    """Raise unless the tensor is the kernel of a convolution in so many groups.

    Example:
        >>> import torch
        >>> require_kernel(torch.zeros(4, 2, 3, 3), groups=2)
    """
    if not 2 <= kernel.ndim <= 5:
        raise InvalidTensorError(
            "Expected a kernel of shape (c_out, c_in / groups, *taps), of 2 to 5 "
            f"dimensions. Got shape {tuple(kernel.shape)}."
        )
    if groups < 1 or kernel.shape[0] % groups:
        raise InvalidTensorError(
            f"Expected `groups` to divide the {kernel.shape[0]} channels of a kernel "
            f"of shape {tuple(kernel.shape)}. Got {groups}."
        )


def spatial(what: str, value: Sizes, kernel: Tensor) -> tuple[int, ...]:
    """Return one number for each spatial dimension of a kernel.

    Example:
        >>> import torch
        >>> spatial("stride", 2, torch.zeros(4, 2, 3, 3))
        (2, 2)
    """
    count = kernel.ndim - 2
    numbers = (value,) * count if isinstance(value, int) else tuple(value)
    if len(numbers) != count or any(number < 1 for number in numbers):
        raise InvalidTensorError(
            f"Expected `{what}` to be positive, one number or {count} for a kernel of "
            f"shape {tuple(kernel.shape)}. Got {value}."
        )
    return numbers


@full_precision
def conv_operator_norm(
    kernel: Tensor,
    size: Sizes,
    *,
    stride: Sizes = 1,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    r"""Return the operator norm of a convolution with circular padding.

    Exact, as is its gradient, which is that at one of the largest frequencies where
    there are several. Costs an eigenvalue problem of the smaller number of channels for
    each of the :math:`N_1 \cdots N_D` frequencies; a real kernel of stride 1 needs half
    of them. See Note [Exact norms].

    Args:
        kernel: ``(c_out, c_in / groups, *taps)``, real or complex.
        size: how many points the input has, a number or one for each dimension.
        stride: of the convolution; it has to divide the size.
        dilation: of the convolution.
        groups: of the convolution.

    Example:
        >>> import torch
        >>> mean = torch.full((1, 1, 3, 3), 1 / 9)
        >>> torch.allclose(conv_operator_norm(mean, 8), torch.tensor(1.0))
        True

    References:
        Sedghi, Gupta and Long, The Singular Values of Convolutional Layers, 2018,
        https://arxiv.org/abs/1805.10408
    """
    require_kernel(kernel, groups)
    sizes, strides = spatial("size", size, kernel), spatial("stride", stride, kernel)
    if any(n % s for n, s in zip(sizes, strides, strict=True)):
        raise InvalidTensorError(
            f"Expected a size that the stride {strides} divides. Got {sizes}: with "
            "circular padding nothing else has the steps of a circle."
        )
    responses = _responses(
        kernel, sizes, spatial("dilation", dilation, kernel), strides
    )
    blocks = responses.unflatten(-2, (groups, -1)).flatten(0, -3)
    return _largest(blocks) / math.prod(strides) ** 0.5


@full_precision
def conv_norm_bound(
    kernel: Tensor,
    size: Sizes | None = None,
    *,
    stride: Sizes = 1,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Return an upper bound of the operator norm of a convolution with zero padding.

    It holds for every amount of padding; without ``size`` also for inputs of every
    size, every stride and dilation, and for circular padding. See Note [Zero padding].
    Not for padding by reflection or replication, which repeats entries of the input.

    Args:
        kernel: ``(c_out, c_in / groups, *taps)``, real or complex.
        size: how many points the input has, without the padding; or ``None``.
        stride: of the convolution; it need not divide the size.
        dilation: of the convolution.
        groups: of the convolution.

    Example:
        >>> import torch
        >>> mean = torch.full((1, 1, 3), 1 / 3)
        >>> bool(1 <= conv_norm_bound(mean) < 1.01)
        True

    References:
        Delattre, Barthélemy and Allauzen, Spectral Norm of Convolutional Layers with
        Circular and Zero Paddings, 2024, https://arxiv.org/abs/2402.00240
    """
    require_kernel(kernel, groups)
    taps = kernel.shape[2:]
    if size is not None:
        sizes, strides = (
            spatial("size", size, kernel),
            spatial("stride", stride, kernel),
        )
        steps = spatial("dilation", dilation, kernel)
        room = [n + d * (k - 1) for n, d, k in zip(sizes, steps, taps, strict=True)]
        circle = tuple(-(-n // s) * s for n, s in zip(room, strides, strict=True))
        return conv_operator_norm(
            kernel, circle, stride=strides, dilation=steps, groups=groups
        )
    points = tuple(_DENSITY * k for k in taps)
    slack = [math.cos(math.pi * (k - 1) / m) for k, m in zip(taps, points, strict=True)]
    return conv_operator_norm(kernel, points, groups=groups) / math.prod(slack) ** 0.5


def _responses(
    kernel: Tensor,
    sizes: tuple[int, ...],
    dilation: tuple[int, ...],
    strides: tuple[int, ...],
) -> Tensor:
    """Return the matrices at all frequencies, ``(*frequencies, c_out, columns)``."""
    double = kernel.dtype in (torch.float64, torch.complex128)
    real = torch.float64 if double else torch.float32
    K = kernel.to(torch.complex128 if double else torch.complex64)
    halved = len(sizes) - 1 if not kernel.is_complex() and set(strides) == {1} else -1
    for i, (n, d, s) in enumerate(zip(sizes, dilation, strides, strict=True)):
        taps = torch.arange(kernel.shape[2 + i], device=kernel.device)
        count = n // 2 + 1 if i == halved else n  # the others are the conjugates
        turns = torch.arange(count, device=kernel.device).outer(taps * d) % n
        angle = turns.to(real) * (-2 * math.pi / n)
        waves = torch.polar(torch.ones_like(angle), angle)
        # the taps come first among the spatial dimensions, the frequencies go last
        K = K.movedim(2, -1) @ waves.mT
        K = K.unflatten(-1, (s, count // s)) if s > 1 else K.unsqueeze(-2)
        K = K.movedim(-2, 2).flatten(1, 2)
    return K.movedim((0, 1), (-2, -1))


def _largest(blocks: Tensor) -> Tensor:
    """Return the largest singular value of many matrices, ``(count, n, k) -> ()``."""
    if blocks.numel() == 0:
        return blocks.abs().sum()
    with torch.no_grad():
        size = blocks.abs().amax()
        # a division by less would overflow
        scaled = blocks / torch.where(size > torch.finfo(size.dtype).tiny, size, 1)
        wide = blocks.shape[-2] < blocks.shape[-1]
        gram = scaled @ scaled.mH if wide else scaled.mH @ scaled
        best = torch.linalg.eigvalsh(gram)[..., -1].argmax()
    # with the vectors, whether or not a gradient needs them: else the last digit is
    # another one where gradients are off
    chosen = blocks.index_select(0, best.reshape(1))[0]
    return torch.linalg.svd(chosen, full_matrices=False).S[0]


def overlap(taps: int, stride: int, dilation: int) -> int:
    """Return how many windows of a convolution a point of the input is in, at most.

    Example:
        >>> overlap(3, 1, 1), overlap(3, 3, 1), overlap(3, 2, 2)
        (3, 1, 3)
    """
    # taps that reach one point are stride/gcd apart
    return -(-taps * math.gcd(stride, dilation) // stride)
