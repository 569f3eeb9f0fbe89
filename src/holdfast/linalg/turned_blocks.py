"""Orthogonal blocks next to a matrix: from packed coordinates, and to a target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InvalidTensorError
from .certificates import worth_asking
from .structure import require_matrix

# They square what is missing, which for a turn that is rounded is 1e-4 at worst.
_STEPS = 2


def lower_triangle_size(n: int, *, strict: bool) -> int:
    """Return the number of entries of a lower triangle.

    Example:
        >>> lower_triangle_size(3, strict=True), lower_triangle_size(3, strict=False)
        (3, 6)
    """
    return n * (n - 1) // 2 if strict else n * (n + 1) // 2


def unpacked_lower(x: Tensor, n: int, *, strict: bool) -> Tensor:
    """Return the lower triangular matrix with the given entries, row by row.

    Shape: ``(*batch, m) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> unpacked_lower(torch.tensor([1.0, 2.0, 3.0]), 2, strict=False)
        tensor([[1., 0.],
                [2., 3.]])
    """
    size = lower_triangle_size(n, strict=strict)
    rows, columns = torch.tril_indices(n, n, -int(strict), device=x.device)
    # every other place takes the zero that is appended
    places = torch.full((n * n,), size, device=x.device)
    places[rows * n + columns] = torch.arange(size, device=x.device)
    return pad(x, (0, 1)).index_select(-1, places).unflatten(-1, (n, n))


def packed_lower(X: Tensor, *, strict: bool) -> Tensor:
    """Return the entries of a lower triangle, row by row.

    Shape: ``(*batch, n, n) -> (*batch, m)``.

    Example:
        >>> import torch
        >>> packed_lower(torch.tensor([[1.0, 0.0], [2.0, 3.0]]), strict=False)
        tensor([1., 2., 3.])
    """
    n = X.shape[-1]
    rows, columns = torch.tril_indices(n, n, -int(strict), device=X.device)
    return X[..., rows, columns]


def column_blocks(W: Tensor, size: int) -> Tensor:
    """Return a matrix cut into blocks of so many columns.

    Shape: ``(*batch, n, g * b) -> (*batch, g, n, b)``.

    Raises:
        InvalidTensorError: the matrix cannot be cut so.

    Example:
        >>> import torch
        >>> column_blocks(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 2)
        tensor([[[1., 2.]],
        <BLANKLINE>
                [[3., 4.]]])
    """
    require_matrix(W)
    if size < 1 or W.shape[-1] % size:
        raise InvalidTensorError(
            f"Expected a multiple of the block size {size} along the side that is "
            f"turned. Got shape {tuple(W.shape)}."
        )
    return W.unflatten(-1, (-1 if W.numel() else W.shape[-1] // size, size)).transpose(
        -3, -2
    )


def turn_columns(W: Tensor, R: Tensor) -> Tensor:
    """Return the matrix with each block of columns times its own square matrix.

    Shape: ``(*batch, n, g * b), (*batch, g, b, b) -> (*batch, n, g * b)``.

    Example:
        >>> import torch
        >>> R = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> turn_columns(torch.tensor([[1.0, 2.0]]), R)
        tensor([[2., 1.]])
    """
    turned = column_blocks(W, R.shape[-1]) @ R
    return turned.transpose(-3, -2).flatten(-2)


def nearest_turn(W: Tensor, base: Tensor, size: int) -> Tensor:
    r"""Return the orthogonal blocks R for which ``turn_columns(base, R)`` is nearest.

    Each is the polar factor of :math:`B_i^H W_i`, or, where that is nearer, of
    :math:`Q_i^H W_i` with the polar factor Q_i of :math:`B_i`. For a W that can be
    reached, :math:`W_i = B_i R_i`, both are :math:`R_i` but for rounding, which the
    former loses half of the digits to if :math:`B_i` is ill-conditioned.

    Shape: ``(*batch, n, g * b), (*batch, n, g * b) -> (*batch, g, b, b)``.

    Example:
        >>> import torch
        >>> nearest_turn(torch.tensor([[0.0, 3.0]]), torch.tensor([[3.0, 0.0]]), 1)
        tensor([[[1.]],
        <BLANKLINE>
                [[1.]]])

    References:
        Schönemann, A Generalized Solution of the Orthogonal Procrustes Problem, 1966,
        https://doi.org/10.1007/BF02289451
    """
    B, T = column_blocks(base, size), column_blocks(W, size)
    R, exact = _polar(B.mH @ T), _polar(_polar(B).mH @ T)
    off, less = (torch.linalg.matrix_norm(B @ X - T) for X in (R, exact))
    return torch.where((less < off)[..., None, None], exact, R)


def off_a_turn(W: Tensor, base: Tensor, size: int) -> Tensor | None:
    r"""Return how far W is from the base turned in a way that is found by products.

    By least squares, :math:`R = (B^H B)^{-1} B^H W`, which is orthogonal to rounding
    where W is such a turn, and steps of Newton's, :math:`R (3I - R^H R)/2`, to all
    digits. What is still missing is added; so the result is at least the distance from
    the nearest turn. Costs a tenth of the decompositions for that one; ``None`` if
    there are fewer rows than columns in a block.

    Shape: ``(*batch, n, g * b), (*batch, n, g * b) -> (*batch)``.

    Example:
        >>> import torch
        >>> turned = torch.tensor([[0.0, -3.0], [3.0, 0.0]])
        >>> off_a_turn(turned, 3 * torch.eye(2), 2)
        tensor(0.)
    """
    B, T = column_blocks(base, size), column_blocks(W, size)
    if size > W.shape[-2] or not worth_asking(W):
        return None
    adjoint = B.mH.contiguous()
    R = torch.linalg.solve_ex(adjoint @ B, adjoint @ T)[0]
    identity = torch.eye(size, dtype=W.dtype, device=W.device)
    for _ in range(_STEPS):
        R = R @ (1.5 * identity - R.mH @ R / 2)
    norms = (torch.linalg.matrix_norm(X) for X in (T - B @ R, B, R.mH @ R - identity))
    off, length, missing = norms
    return torch.linalg.vector_norm(off + length * missing, dim=-1)


def _polar(X: Tensor) -> Tensor:
    """Return the orthogonal factor, which for a matrix of lower rank is one of many."""
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh
