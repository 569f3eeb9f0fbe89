"""Positive definite and semidefinite matrices by their factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.entrywise import softplus, softplus_inverse
from ..linalg.gram_matrix import (
    gram,
    lower_trapezoid,
    permutation_of,
    permuted_rows,
    semidefinite_factor,
    triangular_factor,
)
from ..linalg.precision import double, full_precision
from ..linalg.structure import require_square
from ..sets.definite import PositiveSemidefinite, SymmetricPositiveDefinite

PositiveFunction = Literal["softplus", "exp"]

_FUNCTIONS: dict[PositiveFunction, tuple[Callable[[Tensor], Tensor], ...]] = {
    "softplus": (softplus, softplus_inverse),
    "exp": (torch.exp, torch.log),
}


class Cholesky(Parametrization):
    r"""The product of a triangular matrix with positive diagonal and its transpose.

    .. math::
        X \mapsto L L^H, \quad
        L = \mathrm{tril}_{-1}(X) + \mathrm{diag}(f(x_{11}), f(x_{22}), \ldots), \qquad
        \mathbb{R}^{n \times n} \to \mathrm{Sym}^{+}(n)

    with f the softplus function, or the exponential (log-Cholesky). It is a bijection
    from the lower triangle to the definite matrices, real symmetric or Hermitian, and
    the right inverse is exact. What X has above its diagonal is not used. Semidefinite
    matrices are at infinity; one that is assigned is reached up to rounding.

    With a rank r < n, X is n x r and L lower trapezoidal: the semidefinite matrices of
    rank exactly r. The rows of L are then permuted by the buffer ``permutation``, which
    the right inverse chooses by pivoting, so that it is exact on all of them; training
    stays among those whose first r rows in this order are independent, which are all
    but a set of measure zero.

    Costs one product of size n, the gradient one more: the cheapest of the maps to
    definite matrices. With ``"exp"`` values overflow where X is above 44 in single
    precision; with ``"softplus"`` nowhere.

    Args:
        diagonal: ``"softplus"`` or ``"exp"``.
        rank: r; by default n.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``, or ``(*batch, n, r) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Cholesky())
        >>> W = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> layer.weight = W
        >>> torch.allclose(layer.weight, W)
        True

    References:
        Pinheiro and Bates, Unconstrained Parametrizations for Variance-Covariance
        Matrices, 1996, https://doi.org/10.1007/BF00140873; Lin, Riemannian Geometry of
        Symmetric Positive Definite Matrices via Cholesky Decomposition, 2019,
        https://arxiv.org/abs/1908.09326
    """

    permutation: Tensor | None
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(
        self, diagonal: PositiveFunction = "softplus", *, rank: int | None = None
    ) -> None:
        super().__init__()
        self.diagonal: PositiveFunction = diagonal
        self.rank = rank
        self.register_buffer("permutation", None)

    @property
    def codomain(self) -> SymmetricPositiveDefinite | PositiveSemidefinite:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The definite matrices, or the semidefinite ones of the rank."""
        if self.rank is None:
            return SymmetricPositiveDefinite()
        return PositiveSemidefinite(self.rank)

    def bind(self, weight: Tensor) -> None:
        """Start with the rows in their order."""
        n, rank = checked_rank(weight, self.rank)
        if self.diagonal not in get_args(PositiveFunction):
            raise ValueError(
                f'diagonal has to be "softplus" or "exp". Got: {self.diagonal}.'
            )
        order = torch.arange(n, device=weight.device).expand(weight.shape[:-1])
        self.permutation = order.contiguous() if rank < n else None

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the product of the factor with the coordinates ``X``."""
        positive, _ = _FUNCTIONS[self.diagonal]
        L = lower_trapezoid(X, positive(X.diagonal(dim1=-2, dim2=-1).real))
        if self.permutation is not None:
            L = permuted_rows(L, self.permutation)
        return gram(L)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates of the factor, and set the permutation."""
        self.bind(weight)
        n, rank = checked_rank(weight, self.rank)
        floor = torch.finfo(weight.dtype).eps if rank == n else 0.0
        B = semidefinite_factor(double(weight), rank, floor)
        if self.permutation is not None:
            P = torch.linalg.lu(B)[0]
            self.permutation = permutation_of(P).contiguous()
            B = P.mH @ B
        L = triangular_factor(B)
        _, inverse = _FUNCTIONS[self.diagonal]
        diagonal = L.diagonal(dim1=-2, dim2=-1).real
        smallest = torch.finfo(weight.dtype).eps * diagonal
        if weight.numel():
            smallest = smallest.amax(-1, keepdim=True)
        tiny = torch.finfo(weight.dtype).tiny
        diagonal = torch.maximum(diagonal, smallest.clamp_min(tiny))
        return lower_trapezoid(L, inverse(diagonal)).to(weight.dtype).contiguous()


class Gram(Parametrization):
    r"""The Gram matrix of the rows: semidefinite, of rank r at most.

    .. math::
        B \mapsto B B^H, \qquad
        \mathbb{R}^{n \times r} \to
        \{W : W = W^T,\ \lambda_{\min}(W) \ge 0,\ \mathrm{rank}\, W \le r\}

    Surjective, and the boundary of lower ranks is attained; not injective: B can be
    turned from the right. The right inverse is exact to rounding; it takes the B whose
    columns are orthogonal, the longest first. A column of zeros would have the gradient
    zero for ever, so where W lacks rank it has the length that rounding allows instead,
    and training can leave. For exactly rank r take `Cholesky` with a rank. Costs one
    product, the gradient one more.

    Args:
        rank: r; by default n.

    Shape:
        ``(*batch, n, r) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Gram(1)(torch.tensor([[1.0], [2.0]]))
        tensor([[1., 2.],
                [2., 4.]])

    References:
        Burer and Monteiro, A Nonlinear Programming Algorithm for Solving Semidefinite
        Programs via Low-rank Factorization, 2003,
        https://doi.org/10.1007/s10107-002-0352-8
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, rank: int | None = None) -> None:
        super().__init__()
        self.rank = rank

    @property
    def codomain(self) -> PositiveSemidefinite:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The semidefinite matrices of at most this rank."""
        return PositiveSemidefinite(self.rank)

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square, and not smaller than the rank."""
        checked_rank(weight, self.rank)

    @full_precision
    def forward(self, B: Tensor) -> Tensor:
        """Return the Gram matrix."""
        return gram(B)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the orthogonal columns of the nearest such matrix."""
        _, rank = checked_rank(weight, self.rank)
        floor = torch.finfo(weight.dtype).eps
        B = semidefinite_factor(double(weight), rank, floor)
        return B.to(weight.dtype).contiguous()


def checked_rank(weight: Tensor, rank: int | None) -> tuple[int, int]:
    """Return the size and the rank, for a square matrix that can have it."""
    require_square(weight)
    n = weight.shape[-1]
    if rank is not None and not 1 <= rank <= n:
        raise InvalidTensorError(
            f"Expected a rank from 1 to {n} for a matrix of shape "
            f"{tuple(weight.shape)}. Got {rank}."
        )
    return n, n if rank is None else rank
