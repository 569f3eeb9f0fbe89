"""The Cayley transform of skew matrices."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.cayley import cayley_inverse, cayley_transform
from ..linalg.orthonormal import polish
from ..linalg.precision import double, full_precision
from ..linalg.structure import positive_signs, require_square
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
    foreach = "stack"
    decays = False

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
