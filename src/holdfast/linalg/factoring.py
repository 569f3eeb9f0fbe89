"""Products of several matrices, and matrices as such products."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .orthonormal import positive_qr
from .precision import full_precision
from .structure import require_matrix

Sizes = int | tuple[int, ...] | None


def factor_shapes(
    shape: tuple[int, ...], count: int, sizes: Sizes
) -> list[tuple[int, ...]]:
    """Return the shapes of the factors of a product.

    Args:
        shape: that of the product, ``(*batch, n, k)``.
        count: the number of factors.
        sizes: the sizes between them, one number for all; ``None`` is min(n, k).

    Example:
        >>> factor_shapes((5, 3), 3, 2)
        [(5, 2), (2, 2), (2, 3)]
    """
    require_matrix(torch.empty(shape, device="meta"))
    *batch, n, k = shape
    sizes = min(n, k) if sizes is None else sizes
    inner = (sizes,) * (count - 1) if isinstance(sizes, int) else sizes
    if len(inner) != count - 1 or min((1, *inner)) < 1:
        raise InvalidTensorError(
            f"Expected {count - 1} positive sizes between {count} factors. Got {sizes}."
        )
    sides = [n, *inner, k]
    return [(*batch, *sides[i : i + 2]) for i in range(count)]


@full_precision
def product_of(*factors: Tensor) -> Tensor:
    """Return the product of matrices.

    Example:
        >>> import torch
        >>> product_of(torch.ones(2, 1), torch.full((1, 1), 3.0), torch.ones(1, 2))
        tensor([[3., 3.],
                [3., 3.]])
    """
    return reduce(torch.matmul, factors)


def spectral_split(W: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    r"""Return factors :math:`U S^{1/m}, S^{1/m}, \ldots, S^{1/m} V^H` of a matrix.

    Their product is W, or the nearest matrix of the rank that the shapes allow. A
    singular value of zero leaves its column of U in the first factor, so that training
    can leave zero.

    Example:
        >>> import torch
        >>> A, B = spectral_split(torch.full((2, 2), 2.0), [(2, 1), (1, 2)])
        >>> torch.allclose(A @ B, torch.full((2, 2), 2.0))
        True
    """
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    roots = S ** (1 / len(shapes))
    first = U * torch.where(S > 0, roots, 1).unsqueeze(-2)
    last = roots.unsqueeze(-1) * Vh
    middle = torch.diag_embed(roots.to(W.dtype))
    parts = [first, *(middle for _ in shapes[2:]), last]
    return [_cut(part, shape) for part, shape in zip(parts, shapes, strict=True)]


@full_precision
def orthonormal_factors(W: Tensor) -> list[Tensor]:
    r"""Return matrices Q with orthonormal columns that leave little of :math:`Q^H W`.

    That product is positive semi-definite for the first (the polar decomposition),
    upper triangular for the second, lower triangular for the third; and diagonal for
    the last, where Q is orthonormal only if the columns of W are orthogonal.

    Args:
        W: matrices with at least as many rows as columns.

    Example:
        >>> import torch
        >>> W = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
        >>> for Q in orthonormal_factors(W):
        ...     assert torch.allclose(Q.mT @ W, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    """
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    norms = torch.linalg.vector_norm(W, dim=-2, keepdim=True)
    return [
        U @ Vh,
        positive_qr(W),
        positive_qr(W.flip(-1)).flip(-1),
        W / torch.where(norms > 0, norms, 1),
    ]


def _cut(X: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a matrix of a shape, with zeros where X has no entries."""
    n, k = min(shape[-2], X.shape[-2]), min(shape[-1], X.shape[-1])
    cut = X.new_zeros(shape)
    cut[..., :n, :k] = X[..., :n, :k]
    return cut


def middle_factor(W: Tensor, left: list[Tensor], right: list[Tensor]) -> Tensor:
    r"""Return the X for which :math:`L X R` is nearest to W, for two products.

    Example:
        >>> import torch
        >>> middle_factor(torch.full((1, 1), 6.0), [torch.full((1, 1), 2.0)], [])
        tensor([[3.]])
    """
    X = torch.linalg.pinv(reduce(torch.matmul, left)) @ W if left else W
    return X @ torch.linalg.pinv(reduce(torch.matmul, right)) if right else X
