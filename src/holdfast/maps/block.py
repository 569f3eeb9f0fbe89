"""Block-diagonal matrices and Kronecker products."""

from __future__ import annotations

from torch import Tensor

from ..core.parametrization import Parametrization
from ..linalg.blocks import block_diagonal, diagonal_blocks, kronecker
from ..linalg.blocks import nearest_kronecker as nearest
from ..linalg.precision import double, full_precision
from ..sets.kronecker import KroneckerProducts
from ..sets.pattern import BlockDiagonalMatrices


class BlockDiagonal(Parametrization):
    r"""Put a batch of equal blocks on the diagonal.

    .. math::
        (B_1, \ldots, B_b) \mapsto \mathrm{diag}(B_1, \ldots, B_b), \qquad
        \mathbb{R}^{b \times n/b \times k/b} \to \mathbb{R}^{n \times k}

    A bijection onto the block-diagonal matrices; the right inverse is the blocks. A map
    registered before it works on each block as a matrix of its own. Costs one pass over
    the matrix. Blocks of different sizes are the business of `Mask`.

    Args:
        blocks: b, which divides n and k.

    Shape:
        ``(*batch, b, n/b, k/b) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> maps.BlockDiagonal(2)(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
        tensor([[1., 2., 0., 0.],
                [0., 0., 3., 4.]])
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    @property
    def codomain(self) -> BlockDiagonalMatrices:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices with so many blocks."""
        return BlockDiagonalMatrices(self.blocks)

    def bind(self, weight: Tensor) -> None:
        """Check that the matrix can be cut into the blocks."""
        diagonal_blocks(weight, self.blocks)

    def forward(self, B: Tensor) -> Tensor:
        """Return the matrix with the blocks ``B``."""
        return block_diagonal(B)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the blocks."""
        return diagonal_blocks(weight, self.blocks).contiguous()


class Kronecker(Parametrization):
    r"""The Kronecker product of two originals.

    .. math::
        (A, B) \mapsto A \otimes B, \qquad
        \mathbb{R}^{p \times q} \times \mathbb{R}^{n/p \times k/q}
        \to \mathbb{R}^{n \times k}

    Surjective onto the products; not injective, since a factor can go from A to B. The
    right inverse gives both the same norm. It is exact on products, and finds the
    nearest one elsewhere: the rank-1 matrix nearest to the rearranged blocks. For W = 0
    it leaves A different from zero, so that training can leave zero. Costs one pass
    over the matrix, the gradient two.

    Args:
        left: p and q, the size of A; p divides n, and q divides k.

    Shape:
        ``(*batch, p, q), (*batch, n/p, k/q) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]])
        >>> maps.Kronecker((1, 2))(A, B)
        tensor([[1., 2.],
                [3., 6.]])

    References:
        Van Loan and Pitsianis, Approximation with Kronecker Products, 1993,
        https://doi.org/10.1007/978-94-015-8196-7_17
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, left: tuple[int, int]) -> None:
        super().__init__()
        self.left = left

    @property
    def codomain(self) -> KroneckerProducts:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The products with a left factor of this size."""
        return KroneckerProducts(self.left)

    @full_precision
    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        """Return the product."""
        return kronecker(A, B)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the nearest product."""
        A, B = nearest(double(weight), *self.left)
        return A.to(weight.dtype).contiguous(), B.to(weight.dtype).contiguous()
