"""Weights by their norms: length and direction apart, or unit spectral norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.matricization import matricize
from ..linalg.norms import axis, divide, norm_except, rescale, usual_norms
from ..linalg.power import power_iteration, rayleigh
from ..linalg.precision import full_precision
from ..linalg.singular_values import largest_singular_value
from ..linalg.tracing import traced
from ..sets.spectral import SpectralSphere

# As many steps as torch makes, so that a seed gives the same vectors.
_FIRST_ITERATIONS = 15
# More than any weight needs; a file that asks for more would never be done.
_MOST_ITERATIONS = 10_000

# The vectors fit a new weight if one step moves them by less.
_FITTING = 1e-3


class WeightNorm(Parametrization):
    r"""Length and direction of each slice as two originals.

    .. math::
        (g, V) \mapsto g\, V / \|V\|, \qquad
        \mathbb{R}^k \times \mathbb{R}^{n \times k} \to \mathbb{R}^{n \times k}

    The norm runs over all dimensions but one. The right inverse is exact: g = ‖W‖ and
    V = W; a slice that is zero gets the direction of all ones, so that training can
    leave zero. A zero slice of V gives zero, with the gradient of a slice of norm 1.
    Costs two passes over the tensor.

    Args:
        dim: the dimension along which the slices lie, each with a length of its own;
            negative ones count from the end. ``None`` makes the whole tensor one slice.

    Shape:
        ``(1, ..., d_dim, ..., 1), (d_0, ..., d_m) -> (d_0, ..., d_m)``, and ``()`` for
        the lengths if ``dim=None``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> g, V = torch.tensor([[10.0]]), torch.tensor([[3.0, 4.0]])
        >>> maps.WeightNorm()(g, V)
        tensor([[6., 8.]])

    References:
        Salimans and Kingma, Weight Normalization, 2016,
        https://arxiv.org/abs/1602.07868
    """

    deterministic = True
    foreach = "stack"
    decays = (True, False)

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def bind(self, weight: Tensor) -> None:
        """Check the dimension."""
        if self.dim is not None:
            axis(self.dim, weight.ndim)

    def forward(self, g: Tensor, V: Tensor) -> Tensor:
        """Return the slices of ``V`` with the lengths ``g``."""
        return rescale(V, g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return lengths and directions."""
        length = usual_norms(weight, self.dim)
        return self._polar(weight) if length is None else (length, weight)

    @full_precision
    def _polar(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        length = norm_except(weight, self.dim)
        if weight.is_cpu and not traced(weight) and bool(length.all()):
            return length, weight  # spares a copy where looking is free
        entries = weight.numel() // max(1, length.numel())
        uniform = 1 / math.sqrt(max(1, entries))
        return length, weight.masked_fill(length == 0, uniform)

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Rename ``weight_g`` and ``weight_v`` of older checkpoints, in place."""
        old = (f"{prefix}{name}_g", f"{prefix}{name}_v")
        if index == 0 and all(key in state for key in old) and self._fits(state, *old):
            for i, key in enumerate(old):
                state[f"{prefix}parametrizations.{name}.original{i}"] = state.pop(key)

    def _fits(self, state: dict[str, Tensor], g: str, v: str) -> bool:
        """Tell whether lengths are those of our slices, and not along another dim."""
        V = state[v]
        shape = [1] * V.ndim
        if self.dim is not None and V.ndim:
            kept = axis(self.dim, V.ndim)
            shape[kept] = V.shape[kept]
        return [*state[g].shape] == ([] if self.dim is None else shape)


class SpectralNorm(Parametrization):
    r"""Divide by the largest singular value, as power iteration estimates it.

    .. math::
        W \mapsto W / \sigma(W), \quad \sigma(W) = u^H W v, \qquad
        \mathbb{R}^{n \times k} \to \{W : \sigma_{\max}(W) = 1\}

    Approximately: u and v are buffers that move towards the top singular vectors once
    in every training forward of the module, never when the weight is read. The right
    inverse is the weight itself, exact for weights of spectral norm 1; assigning renews
    the vectors. A zero matrix stays zero, with finite gradients. A vector is divided by
    its norm. Costs two products of matrix and vector, and two more in training.

    Args:
        n_power_iterations: steps per training forward, at most 10,000.
        dim: the dimension that makes the rows of the matrix; all others, flattened, are
            its columns. Negative ones count from the end.
        eps: a norm below it counts as zero.
        exact: compute the singular value instead, from the eigenvalues of a matrix of
            the smaller size: nothing moves then, and no state is kept.

    Shape:
        ``(d_0, ..., d_m) -> (d_0, ..., d_m)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> W = torch.diag(torch.tensor([4.0, 1.0]))
        >>> norm = maps.SpectralNorm()
        >>> norm.bind(W)
        >>> torch.allclose(norm.eval()(W), W / 4)
        True

    References:
        Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018,
        https://arxiv.org/abs/1802.05957
    """

    _u: Tensor | None
    _v: Tensor | None
    deterministic = True
    foreach = "vmap"
    decays = False
    moves = True
    outside = "project"

    # holdfast sets it when it calls `refine_` itself. Where it stays False, as under
    # torch's own `register_parametrization`, a training forward has to advance.
    advanced_by_host = False

    def __init__(
        self,
        n_power_iterations: int = 1,
        *,
        dim: int = 0,
        eps: float = 1e-12,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps
        self.exact = exact
        self.register_buffer("_u", None)
        self.register_buffer("_v", None)

    @property
    def codomain(self) -> SpectralSphere:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the image tends to as the iteration converges."""
        return SpectralSphere(axis=self.dim)

    def bind(self, weight: Tensor) -> None:
        """Start the vectors at random, and bring them near the top singular pair."""
        if self.n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but "
                f"got n_power_iterations={self.n_power_iterations}"
            )
        if self.n_power_iterations > _MOST_ITERATIONS:
            raise ValueError(
                f"Expected n_power_iterations to be at most {_MOST_ITERATIONS}. Got "
                f"{self.n_power_iterations}. `SpectralNorm(exact=True)` needs none."
            )
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"Expected a finite `eps`, 0 or positive. Got {self.eps}.")
        axis(self.dim, weight.ndim)
        if weight.ndim < 2 or self.exact:
            return
        M = matricize(weight.detach(), self.dim)
        starts = (M.new_empty(size).normal_() for size in M.shape)
        u, v = (x / torch.linalg.vector_norm(x).clamp_min(self.eps) for x in starts)
        self._u, self._v = self._iterate(M, u, v, _FIRST_ITERATIONS)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight over its estimated spectral norm."""
        if self.training and not self.advanced_by_host:
            self.refine_(weight)
        return self._normalized(weight)

    @full_precision
    def _normalized(self, weight: Tensor) -> Tensor:
        return divide(weight, self.estimate(weight), self.eps)

    @full_precision
    def estimate(self, weight: Tensor) -> Tensor:
        """Return what `forward` takes the largest singular value for."""
        if weight.ndim < 2:
            return norm_except(weight, None)
        M, u, v = matricize(weight, self.dim), self._u, self._v
        if u is None or v is None:
            return largest_singular_value(M)
        # copies, as `refine_` may move the buffers before the backward pass
        return rayleigh(M, u.to(M.dtype, copy=True), v.to(M.dtype, copy=True))

    def refine_(self, weight: Tensor) -> None:
        """Move the vectors towards the top singular pair of ``weight``, in place."""
        u, v = self._u, self._v
        if u is not None and v is not None:
            with torch.no_grad():
                M = matricize(weight.detach(), self.dim)
                new = self._iterate(M, u, v, self.n_power_iterations)
                u.copy_(new[0])
                v.copy_(new[1])

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight, and renew the vectors if they are not its own."""
        u, v = self._u, self._v
        if u is None or v is None:
            self.bind(weight)
        elif not weight.is_meta:
            M = matricize(weight.detach(), self.dim)
            if not _fit(M, u, v) <= _FITTING:
                self._u, self._v = self._iterate(M, u, v, _FIRST_ITERATIONS)
        return weight

    def translate(
        self, state: dict[str, Tensor], prefix: str, name: str, index: int
    ) -> None:
        """Rename ``weight_orig``, ``weight_u``, ``weight_v`` of older checkpoints."""
        keys = {"orig": "original", "u": "0._u", "v": "0._v"}
        old = {f"{prefix}{name}_{end}": key for end, key in keys.items()}
        if index == 0 and self._u is not None and all(key in state for key in old):
            W, u, _ = (state[key] for key in old)
            if W.ndim and u.numel() == W.shape[axis(self.dim, W.ndim)]:
                for key, new in old.items():
                    state[f"{prefix}parametrizations.{name}.{new}"] = state.pop(key)

    def _iterate(
        self, M: Tensor, u: Tensor, v: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        return power_iteration(M, u, v, count=count, eps=self.eps)


@full_precision
def _fit(M: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return how far v is from what a step with M makes of u, relative to the step."""
    step = M.mH @ u
    norm = torch.linalg.vector_norm(step)
    return torch.linalg.vector_norm(step - norm * v) / norm
