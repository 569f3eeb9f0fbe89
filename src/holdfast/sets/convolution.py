"""Kernels of convolutions, by what the convolution does to norms."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..linalg.convolution import (
    Sizes,
    conv_norm_bound,
    conv_operator_norm,
    overlap,
    require_kernel,
    spatial,
)
from ..linalg.precision import double
from .constraint import Constraint, Shape
from .orthogonal import Stiefel

Padding = Literal["zeros", "circular"]
PADDINGS: tuple[Padding, ...] = get_args(Padding)


class ConvolutionBall(Constraint):
    r"""Kernels whose convolution has an operator norm of at most a radius.

    .. math::
        \{K : \|K * x\| \le r \|x\| \text{ for all } x\}

    The norm is the exact one for circular padding of inputs of a given size; in all
    other cases it is the upper bound `linalg.conv_norm_bound`, so that the set is a
    little smaller than its formula. A transposed convolution has the same norm. The
    residual is by what factor the norm is above r, less 1: one number for the kernel.
    The cheap projection divides a kernel that is outside by that factor.

    Args:
        radius: r > 0.
        size: how many points the input has, a number or one for each dimension; or
            ``None`` for inputs of any size.
        padding: ``"zeros"``, of any amount, or ``"circular"``.
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> mean = torch.full((1, 1, 3), 1 / 3)
        >>> sets.ConvolutionBall(size=8, padding="circular").contains(mean)
        True
        >>> sets.ConvolutionBall(size=8, padding="circular").contains(2 * mean)
        False
    """

    def __init__(
        self,
        radius: float = 1.0,
        *,
        size: Sizes | None = None,
        padding: Padding = "zeros",
        stride: Sizes = 1,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> None:
        self.radius = radius
        self.size = size
        self.padding: Padding = padding
        self.stride = stride
        self.dilation = dilation
        self.groups = groups

    def norm(self, kernel: Tensor) -> Tensor:
        """Return the norm that the set bounds, with its gradient."""
        if self.padding not in PADDINGS:
            raise ValueError(
                'Expected `padding` to be "zeros" or "circular": reflected or repeated '
                f"entries count twice. Got {self.padding!r}."
            )
        if self.size is None or self.padding == "zeros":
            return conv_norm_bound(
                kernel,
                self.size,
                stride=self.stride,
                dilation=self.dilation,
                groups=self.groups,
            )
        return conv_operator_norm(
            kernel,
            self.size,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )

    def residual(self, weight: Tensor) -> Tensor:
        """Return by what factor the norm is too large, less 1."""
        if not 2 <= weight.ndim <= 5:
            return torch.full((), math.inf, device=weight.device)
        return (self.norm(double(weight)) / self.radius - 1).relu()

    def project(self, weight: Tensor) -> Tensor:
        """Divide a kernel that is outside, down to the radius."""
        wide = double(weight)
        return (wide / (self.norm(wide) / self.radius).clamp_min(1)).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a normal kernel of about norm 2r, divided if that is above r."""
        entries = max(1, math.prod(normal.shape[1:]))
        return self.project(normal * (self.radius / entries**0.5))

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries, twice that where they are complex."""
        return math.prod(shape) * (2 if dtype.is_complex else 1)


class OrthogonalKernels(Constraint):
    r"""Kernels that are orthonormal as matrices, scaled so that no convolution grows.

    .. math::
        \{K : \sqrt{m}\, K_{(c_{out}),\, (c_{in} k_1 \cdots k_D)} \in \mathrm{St}\}

    A point of the input is in at most m windows; m is the number of taps for stride 1.
    The windows of x together are of norm :math:`\sqrt{m} \|x\|` at most, and each is
    multiplied by the matrix: so the convolution has an operator norm of at most 1, with
    zero padding, or circular padding of a size that the stride divides. Where windows
    do not overlap, as for stride = taps, its rows (or columns) are orthonormal. The
    residual is that of `Stiefel` for :math:`\sqrt{m} K`, the largest of all groups.

    Args:
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution, each of which has a matrix of its own.

    Example:
        >>> import torch
        >>> from holdfast import linalg, sets
        >>> K = sets.OrthogonalKernels().sample((4, 2, 3, 3))
        >>> bool(linalg.conv_operator_norm(K, 8) <= 1)
        True

    References:
        Li et al., Preventing Gradient Attenuation in Lipschitz Constrained
        Convolutional Networks, 2019, https://arxiv.org/abs/1911.00937
    """

    def __init__(
        self, *, stride: Sizes = 1, dilation: Sizes = 1, groups: int = 1
    ) -> None:
        self.stride = stride
        self.dilation = dilation
        self.groups = groups

    def matrices(self, kernel: Tensor) -> Tensor:
        """Return the matrix of each group, ``(groups, c_out / groups, columns)``."""
        require_kernel(kernel, self.groups)
        rows = kernel.shape[0] // self.groups
        return kernel.flatten(1).unflatten(0, (self.groups, rows))

    def scale(self, kernel: Tensor) -> float:
        """Return by what the orthonormal matrices are divided, the root of m."""
        strides = spatial("stride", self.stride, kernel)
        steps = spatial("dilation", self.dilation, kernel)
        windows = zip(kernel.shape[2:], strides, steps, strict=True)
        # a list: the compiler does not take the product of a generator
        return math.prod([overlap(k, s, d) for k, s, d in windows]) ** 0.5

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the matrices are from scaled orthonormal ones."""
        if not 2 <= weight.ndim <= 5 or weight.shape[0] % self.groups:
            return torch.full((), math.inf, device=weight.device)
        scaled = self.matrices(double(weight)) * self.scale(weight)
        return Stiefel().residual(scaled).amax()

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest such kernel, by the polar factors of the matrices."""
        Q = Stiefel().project(self.matrices(double(weight))) / self.scale(weight)
        return Q.reshape(weight.shape).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return a kernel of uniformly distributed matrices."""
        Q = Stiefel().from_normal(self.matrices(double(normal))) / self.scale(normal)
        return Q.reshape(normal.shape).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the dimension of `Stiefel`, for each group."""
        kernel = torch.empty(shape, device="meta")
        return Stiefel().dim(tuple(self.matrices(kernel).shape), dtype)
