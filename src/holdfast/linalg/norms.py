"""Norms of slices and rescaling to them, with finite values and slopes at zero."""

from __future__ import annotations

import torch
from torch import Tensor

from .tracing import dual, traced


def axis(dim: int, ndim: int) -> int:
    """Return a dimension counted from the front; a negative one counts from the back.

    Example:
        >>> axis(-1, 3)
        2
    """
    if not -ndim <= dim < ndim:
        raise IndexError(
            "Dimension out of range (expected to be in range of "
            f"[{-ndim}, {ndim - 1}], but got {dim})."
        )
    return dim % ndim


def norm_except(V: Tensor, dim: int | None) -> Tensor:
    """Return the norm over all dimensions but ``dim``, or over all for ``None``.

    The derivatives of every order are zero, not NaN, where a slice is zero.

    Shape: ``(d_0, ..., d_m) -> (1, ..., d_dim, ..., 1)``, or ``()`` for ``None``.

    Example:
        >>> import torch
        >>> norm_except(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 0)
        tensor([[5.],
                [0.]])
    """
    squares = _squares_except(V, dim)
    if not (torch.is_grad_enabled() or traced(V) or dual()):
        return squares.sqrt()  # there is no slope to keep finite
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


def _squares_except(V: Tensor, dim: int | None) -> Tensor:
    """Return the sum of squares over all dimensions but ``dim``."""
    squares = (V * V.conj()).real if V.is_complex() else V * V
    if dim is None:
        return squares.sum()
    if V.ndim == 1:
        return squares
    kept = axis(dim, V.ndim)
    return squares.sum([d for d in range(V.ndim) if d != kept], keepdim=True)


def rescale(V: Tensor, length: Tensor, dim: int | None) -> Tensor:
    """Return V with its slices along ``dim`` rescaled to ``length``; zero stays zero.

    A slice that is zero counts as one of norm 1, which gives it a finite slope.

    Example:
        >>> import torch
        >>> V = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> rescale(V, torch.tensor([[10.0], [1.0]]), 0)
        tensor([[6., 8.],
                [0., 0.]])
    """
    squares = _squares_except(V, dim)
    # a quotient, which is exactly 1 where the length is the norm
    return V * (length / squares.masked_fill(squares == 0, 1).sqrt())


def divide(W: Tensor, norm: Tensor, eps: float) -> Tensor:
    """Return W over its norm, or W itself where that is below ``eps``.

    Example:
        >>> import torch
        >>> divide(torch.zeros(2), torch.tensor(0.0), 1e-12)
        tensor([0., 0.])
    """
    return W / torch.where(norm.abs() > eps, norm, 1)
