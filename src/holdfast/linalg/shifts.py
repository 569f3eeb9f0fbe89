r"""Matrices that are constant along their diagonals: Toeplitz and circulant ones.

Note [Skewed rows]
    An n x k matrix whose rows are padded to n + k entries and then read as rows of
    n + k - 1 has every row shifted by one against the one above: what stood on a
    diagonal (of the matrix with its columns reversed) stands in a column. So sums
    along diagonals are sums over rows, and no index is needed; the other way round, the
    same vector in all rows becomes a matrix that is constant along its diagonals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .structure import require_matrix, require_square


def toeplitz(t: Tensor, columns: int) -> Tensor:
    r"""Return the matrix with :math:`w_{ij} = t_{i - j + k - 1}` and k columns.

    The entries of ``t`` are the first row, from its end to its start, and after it the
    rest of the first column. See Note [Skewed rows].

    Shape: ``(*batch, n + k - 1) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> toeplitz(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2)
        tensor([[2., 1.],
                [3., 2.],
                [4., 3.]])
    """
    length = t.shape[-1]
    n = length + 1 - columns
    same = t.unsqueeze(-2).expand(*t.shape[:-1], n, length)
    rows = pad(same.flatten(-2), (0, n)).unflatten(-1, (n, length + 1))
    return rows.split([columns, n], -1)[0].flip(-1)


def diagonal_sums(W: Tensor) -> Tensor:
    """Return the sums along the diagonals, from the last column's to the first's.

    It is the adjoint of `toeplitz`. See Note [Skewed rows].

    Shape: ``(*batch, n, k) -> (*batch, n + k - 1)``.

    Example:
        >>> import torch
        >>> diagonal_sums(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([2., 5., 3.])
    """
    require_matrix(W)
    n, k = W.shape[-2:]
    rows = pad(W.flip(-1), (0, n)).flatten(-2)
    return rows[..., : n * (n + k - 1)].unflatten(-1, (n, n + k - 1)).sum(-2)


def circulant(c: Tensor) -> Tensor:
    r"""Return the matrix with :math:`w_{ij} = c_{(i - j) \bmod n}`.

    Shape: ``(*batch, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> circulant(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[1., 3., 2.],
                [2., 1., 3.],
                [3., 2., 1.]])
    """
    n = c.shape[-1]
    return toeplitz(torch.cat([c.split([1, n - 1], -1)[1], c], -1), n)


def diagonal_means(W: Tensor) -> Tensor:
    """Return the means along the diagonals: what the nearest Toeplitz matrix is of.

    Example:
        >>> import torch
        >>> diagonal_means(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([2.0000, 2.5000, 3.0000])
    """
    n, k = W.shape[-2:]
    place = torch.arange(1, n + k, device=W.device)
    length = torch.minimum(place, place.flip(0)).clamp(1, max(1, min(n, k)))
    return diagonal_sums(W) / length


def wrapped_means(W: Tensor) -> Tensor:
    """Return the means along diagonals that go on at the other side of the matrix.

    Example:
        >>> import torch
        >>> wrapped_means(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([2.5000, 2.5000])
    """
    require_square(W)
    n = W.shape[-1]
    before, after = diagonal_sums(W).split([n - 1, n], -1)
    return (after + pad(before, (1, 0))) / n
