"""Gram matrices, and the triangular factors that they have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .closed_form import Tensors, closed_form
from .orthonormal import positive_qr
from .precision import full_precision


class _Gram:
    @staticmethod
    def forward(B: Tensor) -> tuple[Tensor]:
        return (B @ B.mH,)

    @staticmethod
    def keep(inputs: tuple[Tensor], outputs: Any) -> Tensors:  # noqa: ANN401
        return inputs

    @staticmethod
    def vjp(kept: tuple[Tensor], needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        return ((G + G.mH) @ kept[0],)

    @staticmethod
    def jvp(kept: tuple[Tensor], dB: Tensor) -> Tensors:
        half = dB @ kept[0].mH
        return (half + half.mH,)


_gram = closed_form(_Gram)


def gram(B: Tensor) -> Tensor:
    r"""Return :math:`B B^H`; the gradient takes one product.

    Shape: ``(*batch, n, r) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]])
    """
    return _gram(B)


def lower_trapezoid(X: Tensor, diagonal: Tensor) -> Tensor:
    """Return what X has below its diagonal, with another diagonal.

    Shape: ``(*batch, n, r), (*batch, r) -> (*batch, n, r)``, for n >= r.

    Example:
        >>> import torch
        >>> lower_trapezoid(torch.ones(2, 2), torch.tensor([3.0, 4.0]))
        tensor([[3., 0.],
                [1., 4.]])
    """
    square = torch.diag_embed(diagonal.to(X.dtype))
    return X.tril(-1) + pad(square, (0, 0, 0, X.shape[-2] - X.shape[-1]))


def semidefinite_factor(W: Tensor, rank: int, floor: float = 0.0) -> Tensor:
    r"""Return an n x r matrix B for which :math:`B B^H` is nearest to W.

    Args:
        W: a symmetric or Hermitian matrix, or a batch.
        rank: r.
        floor: eigenvalues count as at least ``floor`` times the largest one, and that
            as 1 where it is zero.

    Example:
        >>> import torch
        >>> semidefinite_factor(torch.diag(torch.tensor([4.0, 0.0])), 1).abs()
        tensor([[2.],
                [0.]])
    """
    values, V = torch.linalg.eigh((W + W.mH) / 2)
    values = values.relu()
    if floor:
        largest = values[..., -1:]
        smallest = floor * torch.where(largest > 0, largest, 1)
        values = torch.maximum(values, smallest)
    B = V * values.sqrt().unsqueeze(-2)
    return B.split([W.shape[-1] - rank, rank], -1)[1].flip(-1)


@full_precision
def triangular_factor(B: Tensor) -> Tensor:
    r"""Return the lower trapezoidal L with :math:`L L^H = B B^H`, as Cholesky's.

    Its diagonal is positive. It is found by QR, which loses no digits to the square.

    Shape: ``(*batch, n, r) -> (*batch, n, r)``, for n >= r.

    Example:
        >>> import torch
        >>> triangular_factor(torch.tensor([[0.0, -2.0], [1.0, 0.0]]))
        tensor([[2., 0.],
                [0., 1.]])
    """
    upper = B.split([B.shape[-1], B.shape[-2] - B.shape[-1]], -2)[0]
    L = B @ positive_qr(upper.mH)
    return L.tril() + 0.0


def permutation_of(P: Tensor) -> Tensor:
    """Return the indices with which ``X[indices]`` is ``P @ X``.

    Shape: ``(*batch, n, n) -> (*batch, n)``.

    Example:
        >>> import torch
        >>> permutation_of(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([1, 0])
    """
    return P.real.argmax(-1)


def permuted_rows(X: Tensor, permutation: Tensor) -> Tensor:
    """Return the rows of X in another order, for each matrix its own.

    Shape: ``(*batch, n, k), (*batch, n) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> permuted_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 0]))
        tensor([[2.],
                [1.]])
    """
    return torch.take_along_dim(X, permutation.unsqueeze(-1), -2)
