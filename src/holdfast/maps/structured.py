"""Linear structure read from a triangle of the original."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.structure import require_square, skew, symmetric
from ..sets.linear import (
    SkewMatrices,
    SquareMatrices,
    SymmetricMatrices,
    TriangularMatrices,
)


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
