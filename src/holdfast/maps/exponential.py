"""The matrix exponential: rotations from skew, definite from symmetric matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.parametrization import Parametrization
from ..core.sharing import home_of
from ..errors import NotInSetError, describe
from ..linalg.definite import symmetric_exponential, symmetric_logarithm
from ..linalg.exponential import matrix_exponential, skew_exponential
from ..linalg.logarithm import signed_logarithm
from ..linalg.orthonormal import polish
from ..linalg.precision import double, full_precision
from ..linalg.structure import positive_signs, require_square
from ..linalg.tracing import known_to_the_compiler
from ..sets.constraint import Constraint
from ..sets.definite import SymmetricPositiveDefinite
from ..sets.invertible import GeneralLinear
from ..sets.linear import SkewMatrices, SquareMatrices, SymmetricMatrices
from ..sets.orthogonal import Stiefel

_EXPONENTIALS = {
    "skew": skew_exponential,
    "symmetric": symmetric_exponential,
    "any": matrix_exponential,
}
_IMAGES: dict[str, Constraint] = {
    "skew": Stiefel(),
    "symmetric": SymmetricPositiveDefinite(),
    "any": GeneralLinear(),
}


class MatrixExp(Parametrization):
    r"""The matrix exponential, times fixed signs.

    .. math::
        A \mapsto \exp(A)\, D, \qquad
        \mathbb{R}^{n \times n} \to GL(n), \quad D = \mathrm{diag}(\pm 1)

    After `Skew` it makes orthogonal (or unitary) matrices, after `Symmetric` positive
    definite ones. The right inverse is exact on both: every definite matrix has a
    symmetric logarithm, and assigning an orthogonal one chooses the buffer ``signs``
    such that it is reached, whatever its determinant and eigenvalues; training then
    stays in its component. No other matrix can be assigned, and the codomain is that
    set, once the map is registered after the other. After `Skew` it costs four
    products of size n up to a norm of two and one more for each doubling, the gradient
    six and two more (fourteen and 26 where the host may not look at the norm, see
    `linalg.skew_exponential`); after `Symmetric`, one eigendecomposition; else, and if
    that is compiled, some ten products, and five times as much the gradient.

    Shape:
        ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.Symmetric())
        >>> layer = holdfast.register_parametrization(layer, "weight", maps.MatrixExp())
        >>> W = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> layer.weight = W
        >>> torch.allclose(layer.weight, W, atol=1e-6)
        True

    References:
        Lezcano-Casado and Martínez-Rubio, Cheap Orthogonal Constraints in Neural
        Networks, 2019, https://arxiv.org/abs/1901.08428
    """

    signs: Tensor | None
    domain = SquareMatrices()
    deterministic = True
    foreach = "stack"
    decays = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", None)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the map before this one leads to, if that is known; else GL(n)."""
        return _IMAGES[self._given()]

    def bind(self, weight: Tensor) -> None:
        """Start with all signs +1."""
        require_square(weight)
        self.signs = positive_signs(weight)

    @full_precision
    def forward(self, A: Tensor) -> Tensor:
        """Return the exponential."""
        W = _EXPONENTIALS[self._given()](A)
        return W if self.signs is None else W * self.signs.unsqueeze(-2)

    @known_to_the_compiler
    def _given(self) -> str:
        """Tell what the map before this one makes: the key of an exponential."""
        home = home_of(self)
        links = [] if home is None else [*home._modules.values()]
        before = links.index(self) - 1 if links else -1
        made = getattr(links[before], "codomain", None) if before >= 0 else None
        if isinstance(made, SkewMatrices):
            return "skew"
        if isinstance(made, SymmetricMatrices | SymmetricPositiveDefinite):
            return "symmetric"
        return "any"

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the skew or symmetric logarithm, and set the signs."""
        require_square(weight)
        W = double(weight)
        if Stiefel().contains(weight):
            A, self.signs = signed_logarithm(polish(W), self.signs)
        elif SymmetricPositiveDefinite().contains(weight):
            self.bind(weight)
            A = symmetric_logarithm(W, floor=torch.finfo(weight.dtype).eps)
        else:
            raise NotInSetError(
                "Expected an orthogonal or a symmetric positive definite matrix, which "
                f"have a logarithm that is skew or symmetric. Got {describe(weight)}. "
                "Project it first, with `sets.Stiefel().project` or "
                "`sets.SymmetricPositiveDefinite().project`."
            )
        return A.to(weight.dtype)
