"""Slices of a given norm: over their norm, along great circles, or standardized."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.precision import double, full_precision
from ..linalg.rays import Dims, from_slices, normalized, require_slices, slices
from ..linalg.sphere import sphere_exponential
from ..sets.slices import Sphere, Standardized, slice_radius


class Normalize(Parametrization):
    r"""Each slice over its norm, times a radius.

    .. math::
        v \mapsto r\, v / \|v\|, \qquad
        \mathbb{R}^N \to \{w : \|w\| = r\}

    ``Normalize(dim=-1)`` makes rows of norm 1, ``dim=-2`` columns (an oblique matrix),
    ``dim=(-2, -1)`` matrices of Frobenius norm 1, and ``dim=None`` the whole tensor a
    unit vector. Surjective; the length of v changes nothing, so that weight decay only
    makes steps longer. The derivative is exact for slices of any size. A slice of zeros
    becomes a constant one, and has the derivative of norm 1, with which it leaves. The
    right inverse is the weight itself, exact. Costs two passes over the tensor, and
    four for the gradient.

    Args:
        radius: r > 0.
        dim: the dimension that the slices run along, or several; ``None`` for all.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Normalize(5.0)(torch.tensor([[6.0, 8.0], [0.0, 1.0]]))
        tensor([[3., 4.],
                [0., 5.]])

    References:
        Absil and Gallivan, Joint Diagonalization on the Oblique Manifold for
        Independent Component Analysis, 2006, https://doi.org/10.1109/ICASSP.2006.1661433
    """

    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(self, radius: float = 1.0, dim: Dims = -1) -> None:
        super().__init__()
        self.radius = radius
        self.dim = dim

    @property
    def codomain(self) -> Sphere:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose slices have the norm r."""
        return Sphere(self.radius, self.dim)

    def bind(self, weight: Tensor) -> None:
        """Check the dimensions and the radius."""
        require_slices(weight.shape, self.dim)
        require_positive("radius", self.radius)

    @full_precision
    def forward(self, V: Tensor) -> Tensor:
        """Return the slices of ``V``, with the norm r."""
        return scaled(normalized(slices(V, self.dim)), self.radius, V, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        require_slices(weight.shape, self.dim)
        return weight.contiguous()


class SphereExp(Parametrization):
    r"""The exponential map of the sphere, around a base point.

    .. math::
        x \mapsto r \left(\cos \|v\|\, b + \frac{\sin \|v\|}{\|v\|}\, v\right),
        \quad v = x - \langle b, x \rangle b, \qquad
        \mathbb{R}^N \to \{w : \|w\| = r\}

    The slice moves along the great circle from b that v points at, by the angle
    :math:`\|v\|`. Surjective, and injective for tangent vectors shorter than
    :math:`\pi`; the part of x along b changes nothing. At zero it is an isometry times
    r, whereas `Normalize` takes steps that depend on the length of the original. Weight
    decay pulls towards b. Derivatives are exact at zero, of every order.

    The right inverse is exact: it moves the buffer ``base``, and the coordinates become
    zero. So does ``rebase_``, and with it ``Rebase(model, optimizer)``. Costs seven
    passes over the tensor, and eight for the gradient.

    Args:
        radius: r > 0.
        dim: the dimension that the slices run along, or several; ``None`` for all.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, circle = torch.nn.Linear(2, 1), maps.SphereExp(5.0)
        >>> layer = holdfast.register_parametrization(layer, "weight", circle)
        >>> layer.weight = torch.tensor([[3.0, 4.0]])
        >>> layer.weight.detach()
        tensor([[3., 4.]])

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501
    """

    base: Tensor | None
    deterministic = True
    foreach = "vmap"
    decays = False
    based = True

    def __init__(self, radius: float = 1.0, dim: Dims = -1) -> None:
        super().__init__()
        self.radius = radius
        self.dim = dim
        self.register_buffer("base", None)

    @property
    def codomain(self) -> Sphere:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose slices have the norm r."""
        return Sphere(self.radius, self.dim)

    def bind(self, weight: Tensor) -> None:
        """Start at constant slices."""
        require_slices(weight.shape, self.dim)
        require_positive("radius", self.radius)
        self.base = self._unit(torch.ones_like(weight))

    def _unit(self, weight: Tensor) -> Tensor:
        W = normalized(slices(double(weight), self.dim))
        return from_slices(W, weight.shape, self.dim).to(weight.dtype).contiguous()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the points with the coordinates ``X``."""
        assert self.base is not None
        base = slices(self.base.to(X.dtype), self.dim)
        W = sphere_exponential(slices(X, self.dim), base)
        return scaled(W, self.radius, X, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return zero, and move the base to the weight."""
        require_slices(weight.shape, self.dim)
        self.base = self._unit(weight)
        return torch.zeros_like(weight, memory_format=torch.contiguous_format)

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the base to the value, and the coordinates to zero."""
        (X,) = originals
        assert self.base is not None
        W = self.forward(X)
        self.base.copy_(self._unit(W) if repair else W / self.radius)
        X.zero_()


class Standardize(Parametrization):
    r"""Each slice less its mean, over its standard deviation.

    .. math::
        v \mapsto \sigma\, \frac{v - \bar v}
        {\sqrt{\tfrac1N \sum_j |v_j - \bar v|^2}}, \qquad
        \mathbb{R}^N \to \{w : \bar w = 0,\ \tfrac1N \sum_j |w_j|^2 = \sigma^2\}

    Weight standardization, without the small number that is usually added to the
    variance: the deviation is right for slices of any size. With ``fan_in`` it is
    :math:`\sigma / \sqrt N`, the scaled variant, for which a nonlinearity's gain is
    :math:`\sigma`. For a kernel take all dimensions but the first:
    ``dim=(1, 2, 3)``.

    Surjective; mean and length of v change nothing. A constant slice becomes a linear
    ramp, and has a finite derivative, with which it leaves. The right inverse is the
    weight itself, exact. Costs four passes over the tensor, and six for the gradient.

    Args:
        std: the deviation.
        dim: the dimension that the slices run along, or several; ``None`` for all.
        fan_in: divide the deviation by the root of the number of entries.

    Shape:
        ``(*) -> (*)``, for slices of at least two entries.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Standardize()(torch.tensor([1.0, 2.0, 1.0, 2.0]))
        tensor([-1.,  1., -1.,  1.])

    References:
        Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight
        Standardization, 2019, https://arxiv.org/abs/1903.10520; Brock, De and Smith,
        Characterizing Signal Propagation to Close the Performance Gap in Unnormalized
        ResNets, 2021, https://arxiv.org/abs/2101.08692
    """

    deterministic = True
    foreach = "vmap"
    decays = False

    def __init__(
        self, std: float = 1.0, dim: Dims = -1, *, fan_in: bool = False
    ) -> None:
        super().__init__()
        self.std = std
        self.dim = dim
        self.fan_in = fan_in

    @property
    def codomain(self) -> Standardized:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors with such means and deviations."""
        return Standardized(self.std, self.dim, fan_in=self.fan_in)

    def bind(self, weight: Tensor) -> None:
        """Check the dimensions, and that there is something to deviate from."""
        require_slices(weight.shape, self.dim, 2)
        require_positive("std", self.std)

    @full_precision
    def forward(self, V: Tensor) -> Tensor:
        """Return the slices of ``V`` with mean zero and the deviation."""
        X = slices(V, self.dim)
        # against the first entry, which changes nothing: equal ones become exact zeros
        X = X - X[..., :1].detach()
        U = normalized(X - X.mean(-1, keepdim=True), balanced=True)
        radius = slice_radius(V.shape, self.std, self.dim, fan_in=self.fan_in)
        return scaled(U, radius, V, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        require_slices(weight.shape, self.dim, 2)
        return weight.contiguous()


def scaled(X: Tensor, factor: float, like: Tensor, dim: Dims) -> Tensor:
    """Return slices times a number, without a pass for 1, as a tensor."""
    return from_slices(X if factor == 1 else factor * X, like.shape, dim)


def require_positive(name: str, value: float) -> None:
    """Raise unless a number is positive."""
    if not value > 0:
        raise ValueError(f"Expected `{name}` to be positive. Got {value}.")
