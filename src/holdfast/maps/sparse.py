"""Fixed zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..sets.linear import Sparse


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
