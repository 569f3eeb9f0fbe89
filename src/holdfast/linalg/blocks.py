"""Block-diagonal matrices with equal blocks, and Kronecker products."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .structure import require_matrix


def block_diagonal(blocks: Tensor) -> Tensor:
    """Return the matrix with the given blocks on its diagonal.

    Shape: ``(*batch, b, p, q) -> (*batch, b * p, b * q)``.

    Example:
        >>> import torch
        >>> block_diagonal(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
        tensor([[1., 2., 0., 0.],
                [0., 0., 3., 4.]])
    """
    b = blocks.shape[-3]
    identity = torch.eye(b, dtype=blocks.dtype, device=blocks.device)
    apart = blocks.unsqueeze(-2) * identity[:, None, :, None]  # (*batch, b, p, b, q)
    return apart.flatten(-2).flatten(-3, -2)


def diagonal_blocks(W: Tensor, count: int) -> Tensor:
    """Return the blocks on the diagonal of a matrix that is cut into equal ones.

    Shape: ``(*batch, b * p, b * q) -> (*batch, b, p, q)``.

    Raises:
        InvalidTensorError: the matrix cannot be cut into as many equal blocks.

    Example:
        >>> import torch
        >>> diagonal_blocks(torch.arange(8.0).reshape(2, 4), 2)
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[6., 7.]]])
    """
    n, k = _divided(W, count, count)
    cut = W.unflatten(-1, (count, k)).unflatten(-3, (count, n))
    return cut.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def kronecker(A: Tensor, B: Tensor) -> Tensor:
    """Return the Kronecker product of two matrices, or of two batches of them.

    Shape: ``(*batch, n, k), (*batch, p, q) -> (*batch, n * p, k * q)``.

    Example:
        >>> import torch
        >>> kronecker(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]]))
        tensor([[1., 2.],
                [3., 6.]])
    """
    product = A[..., :, None, :, None] * B[..., None, :, None, :]
    return product.flatten(-2).flatten(-3, -2)


def nearest_kronecker(W: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    r"""Return the A and B of equal norm for which :math:`A \otimes B` is nearest to W.

    With the entries of a block as a row, a Kronecker product is a matrix of rank 1, and
    the nearest one is found by singular value decomposition. For W = 0 only B is zero,
    so that a gradient can lead away from it.

    Args:
        W: the matrix, or a batch.
        rows: the number of rows of A, which divides that of W.
        columns: the number of columns of A.

    Example:
        >>> import torch
        >>> A, B = nearest_kronecker(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), 1, 2)
        >>> kronecker(A, B)
        tensor([[1.0000, 2.0000],
                [3.0000, 6.0000]])

    References:
        Van Loan and Pitsianis, Approximation with Kronecker Products, 1993,
        https://doi.org/10.1007/978-94-015-8196-7_17
    """
    n, k = _divided(W, rows, columns)
    flat = blocks_as_rows(W, rows, columns)
    U, values, Vh = torch.linalg.svd(flat, full_matrices=False)
    size = values[..., :1]
    root = torch.where(size > 0, size.sqrt(), 1)
    A = (U[..., 0] * root).unflatten(-1, (rows, columns))
    return A, (Vh[..., 0, :] * (size / root)).unflatten(-1, (n, k))


def blocks_as_rows(W: Tensor, rows: int, columns: int) -> Tensor:
    """Return the entries of each block as a row; of a Kronecker product, of rank 1.

    Shape: ``(*batch, n, k) -> (*batch, rows * columns, n * k / (rows * columns))``.

    Example:
        >>> import torch
        >>> blocks_as_rows(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 1, 2)
        tensor([[1., 2.],
                [3., 4.]])
    """
    n, k = _divided(W, rows, columns)
    cut = W.unflatten(-1, (columns, k)).unflatten(-3, (rows, n)).transpose(-3, -2)
    return cut.flatten(-2).flatten(-3, -2)


def _divided(W: Tensor, rows: int, columns: int) -> tuple[int, int]:
    """Return the sizes of the blocks of a matrix that is cut into equal ones."""
    require_matrix(W)
    n, k = W.shape[-2:]
    if rows < 1 or columns < 1 or n % rows or k % columns:
        raise InvalidTensorError(
            f"Expected a matrix that can be cut into {rows} x {columns} equal blocks. "
            f"Got shape {tuple(W.shape)}."
        )
    return n // rows, k // columns
