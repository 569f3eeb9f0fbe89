"""Weights on a grid, trained as if they were not."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.entrywise import fake_quantize
from ..linalg.norms import axis
from ..linalg.precision import full_precision
from ..sets.interval import Grid, like
from .bounds import check_bounds, keep

# The levels are kept as numbers of 32 bits.
_MOST_BITS = 31


class FakeQuantize(Parametrization):
    r"""Round to whole multiples of a step; the gradient passes straight through.

    .. math::
        X \mapsto s \,\mathrm{clip}(\mathrm{round}(X / s),\, l,\, h), \qquad
        \mathbb{R} \to s\, \{l, \ldots, h\}, \quad h - l < 2^{\text{bits}}

    The gradient is taken for that of the identity, and is zero where X lies beyond the
    levels: the map has no useful derivative of its own. Zero is always a level. The
    right inverse is the weight itself, on the grid or not: the original keeps what
    rounding takes from the value. Where ``step`` is not given, registering chooses step
    and range such that no entry is clipped, and so does assigning a weight that is not
    on the grid. Costs four passes over the tensor.

    Args:
        bits: the number of levels is :math:`2^{\text{bits}} - 1` if symmetric, else
            :math:`2^{\text{bits}}`. From 2 to 31, without sign from 1.
        step: the distance of two levels; a tensor is broadcast to the weight's shape.
            ``None`` takes it from the weight.
        symmetric: as many levels below zero as above. Otherwise they go from the
            smallest entry to the largest; from zero upwards where ``step`` is given.
        dim: the dimension along which slices have a step of their own, as the rows
            (0) of a linear layer; ``None`` takes one for the whole tensor.

    Shape:
        ``(*) -> (*)``, real.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> quantize, W = maps.FakeQuantize(2), torch.tensor([1.0, 0.3, -0.7])
        >>> quantize.bind(W)
        >>> quantize(W)
        tensor([ 1.,  0., -1.])

    References:
        Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons,
        2013, https://arxiv.org/abs/1308.3432
    """

    step: float | Tensor | None
    grid_step: Tensor | None
    grid_low: Tensor | None
    deterministic = True
    foreach = "vmap"
    outside = "project"

    def __init__(
        self,
        bits: int = 8,
        *,
        step: float | Tensor | None = None,
        symmetric: bool = True,
        dim: int | None = None,
    ) -> None:
        super().__init__()
        self.bits = bits
        keep(self, "step", step)
        self.symmetric = symmetric
        self.dim = dim
        self.register_buffer("grid_step", None)
        self.register_buffer("grid_low", None)

    @property
    def codomain(self) -> Grid:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors on the grid, which there is once the map has seen a weight."""
        step, low = self.grid_step, self.grid_low
        if step is None or low is None:
            raise InvalidTensorError("Expected a map that is bound to a weight.")
        return Grid(step, low, low + self._intervals)

    @property
    def _intervals(self) -> int:
        return 2**self.bits - (2 if self.symmetric else 1)

    def bind(self, weight: Tensor) -> None:
        """Choose the step and the lowest level."""
        if self.bits < (2 if self.symmetric else 1):
            raise ValueError(f"Expected bits to be at least 2. Got {self.bits}.")
        if self.bits > _MOST_BITS:
            raise ValueError(
                f"Expected bits to be at most {_MOST_BITS}. Got {self.bits}."
            )
        check_bounds(weight, step=0.0 if self.step is None else self.step)
        step = torch.as_tensor(1.0 if self.step is None else self.step)
        if not step.is_meta and not bool((step > 0).all()):
            raise ValueError(f"Expected `step` to be positive. Got {step.min():g}.")
        if self.dim is not None:
            axis(self.dim, weight.ndim)
        # a step of a half type would move the levels by more than half a step
        wide = torch.promote_types(weight.dtype, torch.float32)
        step, low = self._range(weight.detach().to(wide))
        self.grid_step, self.grid_low = step, low.to(torch.int32)

    def _range(self, W: Tensor) -> tuple[Tensor, Tensor]:
        below = torch.full((), -(self._intervals // 2) if self.symmetric else 0)
        if self.step is not None:
            return like(self.step, W).clone(), below.to(W.device)
        low, high = _extremes(W, self.dim)
        if self.symmetric:
            low = -torch.maximum(-low, high)
            high = -low
        step = (high - low) / self._intervals
        step = torch.where(step > 0, step, 1)
        return step, (low / step).round()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the nearest tensor on the grid."""
        step, low = self.grid_step, self.grid_low
        if step is None or low is None:
            step, low = self._range(X.detach())
        return fake_quantize(X, step, low, low + self._intervals)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight; choose the step anew if it is not on the grid."""
        unbound = self.grid_step is None
        if unbound or (self.step is None and not self.codomain.contains(weight)):
            self.bind(weight)
        return weight


def _extremes(W: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest entry, and zero between them."""
    if W.numel() == 0:
        return W.new_zeros(()), W.new_zeros(())
    kept = None if dim is None else axis(dim, W.ndim)
    dims = [d for d in range(W.ndim) if d != kept]
    if not dims:
        return W.clamp(max=0), W.clamp(min=0)
    keep_dims = kept is not None
    low, high = W.amin(dims, keepdim=keep_dims), W.amax(dims, keepdim=keep_dims)
    return low.clamp(max=0), high.clamp(min=0)
