"""Convolutions that stretch nothing: kernels of bounded operator norm."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.convolution import Sizes
from ..linalg.polar_factor import polar
from ..linalg.precision import full_precision
from ..linalg.structure import tall, turned_like
from ..sets.convolution import ConvolutionBall, OrthogonalKernels, Padding


class ConvSpectralBound(Parametrization):
    r"""Divide a kernel by its operator norm where that is above a bound.

    .. math::
        X \mapsto X / \max(1, \|X\|/c), \qquad
        \mathbb{R}^{c_{out} \times c_{in} \times k_1 \cdots} \to \{K : \|K\| \le c\}

    with the norm of the convolution, not that of a matrix of the kernel as
    `SpectralNorm` has it. It is exact for circular padding of inputs of a given size,
    and otherwise an upper bound: for zero padding of a given size, or for any size,
    stride and dilation. The gradient is exact, also through the norm.

    Onto, and the identity inside; kernels that differ by a factor give the same point
    of the boundary, which is attained. The right inverse is the kernel itself. One that
    is assigned with a larger norm becomes the original as it is. Costs an eigenvalue
    problem of the smaller number of channels at every frequency, as many as the input
    has points, or 16 for each tap and dimension without a size; see
    `linalg.conv_operator_norm`. `RKO` is cheaper for large inputs.

    Args:
        radius: c > 0.
        size: how many points the input has, a number or one for each dimension; or
            ``None`` for inputs of any size.
        padding: ``"zeros"``, of any amount, or ``"circular"``. Others are refused.
        stride: of the convolution; for circular padding of a size, it has to divide it.
        dilation: of the convolution.
        groups: of the convolution.

    Shape:
        ``(c_out, c_in / groups, *taps)`` for as much, with 0 to 3 dimensions of taps. A
        transposed convolution, the adjoint of the one with this kernel, is bounded
        alike: ``(c_in, c_out / groups, *taps)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import linalg, maps
        >>> layer, map_ = torch.nn.Conv2d(2, 3, 3), maps.ConvSpectralBound(0.5)
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> bool(linalg.conv_operator_norm(layer.weight, 16) <= 0.5)
        True

    References:
        Sedghi, Gupta and Long, The Singular Values of Convolutional Layers, 2018,
        https://arxiv.org/abs/1805.10408
    """

    deterministic = True
    foreach = "vmap"
    outside = "project"

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
        super().__init__()
        self.radius = radius
        self.size = size
        self.padding: Padding = padding
        self.stride = stride
        self.dilation = dilation
        self.groups = groups

    @property
    def codomain(self) -> ConvolutionBall:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The kernels of so small a norm."""
        return ConvolutionBall(
            self.radius,
            size=self.size,
            padding=self.padding,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )

    def bind(self, weight: Tensor) -> None:
        """Check the arguments, by computing the norm once."""
        if not self.radius > 0:
            raise ValueError(f"Expected `radius` to be positive. Got {self.radius}.")
        self.codomain.norm(weight.detach())

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the kernel, divided if its norm is too large."""
        return X / (self.codomain.norm(X) / self.radius).clamp_min(1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the kernel."""
        return weight


class RKO(Parametrization):
    r"""Make a kernel orthonormal as a matrix, and divide so that no convolution grows.

    .. math::
        X \mapsto \mathrm{polar}(X_{(c_{out}),\, (c_{in} k_1 \cdots k_D)}) / \sqrt{m}

    A point of the input is in at most m windows. For stride 1 that is the number of
    taps (so that a k x k kernel is divided by k), whatever the dilation; a stride s
    leaves :math:`\lceil k/s \rceil` in each dimension, if it has no factor in common
    with the dilation. The operator norm of the convolution is at most 1: with zero
    padding, or with circular padding if the stride divides the size; for inputs of any
    such size, and transposed as well. Most singular values are smaller; the convolution
    itself is orthogonal only where windows do not overlap, as for stride = taps.

    Every group is made orthonormal by itself. A map without the `groups` of its layer,
    or without its stride, keeps the bound, but the kernel is smaller than it could be;
    a map with a stride that the layer does not have may break it.

    Onto, not one to one. The right inverse is exact, the kernel times √m; any other
    kernel that is assigned is moved to the nearest. Costs a singular value
    decomposition of the c_out x c_in k_1 ... matrix, whatever the size of the input.

    Args:
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.

    Shape:
        ``(c_out, c_in / groups, *taps)`` for as much, with 0 to 3 dimensions of taps.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import linalg, maps
        >>> layer = torch.nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular")
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.RKO())
        >>> bool(linalg.conv_operator_norm(layer.weight, 16) <= 1)
        True

    References:
        Li et al., Preventing Gradient Attenuation in Lipschitz Constrained
        Convolutional Networks, 2019, https://arxiv.org/abs/1911.00937
    """

    deterministic = True
    foreach = "vmap"
    decays = False
    outside = "project"

    def __init__(
        self, *, stride: Sizes = 1, dilation: Sizes = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.stride = stride
        self.dilation = dilation
        self.groups = groups

    @property
    def codomain(self) -> OrthogonalKernels:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The kernels of orthonormal matrices, scaled."""
        return OrthogonalKernels(
            stride=self.stride, dilation=self.dilation, groups=self.groups
        )

    def bind(self, weight: Tensor) -> None:
        """Check the arguments."""
        self.codomain.matrices(weight)
        self.codomain.scale(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the scaled kernel whose matrices are orthonormal."""
        kernels = self.codomain
        M = kernels.matrices(X)
        Q = turned_like(polar(tall(M)), M) / kernels.scale(X)
        return Q.reshape(X.shape)

    @full_precision
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the kernel with orthonormal matrices."""
        self.bind(weight)
        return weight * self.codomain.scale(weight)
