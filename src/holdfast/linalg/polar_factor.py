r"""The nearest matrix with orthonormal columns.

Note [Polar]
    For W = Q P, with P positive definite, :math:`dW = dQ\, P + Q\, dP`. So

    .. math::
        dQ = Q X + (I - Q Q^H)\, dW\, P^{-1}, \qquad
        P X + X P = Q^H dW - dW^H Q.

    This linear map is its own adjoint: it is the gradient as well. How Q was found
    does not matter to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .lyapunov_equation import bound, lyapunov
from .odd_polynomials import sign_schedule
from .precision import full_precision
from .products import add_product


class _Polar:
    @staticmethod
    def forward(W: Tensor) -> tuple[Tensor, ...]:
        if W.is_cuda:
            return (polar_by_products(W),)
        U, values, Vh = torch.linalg.svd(W, full_matrices=False)
        return U @ Vh, values, Vh

    @staticmethod
    def keep(inputs: tuple[Tensor], outputs: tuple[Tensor, ...]) -> Tensors:
        return *inputs, *outputs

    @staticmethod
    def vjp(kept: tuple[Tensor, ...], needs: Any, *grads: Any) -> Tensors:  # noqa: ANN401
        return (_derivative(kept, grads[0]),)

    @staticmethod
    def jvp(kept: tuple[Tensor, ...], dW: Tensor) -> Tensors:
        # None but the derivatives see the other outputs, which are constants to them.
        return _derivative(kept, dW), *[torch.zeros_like(x) for x in kept[2:]]


def _derivative(kept: tuple[Tensor, ...], dW: Tensor) -> Tensor:
    W, Q, *rest = kept
    values, V = (rest[0].detach(), rest[1].detach().mH) if rest else (None, None)
    half = Q.mH @ W
    P = (half + half.mH) / 2
    inside = Q.mH @ dW
    value = Q @ lyapunov(P, inside - inside.mH, values, V)
    if W.shape[-2] == W.shape[-1]:
        return value
    outside = add_product(dW, Q, inside, alpha=-1)
    twice = 2 * torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    return add_product(value, outside, lyapunov(P, twice.expand_as(P), values, V))


_polar = closed_form(_Polar)


@full_precision
def polar(W: Tensor) -> Tensor:
    r"""Return the matrix with orthonormal columns nearest to W.

    On CPU it is made of the singular vectors, which there is faster than any iteration
    and right for every W; on CUDA by `polar_by_products`, without a wait of the host,
    for condition numbers up to 1e5, or 1e6 in double precision. Where W is rank
    deficient it is one of several, and its derivative is without the infinite parts.
    See Note [Polar].

    Shape: ``(*batch, n, k) -> (*batch, n, k)`` for n >= k.

    Example:
        >>> import torch
        >>> polar(torch.diag(torch.tensor([2.0, 0.5])))
        tensor([[1., 0.],
                [0., 1.]])

    References:
        Higham, Functions of Matrices, 2008, chapter 8,
        https://doi.org/10.1137/1.9780898717778
    """
    return _polar(W)


def polar_by_products(W: Tensor) -> Tensor:
    r"""Return the nearest orthonormal columns by products alone, without derivatives.

    It always takes 43 products, or 52 in double precision, and the host looks at
    nothing. For condition numbers :math:`\kappa` up to 1e5, or 1e6 in double precision,
    the columns are orthonormal to rounding, and off from the nearest ones by about
    :math:`\kappa` roundings, as those of any method. In the directions of singular
    values that are smaller than that the columns end too short, down to zero for zero:
    this is seen, `sets.Stiefel` does not contain them.

    Shape: ``(*batch, n, k) -> (*batch, n, k)`` for n >= k.

    Example:
        >>> import torch
        >>> torch.allclose(polar_by_products(2 * torch.eye(3, 2)), torch.eye(3, 2))
        True

    References:
        Amsel et al., The Polar Express, 2025, https://arxiv.org/abs/2505.16932
    """
    size = bound(W)
    Q = W / size.masked_fill(size == 0, 1)
    for a, b, c in sign_schedule(W.dtype)[:-1]:
        A = Q.mH @ Q
        Q = add_product(Q, Q, add_product(A, A, A, alpha=c, beta=b), beta=a)
    # the last step as a correction, whose rounding errors are as small as it is
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    R = add_product(identity.expand(*W.shape[:-2], -1, -1), Q.mH, Q, alpha=-1)
    return add_product(Q, Q, add_product(R, R, R, alpha=3 / 8, beta=1 / 2))


@full_precision
def nearest_rotation(W: Tensor) -> Tensor:
    r"""Return the orthogonal matrix of determinant 1 nearest to a square real W.

    .. math::
        U\, \mathrm{diag}(1, \dots, 1, \det U V^T)\, V^T, \qquad W = U \Sigma V^T

    It is the polar factor, with the direction of the smallest singular value turned
    round where that has determinant -1. It is made for projections: the derivative is
    that of the decomposition, infinite where singular values are the same.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``.

    Example:
        >>> import torch
        >>> nearest_rotation(torch.diag(torch.tensor([-1.0, 3.0])))
        tensor([[1., 0.],
                [0., 1.]])

    References:
        Kabsch, A Solution for the Best Rotation to Relate Two Sets of Vectors, 1976,
        https://doi.org/10.1107/S0567739476001873
    """
    U, _, Vh = torch.linalg.svd(W)
    signs = torch.linalg.det(U @ Vh).sign()
    last = U[..., -1:] * signs[..., None, None]
    return torch.cat([U[..., :-1], last], -1) @ Vh


@full_precision
def unit_determinant(Q: Tensor) -> Tensor:
    r"""Return :math:`Q\, (\det Q)^{-1/n}`, which has determinant 1, for a unitary Q.

    The root is the one nearest to 1.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``, complex.

    Example:
        >>> import torch
        >>> Q = unit_determinant(torch.diag(torch.tensor([1j, 1.0])))
        >>> torch.linalg.det(Q).real.round()
        tensor(1.)
    """
    phase = torch.linalg.slogdet(Q).sign.angle() / max(1, Q.shape[-1])
    return Q * torch.polar(torch.ones_like(phase), -phase)[..., None, None]
