"""Linear structure: symmetric, skew, triangular, diagonal, banded, traceless."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.precision import full_precision
from ..linalg.structure import (
    rectangular_diagonal,
    require_matrix,
    require_square,
    skew,
    symmetric,
    traceless,
)
from ..sets.linear import (
    SkewMatrices,
    SquareMatrices,
    SymmetricMatrices,
    TracelessMatrices,
    TriangularMatrices,
)
from ..sets.pattern import BandedMatrices, DiagonalMatrices


class Symmetric(Parametrization):
    r"""Reflect the upper triangle: symmetric, or Hermitian where complex.

    .. math::
        X \mapsto \mathrm{triu}(X) + \mathrm{triu}_1(X)^H,
        \qquad \mathbb{R}^{n \times n} \to \mathrm{Sym}(n)

    The right inverse is exact: the upper triangle. Costs one pass over the matrix.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Symmetric())
        >>> layer.weight = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
        >>> layer.parametrizations.weight.original.detach()
        tensor([[1., 2.],
                [0., 3.]])
    """

    domain = SquareMatrices()
    codomain = SymmetricMatrices()
    deterministic = True
    foreach = "stack"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, X: Tensor) -> Tensor:
        """Return the symmetric matrix with the upper triangle of ``X``."""
        return symmetric(X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the upper triangle."""
        require_square(weight)
        return weight.triu()


class Skew(Parametrization):
    r"""Reflect the upper triangle with a minus: skew, or skew-Hermitian where complex.

    .. math::
        X \mapsto \mathrm{triu}_1(X) - \mathrm{triu}_1(X)^H
        + i\,\mathrm{Im}\,\mathrm{diag}(X),
        \qquad \mathbb{R}^{n \times n} \to \mathfrak{so}(n)

    The right inverse is exact: the upper triangle. Costs one pass over the matrix.
    `Cayley` or `MatrixExp` after it makes orthogonal matrices.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Skew())
        >>> layer.weight = torch.tensor([[0.0, 2.0], [-2.0, 0.0]])
        >>> layer.weight.detach()
        tensor([[ 0.,  2.],
                [-2.,  0.]])
    """

    domain = SquareMatrices()
    codomain = SkewMatrices()
    deterministic = True
    foreach = "stack"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, X: Tensor) -> Tensor:
        """Return the skew matrix with the upper triangle of ``X``."""
        return skew(X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the upper triangle; its diagonal counts where it is imaginary."""
        require_square(weight)
        return weight.triu(0 if weight.is_complex() else 1)


class Triangular(Parametrization):
    r"""Keep one triangle, lower or upper, of a square, tall or wide matrix.

    .. math::
        X \mapsto \mathrm{tril}(X), \qquad
        \mathbb{R}^{n \times k} \to \{W : w_{ij} = 0 \text{ for } i < j\}

    The right inverse is exact: the matrix itself. Costs one pass over the matrix.

    Args:
        upper: keep the upper triangle.
        strict: leave the diagonal out.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Triangular(upper=True)(torch.ones(2, 3))
        tensor([[1., 1., 1.],
                [0., 1., 1.]])
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, *, upper: bool = False, strict: bool = False) -> None:
        super().__init__()
        self.upper = upper
        self.strict = strict

    @property
    def codomain(self) -> TriangularMatrices:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The triangular matrices of this kind."""
        return TriangularMatrices(upper=self.upper, strict=self.strict)

    def forward(self, X: Tensor) -> Tensor:
        """Return the triangle of ``X``."""
        return self.codomain.project(X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the triangle of ``weight``."""
        return self.codomain.project(weight)


class Diagonal(Parametrization):
    r"""Put a vector on the diagonal of a square, tall or wide matrix.

    .. math::
        d \mapsto \mathrm{diag}(d), \qquad
        \mathbb{R}^{\min(n, k)} \to \{W : w_{ij} = 0 \text{ for } i \ne j\}

    A bijection; the right inverse is the diagonal. Costs one pass over the matrix.

    Shape:
        ``(*batch, min(n, k)) -> (*batch, n, k)``, for the n and k of the weight that it
        is registered on.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Diagonal())
        >>> layer.weight = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> layer.parametrizations.weight.original.detach()
        tensor([2., 3.])
    """

    codomain = DiagonalMatrices()
    deterministic = True
    foreach = "stack"
    size: tuple[int, int] = (0, 0)

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Note the size of the matrix, which the vector does not tell."""
        require_matrix(weight)
        self.size = (weight.shape[-2], weight.shape[-1])

    def forward(self, d: Tensor) -> Tensor:
        """Return the matrix with the diagonal ``d``."""
        return rectangular_diagonal(d, *self.size)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the diagonal."""
        self.bind(weight)
        return weight.diagonal(dim1=-2, dim2=-1).clone()


class Banded(Parametrization):
    r"""Keep a band along the diagonal of a square, tall or wide matrix.

    .. math::
        X \mapsto [x_{ij}]_{-u \le i - j \le l}, \qquad
        \mathbb{R}^{n \times k} \to \{W : w_{ij} = 0 \text{ off the band}\}

    Surjective; the right inverse is exact: the matrix itself. Costs two passes over the
    matrix. What X has off the band is not used.

    Args:
        lower: l, the number of diagonals to keep below the main one.
        upper: u, the number of diagonals to keep above it.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Banded(1, upper=0)(torch.ones(3, 3))
        tensor([[1., 0., 0.],
                [1., 1., 0.],
                [0., 1., 1.]])
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, lower: int = 1, *, upper: int = 1) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper

    @property
    def codomain(self) -> BandedMatrices:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with this band."""
        return BandedMatrices(self.lower, upper=self.upper)

    def forward(self, X: Tensor) -> Tensor:
        """Return the band of ``X``."""
        return self.codomain.project(X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the band of ``weight``."""
        return self.codomain.project(weight)


class Traceless(Parametrization):
    r"""Subtract the mean of the diagonal, which leaves trace zero.

    .. math::
        X \mapsto X - \frac{\mathrm{tr}\, X}{n} I, \qquad
        \mathbb{R}^{n \times n} \to \{W : \mathrm{tr}\, W = 0\}

    The orthogonal projection, and so surjective; the right inverse is exact: the matrix
    itself. Costs one pass over the matrix.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Traceless()(torch.tensor([[3.0, 5.0], [0.0, 1.0]]))
        tensor([[ 1.,  5.],
                [ 0., -1.]])
    """

    domain = SquareMatrices()
    codomain = TracelessMatrices()
    deterministic = True
    foreach = "stack"

    def __init__(self) -> None:
        super().__init__()

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return ``X`` less the mean of its diagonal."""
        return traceless(X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the matrix itself, its trace removed."""
        return self.codomain.project(weight)
