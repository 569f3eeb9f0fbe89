"""Zeros: fixed ones, or wherever the entries are smallest."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.magnitudes import (
    keep_masked,
    keep_straight_through,
    largest,
    largest_of_groups,
    require_groups,
)
from ..linalg.norms import axis as position
from ..sets.linear import Sparse
from ..sets.sparse import KSparse, NMSparse

PruningGradient = Literal["straight_through", "masked"]


class Mask(Parametrization):
    r"""Prune by a fixed mask.

    .. math::
        X \mapsto M \odot X, \qquad
        \mathbb{R}^{n \times k} \to \{W : w_{ij} = 0 \text{ where } m_{ij} = 0\}

    The right inverse is exact for such weights; any other that is assigned is pruned.
    Costs one pass over the tensor. Pruned entries of the original get no gradient.

    Args:
        mask: true, or 1, where an entry is kept; broadcast to the tensor's shape.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, mask = torch.nn.Linear(2, 2), torch.eye(2, dtype=torch.bool)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Mask(mask))
        >>> layer.weight = torch.ones(2, 2)
        >>> layer.weight.detach()
        tensor([[1., 0.],
                [0., 1.]])
    """

    mask: Tensor
    deterministic = True
    foreach = "vmap"
    outside = "project"

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    @property
    def codomain(self) -> Sparse:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors with these zeros."""
        return Sparse(self.mask)

    def bind(self, weight: Tensor) -> None:
        """Check the shape of the mask."""
        shape = tuple(self.mask.shape)
        fits = len(shape) <= weight.ndim and all(
            m in (1, n) for m, n in zip(shape[::-1], weight.shape[::-1], strict=False)
        )
        if not fits:
            raise InvalidTensorError(
                f"Expected a mask of the weight's shape {tuple(weight.shape)}, or one "
                f"that broadcasts to it. Got {shape}."
            )

    def forward(self, X: Tensor) -> Tensor:
        """Return ``X`` with zeros where the mask is zero, even instead of NaN."""
        return torch.where(self.mask.bool(), X, 0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight, pruned."""
        return torch.where(self.mask.bool(), weight, 0)


class TopK(Parametrization):
    r"""Keep the k entries of largest modulus, of the tensor or of every slice.

    .. math::
        X \mapsto M \odot X, \quad m_{ij} = 1 \text{ for the } k \text{ largest }
        |x_{ij}|, \qquad \mathbb{R}^{n \times k} \to \{W : \|W\|_0 \le k\}

    Which entries are kept is chosen anew in every forward. The straight-through
    gradient is that of the identity: it also moves the entries left out, so that they
    can come back. The masked one is the true gradient wherever there is one, that is
    where no entry left out ties with one kept; entries left out stay as they are.

    Surjective; of many originals that give one weight the right inverse returns the
    weight itself. A dense tensor that is assigned becomes the original as it is, and
    the weight its projection. Costs a selection, O(number of entries).

    Args:
        count: k.
        axis: the dimension along which the entries are counted, as -1 for each row.
            ``None`` counts those of the whole tensor.
        gradient: ``"straight_through"`` or ``"masked"``.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.TopK(1, axis=-1)(torch.tensor([[3.0, -4.0], [2.0, 1.0]]))
        tensor([[ 0., -4.],
                [ 2.,  0.]])

    References:
        Bengio, Léonard and Courville, Estimating or Propagating Gradients Through
        Stochastic Neurons, 2013, https://arxiv.org/abs/1308.3432
    """

    deterministic = True
    foreach = "vmap"
    outside = "project"

    def __init__(
        self,
        count: int,
        *,
        axis: int | None = None,
        gradient: PruningGradient = "straight_through",
    ) -> None:
        super().__init__()
        self.count = count
        self.axis = axis
        self.gradient: PruningGradient = gradient

    @property
    def codomain(self) -> KSparse:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors with so few nonzero entries."""
        return KSparse(self.count, axis=self.axis)

    def bind(self, weight: Tensor) -> None:
        """Check the arguments."""
        # of a share, 0.5, a single entry would be left
        if not isinstance(self.count, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Expected `count` to be an integer. Got {self.count!r}.")
        if self.count < 0:
            raise ValueError(f"Expected `count` to be at least 0. Got {self.count}.")
        check_pruning(weight, self.axis, self.gradient)

    def forward(self, X: Tensor) -> Tensor:
        """Return ``X`` with zeros in place of all but its largest entries."""
        return kept(X, largest(X, self.count, self.axis), self.gradient)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        return weight


class NMSparsity(Parametrization):
    r"""Keep the N entries of largest modulus of every M along an axis.

    .. math::
        X \mapsto M \odot X, \quad m = 1 \text{ for the } N \text{ largest of every }
        M \text{ entries}

    Surjective onto the N:M sparse tensors; the right inverse is the weight itself. A
    dense tensor that is assigned becomes the original as it is, and the weight its
    projection. Costs a selection in every group.

    Args:
        n: N, how many entries of a group are kept.
        m: M, the size of a group; the axis has to be a multiple of it.
        axis: the dimension that is cut into groups; -1, along the rows, is what
            accelerators know.
        gradient: ``"straight_through"``, that of the identity, or ``"masked"``, which
            does not move the entries left out.
        decay: λ of the sparse-refined straight-through gradient (SR-STE), which adds
            λX to the gradient at the entries left out, so that the choice settles; the
            paper takes 2e-4. It is added once per backward pass, whatever the loss.

    Shape:
        ``(*) -> (*)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.NMSparsity(2, 4)(torch.tensor([1.0, -3.0, 2.0, 0.5]))
        tensor([ 0., -3.,  2.,  0.])

    References:
        Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From
        Scratch, 2021, https://arxiv.org/abs/2102.04010

        Mishra et al., Accelerating Sparse Deep Neural Networks, 2021,
        https://arxiv.org/abs/2104.08378
    """

    deterministic = True
    foreach = "vmap"
    outside = "project"

    def __init__(
        self,
        n: int = 2,
        m: int = 4,
        *,
        axis: int = -1,
        gradient: PruningGradient = "straight_through",
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.n = n
        self.m = m
        self.axis = axis
        self.gradient: PruningGradient = gradient
        self.decay = decay

    @property
    def codomain(self) -> NMSparse:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors that are sparse in this way."""
        return NMSparse(self.n, self.m, axis=self.axis)

    def bind(self, weight: Tensor) -> None:
        """Check the arguments, and that the axis is a multiple of M."""
        if not 0 <= self.n <= self.m or self.m < 1:
            raise ValueError(f"Expected 0 <= n <= m, m >= 1. Got {self.n}:{self.m}.")
        if self.decay and self.gradient == "masked":
            raise ValueError(
                "`decay` belongs to the straight-through gradient; a masked one leaves "
                'the other entries alone. Take `gradient="straight_through"`.'
            )
        check_pruning(weight, self.axis, self.gradient)
        require_groups(weight.shape, self.m, self.axis)

    def forward(self, X: Tensor) -> Tensor:
        """Return ``X`` with zeros in place of the smaller entries of every group."""
        mask = largest_of_groups(X, self.n, self.m, self.axis)
        return kept(X, mask, self.gradient, self.decay)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        return weight


def check_pruning(weight: Tensor, axis: int | None, gradient: str) -> None:
    """Refuse what is no dimension, or no gradient."""
    if gradient not in get_args(PruningGradient):
        raise ValueError(
            'Expected `gradient` to be "straight_through" or "masked". '
            f"Got {gradient!r}."
        )
    if axis is not None:
        position(axis, weight.ndim)


def kept(X: Tensor, mask: Tensor, gradient: str, decay: float = 0.0) -> Tensor:
    """Return the entries under the mask, with the gradient of that name."""
    if gradient == "masked":
        return keep_masked(X, mask)
    return keep_straight_through(X, mask, decay)
