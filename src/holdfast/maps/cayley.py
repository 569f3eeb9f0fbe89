"""The Cayley transform, of square and of tall matrices."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.cayley import cayley_inverse, cayley_transform
from ..linalg.orthonormal import polish, positive_qr
from ..linalg.precision import double, full_precision
from ..linalg.structure import (
    positive_signs,
    require_matrix,
    require_square,
    tall,
    turned_like,
)
from ..linalg.thin import thin_cayley_lower
from ..linalg.thin_coordinates import thin_cayley_lower_inverse
from ..sets.linear import SkewMatrices
from ..sets.orthogonal import Stiefel


class Cayley(Parametrization):
    r"""The Cayley transform of a skew matrix, times fixed signs.

    .. math::
        A \mapsto (I - A/2)^{-1} (I + A/2)\, D, \qquad
        \mathfrak{so}(n) \to O(n), \quad D = \mathrm{diag}(\pm 1)

    Unitary for skew-Hermitian A. The right inverse is exact on all of O(n): assigning
    chooses the buffer ``signs`` such that the value is reached, whatever its
    determinant and eigenvalues; training then stays in its component. Costs about
    two products of size n, and two for the gradient. `MatrixExp` takes the same inputs
    and reaches each rotation with finite coordinates, at twice the cost or more.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(3, 3)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Skew())
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Cayley())
        >>> layer.weight = -torch.eye(3)
        >>> torch.dist(layer.weight, -torch.eye(3)).item()
        0.0

    References:
        Helfrich, Willmott and Ye, Orthogonal Recurrent Neural Networks with Scaled
        Cayley Transform, 2018, https://arxiv.org/abs/1707.09520
    """

    signs: Tensor | None
    domain = SkewMatrices()
    codomain = Stiefel()
    deterministic = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None)

    def bind(self, weight: Tensor) -> None:
        """Start with all signs +1."""
        require_square(weight)
        self.signs = positive_signs(weight)

    @full_precision
    def forward(self, A: Tensor) -> Tensor:
        """Return the orthogonal matrix with the coordinates ``A``."""
        Q = cayley_transform(A)
        return Q if self.signs is None else Q * self.signs.unsqueeze(-2)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates, and set the signs."""
        require_square(weight)
        self.codomain.require(weight)
        A, self.signs = cayley_inverse(polish(double(weight)), self.signs)
        return A.to(weight.dtype)


class ThinCayley(Parametrization):
    r"""Orthonormal columns by the Cayley transform, times fixed signs.

    .. math::
        X \mapsto \left(I - \tfrac12 A\right)^{-1} \left(I + \tfrac12 A\right) E\, D,
        \quad A = \begin{pmatrix} L - L^H & -K^H \\ K & 0 \end{pmatrix}, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{St}(n, k)

    with L the lower triangle of the first k rows of X, K the other rows, E the first k
    columns of the identity, and :math:`D = \mathrm{diag}(\pm 1)`. What X has above its
    diagonal is not used. Wide matrices are transposed, complex ones become unitary.

    No n x n matrix is made: the value costs about 4nk² operations and an inverse of
    size k, the gradient 6nk². For square ones the transform of `Orthogonal` is as fast.

    The right inverse is exact on all matrices with orthonormal columns: assigning
    chooses the buffer ``signs`` such that the value is reached. Any other matrix is
    made orthonormal by QR first.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, thin = torch.nn.Linear(3, 5), maps.ThinCayley()
        >>> layer = holdfast.register_parametrization(layer, "weight", thin)
        >>> layer.weight = -torch.eye(5, 3)
        >>> torch.dist(layer.weight, -torch.eye(5, 3)).item()
        0.0

    References:
        Wen and Yin, A Feasible Method for Optimization with Orthogonality Constraints,
        2013, https://doi.org/10.1007/s10107-012-0584-1
    """

    signs: Tensor | None
    codomain = Stiefel()
    deterministic = True
    outside = "project"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None)

    def bind(self, weight: Tensor) -> None:
        """Start with all signs +1."""
        require_matrix(weight)
        self.signs = positive_signs(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the matrix with the coordinates ``X``."""
        Q = thin_cayley_lower(tall(X))
        return turned_like(Q if self.signs is None else Q * self.signs.unsqueeze(-2), X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the coordinates, and set the signs."""
        require_matrix(weight)
        W = double(tall(weight))
        inside = self.codomain.contains(weight)
        W = polish(W) if inside else positive_qr(W)
        X, self.signs = thin_cayley_lower_inverse(W)
        return turned_like(X, weight).to(weight.dtype).contiguous()
