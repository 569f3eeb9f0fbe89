"""Matrices that are constant along their diagonals, from one vector."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.precision import double
from ..linalg.shifts import circulant, diagonal_means, toeplitz, wrapped_means
from ..linalg.structure import require_matrix, require_square
from ..sets.shift import CirculantMatrices, ToeplitzMatrices


class Toeplitz(Parametrization):
    r"""One value for each diagonal of a square, tall or wide matrix.

    .. math::
        t \mapsto [t_{i - j + k - 1}]_{ij}, \qquad
        \mathbb{R}^{n + k - 1} \to \{W : w_{ij} = t_{i - j}\}

    A bijection; the right inverse takes the mean of each diagonal, which is exact on
    Toeplitz matrices and the nearest one elsewhere. Costs one pass over the matrix.

    Shape:
        ``(*batch, n + k - 1) -> (*batch, n, k)``: the first row from its end to its
        start, then the rest of the first column.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Toeplitz())
        >>> layer.weight = torch.tensor([[2.0, 1.0], [3.0, 2.0]])
        >>> layer.parametrizations.weight.original.detach()
        tensor([1., 2., 3.])
    """

    codomain = ToeplitzMatrices()
    deterministic = True
    foreach = "stack"
    columns: int = 0

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Note the number of columns, which the vector does not tell."""
        require_matrix(weight)
        self.columns = weight.shape[-1]

    def forward(self, t: Tensor) -> Tensor:
        """Return the matrix with the diagonals ``t``."""
        return toeplitz(t, self.columns)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the means of the diagonals."""
        self.bind(weight)
        return diagonal_means(double(weight)).to(weight.dtype)


class Circulant(Parametrization):
    r"""A square matrix of the turns of one vector: circular convolution with it.

    .. math::
        c \mapsto [c_{(i - j) \bmod n}]_{ij}, \qquad
        \mathbb{R}^{n} \to \{W : w_{ij} = c_{(i - j) \bmod n}\}

    A bijection; the right inverse takes the mean of each wrapped diagonal, which is
    exact on circulant matrices and the nearest one elsewhere. Costs one pass over the
    matrix.

    Shape:
        ``(*batch, n) -> (*batch, n, n)``: the first column.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Circulant()(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[1., 3., 2.],
                [2., 1., 3.],
                [3., 2., 1.]])
    """

    codomain = CirculantMatrices()
    deterministic = True
    foreach = "stack"

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix is square."""
        require_square(weight)

    def forward(self, c: Tensor) -> Tensor:
        """Return the matrix whose first column is ``c``."""
        return circulant(c)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the means of the wrapped diagonals."""
        return wrapped_means(double(weight)).to(weight.dtype)
