r"""The Lyapunov equation :math:`PX + XP = C` of a positive definite P.

Note [Signs of blocks]
    On an accelerator an eigendecomposition makes the host wait. There the equation is
    solved by products: with Y = X,

    .. math::
        \mathrm{sign} \begin{pmatrix} P & C \\ 0 & -P \end{pmatrix}
        = \begin{pmatrix} I & 2X \\ 0 & -I \end{pmatrix},

    and the sign of a matrix is the limit of the same odd polynomials that make its
    singular values one, see `linalg/odd_polynomials.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .odd_polynomials import sign_schedule
from .products import add_product, add_to_diagonal


class _Lyapunov:
    @staticmethod
    def forward(
        P: Tensor, C: Tensor, values: Tensor | None, V: Tensor | None
    ) -> tuple[Tensor]:
        if values is None or V is None:
            return (lyapunov_by_products(P, C),)
        sums = values.unsqueeze(-1) + values.unsqueeze(-2)
        smallest = torch.finfo(values.dtype).tiny
        inverse = torch.where(sums > smallest, sums.clamp_min(smallest).reciprocal(), 0)
        return (V @ (V.mH @ C @ V * inverse) @ V.mH,)

    @staticmethod
    def keep(inputs: Any, outputs: tuple[Tensor]) -> Tensors:  # noqa: ANN401
        P, _, values, V = inputs
        return P, *outputs, values, V

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        P, X, values, V = kept
        gC = lyapunov(P, G, values, V)
        return -add_product(X.mH @ gC, gC, X.mH), gC, None, None

    @staticmethod
    def jvp(
        kept: Any,  # noqa: ANN401
        dP: Tensor | None,
        dC: Tensor | None,
        dvalues: None,
        dV: None,
    ) -> Tensors:
        P, X, values, V = kept
        right = torch.zeros_like(X) if dC is None else dC
        if dP is not None:
            right = right - dP @ X - X @ dP
        return (lyapunov(P, right, values, V),)


_lyapunov = closed_form(_Lyapunov)


def lyapunov(
    P: Tensor, C: Tensor, values: Tensor | None = None, V: Tensor | None = None
) -> Tensor:
    r"""Return X with :math:`PX + XP = C`, for a Hermitian positive definite P.

    By the eigenvalues and eigenvectors of P, where they are given, and by products
    otherwise. They count as constants: the derivatives know P by itself. Where the
    sum of two eigenvalues is zero, so is that part of X.

    Shape:
        ``(*batch, k, k), (*batch, k, k), (*batch, k), (*batch, k, k) ->
        (*batch, k, k)``.

    Example:
        >>> import torch
        >>> lyapunov(
        ...     2 * torch.eye(2), torch.ones(2, 2), 2 * torch.ones(2), torch.eye(2)
        ... )
        tensor([[0.2500, 0.2500],
                [0.2500, 0.2500]])
    """
    return _lyapunov(P, C, values, V)


def lyapunov_by_products(P: Tensor, C: Tensor) -> Tensor:
    """Return X by products alone, without derivatives. See Note [Signs of blocks].

    For eigenvalues of P within a factor of 1e5, or 1e6 in double precision.

    Example:
        >>> import torch
        >>> X = lyapunov_by_products(2 * torch.eye(2), torch.ones(2, 2))
        >>> torch.allclose(X, torch.tensor(0.25))
        True
    """
    size = bound(P).clamp_min(torch.finfo(P.dtype).tiny)
    P, C = P / size, C / size
    for a, b, c in sign_schedule(P.dtype):
        square = P @ P
        corner = add_product(P @ C, C, P, alpha=-1)
        fourth = corner @ square + square @ corner
        R = b * square + c * (square @ square)
        R = add_to_diagonal(R, a)
        C = add_product(P @ (b * corner + c * fourth), C, R)
        P = P @ R
    return C / 2


def bound(W: Tensor) -> Tensor:
    """Return an upper bound of the spectral norm, which is seldom twice as large.

    Shape: ``(*batch, n, k) -> (*batch, 1, 1)``.

    Example:
        >>> import torch
        >>> float(bound(torch.tensor([[3.0, 0.0], [0.0, 0.0]])))
        3.0
    """
    if 0 in W.shape[-2:]:
        return W.real.new_zeros(*W.shape[:-2], 1, 1)
    scale = W.abs().amax((-2, -1), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    scaled = W / scale
    gram = torch.linalg.matrix_norm(scaled.mH @ scaled, keepdim=True)
    return scale * gram.sqrt()
