"""Zeros that become more while training goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.magnitudes import cubic_sparsity, largest
from ..sets.sparse import KSparse
from .sparse import PruningGradient, check_pruning, kept


class GradualTopK(Parametrization):
    r"""Keep fewer and fewer entries while training goes on, those of largest modulus.

    .. math::
        X \mapsto M_t \odot X, \qquad
        s_t = s_f + (s_i - s_f) \big(1 - (t - t_0)/T\big)^3

    is the share of zeros, rounded to entries, at the step t that the buffer
    ``step`` counts. `advance_` raises it; `holdfast.Sparsify` does so after the
    steps of an optimizer. The codomain shrinks with it.

    Otherwise as `TopK`, with the same gradients and the same cost; on an accelerator
    that of a sort, so that the host need not wait for the buffer.

    Args:
        final: s_f, the sparsity at the end, from 0 to 1.
        steps: T, how many steps the rise takes.
        start: t_0, the step at which it begins.
        initial: s_i, the sparsity until then.
        every: the sparsity rises only after every so many steps.
        axis: the dimension along which the entries are counted; ``None`` counts those
            of the whole tensor.
        gradient: ``"straight_through"`` or ``"masked"``.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> map_, X = maps.GradualTopK(0.5, steps=2), torch.tensor([1.0, 4.0, 2.0, 3.0])
        >>> map_(X)
        tensor([1., 4., 2., 3.])
        >>> map_.advance_(2)
        >>> map_(X)
        tensor([0., 4., 0., 3.])

    References:
        Zhu and Gupta, To Prune, or Not to Prune, 2017,
        https://arxiv.org/abs/1710.01878
    """

    step: Tensor
    length: Tensor | None
    deterministic = True
    foreach = "vmap"
    outside = "project"

    def __init__(
        self,
        final: float,
        *,
        steps: int,
        start: int = 0,
        initial: float = 0.0,
        every: int = 1,
        axis: int | None = None,
        gradient: PruningGradient = "straight_through",
    ) -> None:
        super().__init__()
        self.final = final
        self.steps = steps
        self.start = start
        self.initial = initial
        self.every = every
        self.axis = axis
        self.gradient: PruningGradient = gradient
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("length", None)

    @property
    def codomain(self) -> KSparse:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors with as few nonzero entries as now."""
        length = self.step * 0 if self.length is None else self.length
        return KSparse(self._count(length), axis=self.axis)

    def bind(self, weight: Tensor) -> None:
        """Check the arguments, and note how many entries there are."""
        for name in ("initial", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"Expected `{name}` from 0 to 1. Got {getattr(self, name)}."
                )
        for name in ("steps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Expected `{name}` to be at least 1. Got {getattr(self, name)}."
                )
        check_pruning(weight, self.axis, self.gradient)
        self.step = self.step.to(weight.device)
        self.length = torch.full_like(self.step, _length(weight, self.axis))

    def forward(self, X: Tensor) -> Tensor:
        """Return ``X`` with zeros in place of the smallest entries."""
        count = self._count(_length(X, self.axis))
        return kept(X, largest(X, count, self.axis), self.gradient)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        return weight

    def sparsity(self) -> Tensor:
        """Return the share of zeros at the present step."""
        return cubic_sparsity(
            self.step - (self.step - self.start) % self.every,
            initial=self.initial,
            final=self.final,
            start=self.start,
            steps=self.steps,
        )

    def advance_(self, steps: int = 1) -> None:
        """Go on by so many steps, in place."""
        self.step.add_(steps)

    def _count(self, length: int | Tensor) -> Tensor:
        """Return how many of the entries are kept at the present step."""
        return length - (self.sparsity() * length).round().long()


def _length(X: Tensor, axis: int | None) -> int:
    """Return the number of entries of a slice."""
    return X.numel() if axis is None else X.shape[axis]
