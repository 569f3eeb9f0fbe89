r"""Matrices whose powers or exponentials decay, in coordinates without a bound.

Note [One equation, one matrix]
    A has its eigenvalues in the open left half plane iff the equation of Lyapunov,

    .. math::
        P A + A^H P = -2I,

    has a positive definite solution P, which is unique. The equation says that
    :math:`S = PA + I` is skew. So :math:`A = P^{-1}(S - I)`, and the pairs (P, S), of
    dimension n(n + 1)/2 and n(n - 1)/2, correspond to these matrices one to one. No
    further right-hand side Q is needed to reach them all.

    With W = (I - A)^{-1}(I + A), the transform of Cayley, the same equation becomes

    .. math::
        P - W^H P W = (I + W)^H (I + W), \qquad
        W = (P + I - S)^{-1} (P - I + S),

    and the matrices W are those with eigenvalues inside the unit disc. What is
    inverted has a Hermitian part of at least I, whatever P is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import full_precision
from .structure import require_square
from .tracing import recorded

# Doublings stop earlier where a further term is below rounding. After so many, a
# spectral radius of 1 has given a solution beside which I is below rounding: what is
# made of that solution has the radius 1 to rounding again.
_DOUBLINGS = 56

# A right inverse whose value would be off by more than this part of the matrix is none.
_MISSED = 1e-4


def positive_part(x: Tensor) -> Tensor:
    r"""Return :math:`(x + \sqrt{x^2 + 4})/2`, positive, smooth and 1 at 0.

    Example:
        >>> import torch
        >>> positive_part(torch.tensor([-1e9, 0.0, 1.5]))
        tensor([1.0000e-09, 1.0000e+00, 2.0000e+00])
    """
    size = torch.where(x >= 0, x, -x) / 2
    large = size + (size * size + 1).sqrt()
    return torch.where(x >= 0, large, 1 / large)


def positive_part_inverse(y: Tensor) -> Tensor:
    """Return the x whose `positive_part` is y > 0.

    Example:
        >>> import torch
        >>> positive_part_inverse(torch.tensor([1.0, 2.0]))
        tensor([0.0000, 1.5000])
    """
    return y - 1 / y


def factor_and_skew(X: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return a lower triangular factor L and a skew matrix S, made of ``X``.

    The strict triangles of X, divided by :math:`\sqrt{n}`, are those of L and of S; the
    real part of the diagonal gives that of L, by `positive_part`, and the imaginary
    part that of S. The division makes random originals well conditioned for any n.

    Example:
        >>> import torch
        >>> L, S = factor_and_skew(torch.zeros(2, 2))
        >>> L, S
        (tensor([[1., 0.],
                [0., 1.]]), tensor([[0., 0.],
                [0., 0.]]))
    """
    require_square(X)
    scaled = X / max(1, X.shape[-1]) ** 0.5
    diagonal = X.diagonal(dim1=-2, dim2=-1)
    L = scaled.tril(-1) + torch.diag_embed(positive_part(diagonal.real))
    above = scaled.triu(1)
    S = above - above.mH
    return L, S + torch.diag_embed(1j * diagonal.imag) if X.is_complex() else S


def factor_and_skew_inverse(L: Tensor, S: Tensor) -> Tensor:
    """Return the ``X`` of which `factor_and_skew` makes a factor and a skew matrix.

    Example:
        >>> import torch
        >>> X = torch.tensor([[0.5, 1.0], [2.0, -3.0]])
        >>> torch.allclose(factor_and_skew_inverse(*factor_and_skew(X)), X)
        True
    """
    scaled = (L.tril(-1) + S.triu(1)) * max(1, L.shape[-1]) ** 0.5
    diagonal = L.diagonal(dim1=-2, dim2=-1).real
    diagonal = positive_part_inverse(diagonal.clamp_min(torch.finfo(L.dtype).eps))
    if L.is_complex():
        diagonal = torch.complex(diagonal, S.diagonal(dim1=-2, dim2=-1).imag)
    return scaled + torch.diag_embed(diagonal)


def decaying_exponentials(X: Tensor) -> Tensor:
    r"""Return :math:`A = L L^H (S - I)`, with eigenvalues in the left half plane.

    L and S are those of `factor_and_skew`, and the matrix P of the Note [One equation,
    one matrix] is the inverse of :math:`L L^H`. Costs two products.

    Example:
        >>> import torch
        >>> decaying_exponentials(torch.zeros(2, 2))
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """
    L, S = factor_and_skew(X)
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return L @ (L.mH @ (S - identity))


def decaying_exponentials_inverse(A: Tensor) -> Tensor:
    """Return the ``X`` of which `decaying_exponentials` makes a matrix.

    O(n³). The relative error is about the rounding unit times the condition of P, which
    grows towards the boundary and with the distance from normal matrices; where it is
    above 1e-4, and for a matrix outside the set, the result is NaN.

    Example:
        >>> import torch
        >>> decaying_exponentials_inverse(-torch.eye(2)) + 0.0
        tensor([[0., 0.],
                [0., 0.]])
    """
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    P = continuous_lyapunov(A, (2 * identity).expand_as(A))
    # P = U U^H with an upper triangular U, and so P^{-1} = L L^H with L = U^{-H}
    turned = torch.linalg.cholesky_ex(P.flip(-1, -2))[0]
    U = turned.flip(-1, -2)
    L = torch.linalg.solve_triangular(U.mH, identity, upper=False)
    M = P @ A
    X = factor_and_skew_inverse(L, (M - M.mH) / 2)
    return _if_close(X, decaying_exponentials(X), A)


@full_precision
def decaying_powers(X: Tensor) -> Tensor:
    r"""Return :math:`W = (P + I - S)^{-1}(P - I + S)`, of spectral radius below 1.

    :math:`P = L L^H`, with L and S of `factor_and_skew`. See Note [One equation, one
    matrix]. Costs a product and a solve.

    Example:
        >>> import torch
        >>> decaying_powers(torch.tensor([[1.5]]))
        tensor([[0.6000]])
    """
    L, S = factor_and_skew(X)
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    P, M = L @ L.mH, identity - S
    # the Hermitian part of P + M is at least I: there is no failure to wait for
    return torch.linalg.solve_ex(P + M, P - M)[0]


@full_precision
def decaying_powers_inverse(W: Tensor) -> Tensor:
    """Return the ``X`` of which `decaying_powers` makes a matrix.

    O(n³). The relative error is about the rounding unit times the condition of P, which
    grows towards the boundary and with the distance from normal matrices; where it is
    above 1e-4, and for a matrix outside the set, the result is NaN.

    Example:
        >>> import torch
        >>> decaying_powers_inverse(torch.tensor([[0.6]]))
        tensor([[1.5000]])
    """
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    # The equation of the note, for P = (I + W)^H R (I + W), of which a factor is known
    # to all digits where an eigenvalue of W is near -1
    R = discrete_lyapunov(W, identity.expand_as(W))
    more = W + identity
    factor = torch.linalg.cholesky_ex(R)[0].mH @ more
    S = identity + more.mH @ R @ (W - identity)
    L = _positive_lower(factor)
    X = factor_and_skew_inverse(L, (S - S.mH) / 2)
    return _if_close(X, decaying_powers(X), W)


def _if_close(X: Tensor, value: Tensor, expected: Tensor) -> Tensor:
    """Return ``X``, or NaN if its value is another one than expected."""
    norm, rounding = torch.linalg.matrix_norm, torch.finfo(X.dtype).eps
    close = norm(value - expected) <= _MISSED * norm(expected) + rounding
    return torch.where(close[..., None, None], X, torch.nan)


def _positive_lower(factor: Tensor) -> Tensor:
    """Return the triangular L, of positive diagonal, with L L^H = F^H F."""
    L = torch.linalg.qr(factor).R.mH
    phases = L.diagonal(dim1=-2, dim2=-1).sgn().conj()
    return L * torch.where(phases == 0, 1, phases).unsqueeze(-2)


def discrete_lyapunov(W: Tensor, Q: Tensor) -> Tensor:
    r"""Return P with :math:`P - W^H P W = Q`, for a spectral radius of W below 1.

    By doubling, :math:`P = \sum_k (W^k)^H Q\, W^k`, of which every step has twice as
    many terms: as many steps as it takes squarings to make W zero. For a positive
    semidefinite Q nothing cancels. Eigenvectors are not needed, and W may lack them.
    One step of refinement follows.

    Example:
        >>> import torch
        >>> discrete_lyapunov(torch.tensor([[0.5]]), torch.tensor([[3.0]]))
        tensor([[4.]])

    References:
        Smith, Matrix Equation XA + BX = C, 1968, https://doi.org/10.1137/0116017
    """
    P = _doubled(W, Q)
    return P + _doubled(W, Q - P + W.mH @ P @ W)


def _doubled(W: Tensor, Q: Tensor) -> Tensor:
    P, norm = (Q + Q.mH) / 2, torch.linalg.matrix_norm
    negligible = torch.finfo(W.dtype).eps ** 2
    for _ in range(_DOUBLINGS):
        more = W.mH @ P @ W
        P = P + (more + more.mH) / 2
        if not recorded(W) and not bool((norm(more) > negligible * norm(P)).any()):
            break
        W = W @ W
    return P


def continuous_lyapunov(A: Tensor, Q: Tensor) -> Tensor:
    r"""Return P with :math:`P A + A^H P = -Q`, for eigenvalues with Re λ < 0.

    For any γ > 0 it is the solution of `discrete_lyapunov` for

    .. math::
        W = (\gamma - A)^{-1} (\gamma + A), \qquad
        2\gamma\, (\gamma - A)^{-H} Q\, (\gamma - A)^{-1},

    and γ is about the geometric mean of the extreme singular values. One step of
    refinement follows.

    Example:
        >>> import torch
        >>> continuous_lyapunov(torch.tensor([[-0.5]]), torch.tensor([[3.0]]))
        tensor([[3.]])
    """
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    shift = _middle(A)
    resolvent = torch.linalg.inv_ex(shift * identity - A)[0]
    W = 2 * shift * resolvent - identity

    def solved(Q: Tensor) -> Tensor:
        return _doubled(W, 2 * shift * (resolvent.mH @ Q @ resolvent))

    P = solved(Q)
    half = P @ A
    return P + solved(Q + half + half.mH)


def _middle(A: Tensor) -> Tensor:
    """Return the geometric mean of about the largest and the smallest singular value.

    A singular matrix counts as one whose condition is that of rounding.
    """
    norm = torch.linalg.matrix_norm(A)
    condition = norm * torch.linalg.matrix_norm(torch.linalg.inv_ex(A)[0])
    rounding = torch.finfo(A.dtype).eps
    condition = condition.nan_to_num(nan=1 / rounding).clamp(1, 1 / rounding)
    return torch.where(norm > 0, norm / condition.sqrt(), 1)[..., None, None]
