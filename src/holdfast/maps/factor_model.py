"""Definite matrices as a Gram matrix of few columns plus a positive diagonal."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.entrywise import softplus, softplus_inverse
from ..linalg.factor_model import low_rank_plus_diagonal
from ..linalg.gram_matrix import gram
from ..linalg.precision import double, full_precision
from ..sets.factor_model import LowRankPlusDiagonalMatrices, check_factors


class LowRankPlusDiagonal(Parametrization):
    r"""A Gram matrix of few columns plus a positive diagonal.

    .. math::
        (B, x) \mapsto B B^H + \mathrm{diag}(\log(1 + e^{x})), \qquad
        \mathbb{R}^{n \times r} \times \mathbb{R}^{n} \to \mathrm{Sym}^{+}(n)

    Surjective onto the factor models; not injective: B can be turned from the right.
    The right inverse needs no iteration where the r columns are generic, and is exact
    there: the blocks off the diagonal tell what of the diagonal belongs to B. Other
    definite matrices have to be projected, which keeps their diagonal. A zero on the
    diagonal part is at infinity, and reached up to rounding. Costs one product of the
    size of B, the gradient one more, and n(r + 1) parameters.

    Args:
        rank: r, at most a third of n.

    Shape:
        ``(*batch, n, r), (*batch, n) -> (*batch, n, n)``; of the vector, the real part.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, factors = torch.nn.Linear(4, 4), maps.LowRankPlusDiagonal(1)
        >>> layer = holdfast.register_parametrization(layer, "weight", factors)
        >>> layer.weight = torch.ones(4, 4) + torch.eye(4)
        >>> torch.allclose(layer.weight, torch.ones(4, 4) + torch.eye(4))
        True

    References:
        Albert, The Matrices of Factor Analysis, 1944,
        https://doi.org/10.1073/pnas.30.4.90
    """

    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    @property
    def codomain(self) -> LowRankPlusDiagonalMatrices:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The factor models of this rank."""
        return LowRankPlusDiagonalMatrices(self.rank)

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square, and large enough."""
        check_factors(weight, self.rank)

    @full_precision
    def forward(self, B: Tensor, x: Tensor) -> Tensor:
        """Return the sum of the parts."""
        return gram(B) + torch.diag_embed(softplus(x.real)).to(B.dtype)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts."""
        self.bind(weight)
        W = double(weight)
        floor = torch.finfo(weight.dtype).eps
        B, d = low_rank_plus_diagonal((W + W.mH) / 2, self.rank, floor)
        real = weight.dtype.to_real()
        x = softplus_inverse(d.clamp_min(torch.finfo(real).tiny))
        return B.to(weight.dtype).contiguous(), x.to(real)
