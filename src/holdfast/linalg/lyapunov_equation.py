r"""The Lyapunov equation :math:`PX + XP = C` of a positive definite P.

Note [Signs of blocks]
    On an accelerator an eigendecomposition makes the host wait. There the equation is
    solved by products: with Y = X,

    .. math::
        \mathrm{sign} \begin{pmatrix} P & C \\ 0 & -P \end{pmatrix}
        = \begin{pmatrix} I & 2X \\ 0 & -I \end{pmatrix},

    and the sign of a matrix is the limit of the same odd polynomials that make its
    singular values one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .products import add_product, add_to_diagonal

# The odd polynomials of degree five that in turn are the best approximations of one, in
# the maximum norm, on the range that the ones before have made of [1e-5, 1]; the values
# but for the last are divided by 1.01 so that rounding does not leave the range.
SCHEDULE = (
    (8.429564732300472, -24.536523872844505, 17.85526176719508),
    (4.21425860765636, -3.0667764593654305, 0.5579629643229218),
    (4.211873611803194, -3.0651677626327865, 0.5577854657857283),
    (4.20185761858712, -3.058409342454333, 0.5570397845873123),
    (4.160284274273862, -3.0303125010030243, 0.5539401468620254),
    (3.995848232114309, -2.9184433117045376, 0.541606010136783),
    (3.4554876396244114, -2.541051695560704, 0.5001351367730515),
    (2.4570236002752615, -1.7790466270379652, 0.4181542464080563),
    (1.9043221793739604, -1.270220628418209, 0.3670926975591441),
    (1.858006479181967, -1.2162908221213513, 0.35828302345931384),
    (1.8750077239045533, -1.250015447856369, 0.3750077239518158),
)


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

    Shape: ``(*batch, k, k), (*batch, k, k), (*batch, k), (*batch, k, k)
        -> (*batch, k, k)``.

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

    Accurate where the eigenvalues of P are within a factor of 1e5.

    Example:
        >>> import torch
        >>> X = lyapunov_by_products(2 * torch.eye(2), torch.ones(2, 2))
        >>> torch.allclose(X, torch.tensor(0.25))
        True
    """
    size = bound(P).clamp_min(torch.finfo(P.dtype).tiny)
    P, C = P / size, C / size
    for a, b, c in SCHEDULE:
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
    scale = W.abs().amax((-2, -1), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    scaled = W / scale
    gram = torch.linalg.matrix_norm(scaled.mH @ scaled, keepdim=True)
    return scale * gram.sqrt()
