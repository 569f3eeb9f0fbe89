"""Linear structure: the symmetric and skew matrices, from a triangle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InvalidTensorError
from .closed_form import Tensors, closed_form
from .tracing import traced

# Rows of a matrix that does not stay in the innermost cache.
_LARGE = 256


def require_square(X: Tensor) -> None:
    """Raise unless ``X`` is a square matrix or a batch of them.

    Example:
        >>> import torch
        >>> require_square(torch.zeros(2, 3))
        Traceback (most recent call last):
        ...
        holdfast.errors.InvalidTensorError: Expected a square matrix ... shape (2, 3).
    """
    if X.ndim < 2 or X.shape[-1] != X.shape[-2]:
        raise InvalidTensorError(
            f"Expected a square matrix or a batch of them. Got shape {tuple(X.shape)}."
        )


def require_matrix(X: Tensor) -> None:
    """Raise unless ``X`` is a matrix or a batch of them.

    Example:
        >>> import torch
        >>> require_matrix(torch.zeros(2))
        Traceback (most recent call last):
        ...
        holdfast.errors.InvalidTensorError: Expected a matrix ... of 1 dimensions.
    """
    if X.ndim < 2:
        raise InvalidTensorError(
            "Expected a matrix or batch of matrices. "
            f"Got a tensor of {X.ndim} dimensions."
        )


def tall(X: Tensor) -> Tensor:
    """Return ``X`` with at least as many rows as columns, transposed if need be.

    Example:
        >>> import torch
        >>> tall(torch.zeros(2, 3)).shape
        torch.Size([3, 2])
    """
    return X.mT if X.shape[-2] < X.shape[-1] else X


def turned_like(Q: Tensor, X: Tensor) -> Tensor:
    """Return a tall matrix in the orientation of ``X``.

    Example:
        >>> import torch
        >>> turned_like(torch.zeros(3, 2), torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    return Q.mT if X.shape[-2] < X.shape[-1] else Q


def _reflected(above: Tensor) -> Tensor:
    """Return the transpose; a copy is a quicker operand where the matrix is large."""
    return above.mT.contiguous() if above.shape[-1] >= _LARGE else above.mT


def symmetric(X: Tensor) -> Tensor:
    """Reflect the upper triangle: symmetric, or Hermitian where ``X`` is complex.

    Example:
        >>> import torch
        >>> symmetric(torch.tensor([[1.0, 2.0], [9.0, 3.0]]))
        tensor([[1., 2.],
                [2., 3.]])
    """
    require_square(X)
    if not X.is_complex():
        return X.triu() + _reflected(X.triu(1))
    above = X.triu(1)
    diagonal = X.diagonal(dim1=-2, dim2=-1).real
    return above + above.mH + torch.diag_embed(diagonal)


def rectangular_diagonal(d: Tensor, rows: int, columns: int) -> Tensor:
    """Return the matrix with the diagonal ``d``, tall or wide.

    Example:
        >>> import torch
        >>> rectangular_diagonal(torch.tensor([1.0, 2.0]), 2, 3)
        tensor([[1., 0., 0.],
                [0., 2., 0.]])
    """
    m = d.shape[-1]
    return pad(torch.diag_embed(d), (0, columns - m, 0, rows - m))


def skew(X: Tensor) -> Tensor:
    """Reflect the upper triangle with a minus: skew, or skew-Hermitian where complex.

    Example:
        >>> import torch
        >>> skew(torch.tensor([[1.0, 2.0], [9.0, 3.0]]))
        tensor([[ 0.,  2.],
                [-2.,  0.]])
    """
    require_square(X)
    above = X.triu(1)
    if not X.is_complex():
        return above - _reflected(above)
    diagonal = X.diagonal(dim1=-2, dim2=-1).imag
    return above - above.mH + torch.diag_embed(1j * diagonal)


def difference(X: Tensor) -> Tensor:
    """Return X - X^H; a transposed copy is quicker than a transposed operand.

    Example:
        >>> import torch
        >>> difference(torch.tensor([[1.0, 2.0], [5.0, 3.0]]))
        tensor([[ 0., -3.],
                [ 3.,  0.]])
    """
    return X - X.mH.contiguous()


def lower(X: Tensor, diagonal: int = 0) -> Tensor:
    """Return the lower triangle, over X itself where nothing is recorded: much quicker.

    Example:
        >>> import torch
        >>> lower(torch.ones(2, 2))
        tensor([[1., 0.],
                [1., 1.]])
    """
    return X.tril(diagonal) if _watched(X) else X.tril_(diagonal)


def difference_(X: Tensor) -> Tensor:
    """Return X - X^H, over X itself where nothing is recorded.

    Example:
        >>> import torch
        >>> difference_(torch.tensor([[1.0, 2.0], [5.0, 3.0]]))
        tensor([[ 0., -3.],
                [ 3.,  0.]])
    """
    return difference(X) if _watched(X) else X.sub_(X.mH.contiguous())


def _watched(X: Tensor) -> bool:
    return torch.is_grad_enabled() or traced(X)


def skew_of_lower(X: Tensor) -> Tensor:
    """Return what `lower_skew` does, without derivatives.

    Example:
        >>> import torch
        >>> skew_of_lower(torch.ones(2, 2))
        tensor([[ 0., -1.],
                [ 1.,  0.]])
    """
    return difference_(lower(X.clone(memory_format=torch.contiguous_format)))


class _LowerSkew:
    @staticmethod
    def forward(X: Tensor) -> tuple[Tensor]:
        return (skew_of_lower(X),)

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return ()

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        return (lower(difference(G)),)

    @staticmethod
    def jvp(kept: Any, dX: Tensor) -> Tensors:  # noqa: ANN401
        return (difference(dX.tril()),)


_lower_skew = closed_form(_LowerSkew)


def positive_signs(W: Tensor) -> Tensor:
    """Return signs +1 for the columns of a matrix, or the rows of a wide one.

    Shape: ``(*batch, n, k) -> (*batch, min(n, k))``, int8.

    Example:
        >>> import torch
        >>> positive_signs(torch.zeros(3, 2))
        tensor([1, 1], dtype=torch.int8)
    """
    shape = (*W.shape[:-2], min(W.shape[-2:]))
    return torch.ones(shape, dtype=torch.int8, device=W.device)


def lower_skew(X: Tensor) -> Tensor:
    r"""Return :math:`L - L^H` for the lower triangle L of ``X``, a skew matrix.

    Example:
        >>> import torch
        >>> lower_skew(torch.tensor([[1.0, 9.0], [2.0, 3.0]]))
        tensor([[ 0., -2.],
                [ 2.,  0.]])
    """
    require_square(X)
    return _lower_skew(X)


def traceless(X: Tensor) -> Tensor:
    r"""Return ``X`` less the mean of its diagonal, so that the trace is zero.

    Then ``lower_skew`` of it has none either, and an exponential of determinant 1.

    Example:
        >>> import torch
        >>> traceless(torch.diag(torch.tensor([3.0, 1.0])))
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """
    require_square(X)
    diagonal = X.diagonal(dim1=-2, dim2=-1)
    # a sum over a number, which is zero and not NaN for no entries at all
    mean = diagonal.sum(-1, keepdim=True) / max(1, X.shape[-1])
    return X - torch.diag_embed(mean.expand_as(diagonal))
