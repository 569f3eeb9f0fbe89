"""Matrices of low rank, as a product of thin factors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.invertible_factors import log_size, size_coordinate
from ..linalg.low_rank import (
    balanced_factors,
    require_rank,
    rounding_norm,
    truncated_svd,
)
from ..linalg.precision import double, full_precision
from ..linalg.thin import thin_cayley_lower
from ..linalg.thin_coordinates import thin_cayley_lower_inverse
from ..sets.low_rank import FixedRankMatrices, LowRankMatrices


class LowRank(Parametrization):
    r"""The product of a tall and a wide factor.

    .. math::
        (A, B) \mapsto A B^H, \qquad
        \mathbb{R}^{n \times r} \times \mathbb{R}^{k \times r} \to
        \{W : \mathrm{rank}\, W \le r\}

    Surjective, lower ranks included; not injective: with any invertible S, A S and
    :math:`B S^{-H}` give the same. The right inverse is exact, and balanced:
    :math:`A^H A = B^H B`, which are the singular values, truncated for a matrix of
    higher rank. Weight decay on balanced factors is that of the nuclear norm. In
    directions that W lacks, A is zero and B is not, so that training can leave. Costs
    nkr multiply-adds, the gradient twice that, and r(n + k) parameters.

    Args:
        rank: r, at most the smaller side.

    Shape:
        ``(*batch, n, r), (*batch, k, r) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(6, 4)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.LowRank(2))
        >>> int(torch.linalg.matrix_rank(layer.weight))
        2

    References:
        Srebro, Rennie and Jaakkola, Maximum-Margin Matrix Factorization, 2004,
        https://papers.nips.cc/paper/2655-maximum-margin-matrix-factorization
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    @property
    def codomain(self) -> LowRankMatrices:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices of at most this rank."""
        return LowRankMatrices(self.rank)

    def bind(self, weight: Tensor) -> None:
        """Check the rank."""
        require_rank(weight, self.rank)

    @full_precision
    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        """Return the product."""
        # not B.mH, whose gradient is a conjugate view, which torch's Adam refuses
        return A @ B.conj_physical().mT

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return balanced factors."""
        self.bind(weight)
        A, Bh = balanced_factors(double(weight), self.rank, rounding_norm(weight))
        return stored(A, weight), stored(Bh.mH, weight)


class FixedRank(Parametrization):
    r"""Orthonormal factors, and singular values that are never zero.

    .. math::
        (X, Y) \mapsto U\, \mathrm{diag}(e^{\ell_1}, \ldots, e^{\ell_r})\, V^H, \qquad
        \ell_i = \mathrm{arsinh}(\mathrm{Re}\, x_{ii} / 2)

    onto an open part of :math:`\{W : \mathrm{rank}\, W = r\}`. U and V are the thin
    Cayley transforms of X and Y, with fixed signs in the buffers ``left`` and
    ``right``, as in `ThinOrthogonal`. The diagonal of X, which they do not read, has
    the singular values, in any order; what is above it is not used, nor is the upper
    triangle of Y. No decomposition is differentiated, and equal singular values are as
    good as others.

    The right inverse is exact on all matrices of rank r, whose boundary, the lower
    ranks, is not attained. With given signs all but a set of measure zero are reached,
    of square matrices of full rank those with the same sign of the determinant; not
    injective, since singular values can be permuted. Costs 2(n + k)r² + nkr
    multiply-adds and two inverses of size r, the gradient about twice that. `LowRank`
    costs less, and may lose rank.

    Args:
        rank: r, at most the smaller side.

    Shape:
        ``(*batch, n, r), (*batch, k, r) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, map_ = torch.nn.Linear(6, 4), maps.FixedRank(2)
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> int(torch.linalg.matrix_rank(layer.weight))
        2

    References:
        Lezcano-Casado, Trivializations for Gradient-Based Optimization on Manifolds,
        2019, https://arxiv.org/abs/1909.09501
    """

    left: Tensor | None
    right: Tensor | None
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.register_buffer("left", None)
        self.register_buffer("right", None)

    @property
    def codomain(self) -> FixedRankMatrices:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices of exactly this rank."""
        return FixedRankMatrices(self.rank)

    def bind(self, weight: Tensor) -> None:
        """Check the rank, and start with all signs +1."""
        require_rank(weight, self.rank)
        shape = (*weight.shape[:-2], self.rank)
        self.left = torch.ones(shape, dtype=torch.int8, device=weight.device)
        self.right = self.left.clone()

    @full_precision
    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """Return the product of the factors."""
        U, V = thin_cayley_lower(X, self.left), thin_cayley_lower(Y, self.right)
        size = log_size(X.diagonal(dim1=-2, dim2=-1).real).exp()
        return (U * size.unsqueeze(-2)) @ V.mH

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coordinates, and set the signs."""
        require_rank(weight, self.rank)
        U, values, Vh = truncated_svd(double(weight), self.rank)
        X, self.left = thin_cayley_lower_inverse(U)
        Y, self.right = thin_cayley_lower_inverse(Vh.mH)
        s = size_coordinate(values.clamp_min(torch.finfo(values.dtype).tiny))
        sizes = torch.nn.functional.pad(
            torch.diag_embed(s), (0, 0, 0, X.shape[-2] - self.rank)
        )
        return stored(X + sizes, weight), stored(Y, weight)


def stored(X: Tensor, weight: Tensor) -> Tensor:
    """Return what was computed for a weight as an original of its own type.

    Example:
        >>> import torch
        >>> stored(torch.zeros(2, 2).double().mT, torch.ones(1)).dtype
        torch.float32
    """
    return X.to(weight.dtype).resolve_conj().contiguous()
