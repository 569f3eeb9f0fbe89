"""Subspaces around a base point."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.horizontal import (
    horizontal_cayley_at,
    horizontal_exponential_at,
    horizontal_slope,
)
from ..linalg.orthonormal import polish, positive_qr
from ..linalg.precision import double, full_precision
from ..linalg.structure import require_matrix, tall, turned_like
from ..linalg.trivialization import around_base
from ..sets.orthogonal import Grassmann

HorizontalMap = Literal["cayley", "matrix_exp"]

_AROUND = {"cayley": horizontal_cayley_at, "matrix_exp": horizontal_exponential_at}


class Horizontal(Parametrization):
    r"""Subspaces of a dimension k, as orthonormal columns, or rows where it is wide.

    .. math::
        X \mapsto \varphi(K B^H - B K^H)\, B, \quad K = X - B B^H X, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{Gr}(n, k)

    with a base point B and :math:`\varphi` the Cayley transform or the exponential, of
    which no n x n matrix is made. It is for losses that depend on nothing but the
    span of the columns: `ThinOrthogonal` moves in k(k - 1)/2 directions more, in which
    nothing changes then. What X has within the span of B does not count, and
    has a gradient of zero; the other k(n - k) coordinates are the tangent space at B.

    Every subspace is reached, however far from the base: at angles up to
    :math:`\pi/2`, which no two subspaces exceed, the singular values of K are at most 2
    for the Cayley transform, and at most :math:`\pi/2` for the exponential, which
    follows geodesics. Up to there the value is the basis nearest to B, and coordinates
    are unique where all angles are less. But the slope vanishes, in one direction, as
    the sum of two angles approaches :math:`\pi`: let the base follow (`Rebase`) where
    weights go far.

    The right inverse is exact, as a matrix and so as a subspace: B becomes the weight
    and X zero. Any other matrix keeps its span, by QR.

    Costs about 10nk² operations and an inverse of size k, and 12nk² for the gradient;
    while X is zero, as always after a step with ``Rebase(every=1)``, nothing and 4nk².
    The exponential takes seven products of size k, in double precision, in place of the
    inverse.

    Args:
        orthogonal_map: ``"cayley"`` or ``"matrix_exp"``.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, subspace = torch.nn.Linear(2, 6), maps.Horizontal()
        >>> layer = holdfast.register_parametrization(layer, "weight", subspace)
        >>> subspace.codomain.dim((6, 2))
        8
        >>> layer.weight = torch.eye(6, 2)
        >>> torch.equal(layer.weight, torch.eye(6, 2))
        True

    References:
        Edelman, Arias and Smith, The Geometry of Algorithms with Orthogonality
        Constraints, 1998, https://arxiv.org/abs/physics/9806030
    """

    base: Tensor
    codomain = Grassmann()
    deterministic = True
    foreach = "stack"
    decays = False
    outside = "project"
    based = True

    def __init__(self, orthogonal_map: HorizontalMap = "cayley") -> None:
        super().__init__()
        self.orthogonal_map: HorizontalMap = orthogonal_map
        self.register_buffer("base", None)

    def bind(self, weight: Tensor) -> None:
        """Start at the first coordinates."""
        require_matrix(weight)
        if self.orthogonal_map not in _AROUND:
            raise ValueError(
                'orthogonal_map has to be "cayley" or "matrix_exp". '
                f"Got: {self.orthogonal_map}."
            )
        identity = torch.eye(*weight.shape[-2:], dtype=weight.dtype)
        self.base = identity.to(weight.device).expand_as(weight).contiguous()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return a basis of the subspace with the coordinates ``X``."""
        return turned_like(self._value(tall(X)), X)

    def _value(self, X: Tensor) -> Tensor:
        base = tall(self.base).to(X.dtype)
        return around_base(X, base, _AROUND[self.orthogonal_map], horizontal_slope)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Move the base to the weight, and return zero coordinates."""
        require_matrix(weight)
        W = double(tall(weight))
        W = polish(W) if self.codomain.contains(weight) else positive_qr(W)
        self.base = turned_like(W, weight).to(weight.dtype).contiguous()
        return torch.zeros_like(weight, memory_format=torch.contiguous_format)

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the base to the value, and the coordinates to zero.

        It is always repaired, as that of `ThinOrthogonal`: errors would multiply.
        """
        (X,) = originals
        self.base.copy_(self._repaired(X))
        X.zero_()

    @full_precision
    def _repaired(self, X: Tensor) -> Tensor:
        return turned_like(polish(self._value(tall(X)), 1), X)
