"""Orthonormal columns or rows by the polar factor."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.polar_factor import polar
from ..linalg.precision import full_precision
from ..linalg.structure import require_matrix, tall, turned_like
from ..sets.orthogonal import Stiefel


class Polar(Parametrization):
    r"""The nearest matrix with orthonormal columns, or rows where it is wide.

    .. math::
        X \mapsto X\, (X^H X)^{-1/2}, \qquad
        \mathbb{R}^{n \times k} \to \mathrm{St}(n, k)

    Wide matrices are transposed, complex ones become unitary. The right inverse is the
    weight itself, exact; of any other matrix the value is the nearest one.

    It reaches every such matrix, of both determinants, without base or signs, and
    treats all directions alike. But it is discontinuous where X loses rank, and its
    slope is as large as the inverse of the smallest singular value: training can jump
    there. Scaling X changes nothing, so that weight decay makes steps longer. On CPU it
    costs a singular value decomposition and some products for the gradient, on CUDA
    43 products (52 in double precision), for condition numbers up to 1e5 (1e6): beyond,
    columns end too short. `ThinOrthogonal` is cheaper.

    Shape:
        ``(*batch, n, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.Polar()(torch.tensor([[0.0, -2.0], [3.0, 0.0]]))
        tensor([[ 0., -1.],
                [ 1.,  0.]])

    References:
        Higham, Functions of Matrices, 2008, chapter 8,
        https://doi.org/10.1137/1.9780898717778
    """

    codomain = Stiefel()
    deterministic = True
    outside = "project"

    def __init__(self) -> None:
        super().__init__()

    def bind(self, weight: Tensor) -> None:
        """Check that it is a matrix."""
        require_matrix(weight)

    @full_precision
    def forward(self, X: Tensor) -> Tensor:
        """Return the polar factor of ``X``."""
        return turned_like(polar(tall(X)), X)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight."""
        require_matrix(weight)
        return weight
