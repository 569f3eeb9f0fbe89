"""Logarithms of orthogonal and unitary matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InvalidTensorError
from .cayley import cayley_inverse
from .orthonormal import orthogonality
from .precision import double, full_precision
from .structure import require_square
from .tracing import traced


@full_precision
def signed_logarithm(W: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Return a skew A and signs D with ``matrix_exponential(A) * D == W``.

    They exist for every orthogonal W. The Cayley coordinates of U = W D are normal,
    :math:`V \mathrm{diag}(ia) V^H`, and an eigenvalue :math:`e^{i\theta}` of U has
    :math:`a = 2 \tan(\theta/2)` there. So

    .. math::
        \log U = V \mathrm{diag}(2i \arctan(a/2)) V^H,

    by one Hermitian eigendecomposition. The signs keep every :math:`\theta` away from
    :math:`\pi`, where the logarithm of a real matrix would not be real.

    Shape: ``(*batch, n, n), (*batch, n) -> (*batch, n, n), (*batch, n)``.

    Example:
        >>> import torch
        >>> A, signs = signed_logarithm(-torch.eye(3))
        >>> signs, float(A.norm())
        (tensor([-1, -1, -1], dtype=torch.int8), 0.0)
    """
    coordinates, signs = cayley_inverse(W, signs)
    a, V = torch.linalg.eigh(-1j * coordinates)
    A = (V * (2j * torch.atan(a / 2)).unsqueeze(-2)) @ V.mH
    A = (A - A.mH) / 2
    return (A if W.is_complex() else A.real), signs


# Generic: eigenvalues of a matrix that somebody wrote down seldom mirror each other at
# one of them. Those that do are told apart at the next one.
_ANGLES = (0.7390851332151607, 2.1732541287091753, 1.3065629648763766)

# What rounding leaves of a matrix that is diagonal, for each of its rows.
_MIXED = 1e-14

# Eigenvalues closer to -1 get real planes, from somewhere between these angles on.
_NEAR = (0.05, 0.2)


def skew_logarithm(Q: Tensor) -> Tensor:
    r"""Return a skew A with :math:`\exp(A) = Q`, the principal one.

    Q is a rotation, or any unitary matrix, with eigenvalues :math:`e^{i\theta}`. The
    Hermitian matrix

    .. math::
        \cos\varphi\, (Q + Q^H)/2 - i \sin\varphi\, (Q - Q^H)/2

    has its eigenvectors V, and the eigenvalues :math:`\cos(\theta - \varphi)`, all
    different for a generic :math:`\varphi`. One eigendecomposition in double precision
    gives :math:`A = V \mathrm{diag}(i\theta) V^H` with
    :math:`-\pi \le \theta \le \pi`; where two eigenvalues mirror each other at
    :math:`\varphi`, another one follows. See Note [Half turns].

    Note [Half turns]
        Where a real Q has eigenvalues next to -1, those at both sides of the cut are
        next to each other, and their eigenvectors mix: A would not be real. On the real
        span of these Q is :math:`-\exp(S)` with a small S, and with a real J that
        commutes with S and has :math:`J^2 = -I`, a logarithm is :math:`S - \pi J`.

    Shape: ``(*batch, n, n) -> (*batch, n, n)``.

    Raises:
        InvalidTensorError: a real Q has determinant -1, so that it has no logarithm.

    Example:
        >>> import torch
        >>> A = skew_logarithm(-torch.eye(2))
        >>> A.abs()
        tensor([[0.0000, 3.1416],
                [3.1416, 0.0000]])
    """
    require_square(Q)
    W = double(Q)
    V, angles = _eigenvectors(W)
    if Q.is_complex():
        A = (V * (1j * angles).unsqueeze(-2)) @ V.mH
        return ((A - A.mH) / 2).to(Q.dtype)
    near = angles.abs() > _border(angles)
    A = ((V * (1j * angles.masked_fill(near, 0)).unsqueeze(-2)) @ V.mH).real
    if not Q.is_meta and bool(near.any()):
        flat = A.reshape(-1, *A.shape[-2:])
        rows = zip(W.reshape(flat.shape), V.reshape(flat.shape), strict=True)
        masks = near.reshape(-1, near.shape[-1])
        turns = [_half_turns(w, v[:, m]) for (w, v), m in zip(rows, masks, strict=True)]
        A = A + torch.stack(turns).view(A.shape)
    return ((A - A.mT) / 2).to(Q.dtype)


def _eigenvectors(W: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors and angles of a unitary matrix."""
    V, mixed = _diagonalized(W, _ANGLES[0])
    n = W.shape[-1]
    allowed = n * _MIXED + 2 * n**0.5 * orthogonality(W)
    for angle in _ANGLES[1:]:
        if not traced(W) and bool((mixed <= allowed).all()):
            break
        other, less = _diagonalized(W, angle)
        V = torch.where((less < mixed)[..., None, None], other, V)
        mixed = torch.minimum(less, mixed)
    return V, (V.mH @ W.to(V.dtype) @ V).diagonal(dim1=-2, dim2=-1).angle()


def _diagonalized(W: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Return eigenvectors, and the norm of what they leave beside the diagonal."""
    cos, sin = math.cos(angle), math.sin(angle)
    V = torch.linalg.eigh(cos * (W + W.mH) / 2 - 1j * sin * (W - W.mH) / 2)[1]
    # Two eigenvalues may still come close there, and their vectors mix a little. Where
    # they are apart on the circle, one step of Jacobi's tells them from each other.
    T = V.mH @ W.to(V.dtype) @ V
    values = T.diagonal(dim1=-2, dim2=-1)
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1)
    apart = gaps.abs() > 1e-3
    V = V + V @ torch.where(apart, T / torch.where(apart, gaps, 1), 0)
    V = 1.5 * V - 0.5 * V @ (V.mH @ V)
    T = V.mH @ W.to(V.dtype) @ V
    off = T - torch.diag_embed(T.diagonal(dim1=-2, dim2=-1))
    return V, torch.linalg.matrix_norm(off)


def _border(angles: Tensor) -> Tensor:
    """Return the middle of the widest gap between the angles where -1 is next.

    At a fixed border, a rounding could take one eigenvalue of a pair to each side.
    """
    first, last = (math.pi - distance for distance in reversed(_NEAR))
    ends = angles.new_tensor([first, last]).expand(*angles.shape[:-1], 2)
    inside = torch.cat([angles.abs().clamp(first, last), ends], -1).sort(-1).values
    gaps = inside.diff(dim=-1)
    widest = gaps.argmax(-1, keepdim=True)
    return (inside + pad(gaps, (0, 1)) / 2).gather(-1, widest)


def _half_turns(W: Tensor, V: Tensor) -> Tensor:
    """Return the real logarithm on the span of eigenvectors next to -1."""
    count = V.shape[-1]
    if count == 0:
        return torch.zeros_like(W)
    if count % 2:
        raise InvalidTensorError(
            "Expected a rotation, whose determinant is 1. Got a real orthogonal matrix "
            "of determinant -1, which has no real logarithm."
        )
    B = _real_basis(V)
    S = skew_logarithm(-(B.mT @ W @ B))
    return B @ (S - math.pi * _complex_structure(S)) @ B.mT


def _real_basis(V: Tensor) -> Tensor:
    """Return an orthonormal real basis of a span that its conjugate shares."""
    return torch.linalg.svd(torch.cat([V.real, V.imag], -1))[0][:, : V.shape[-1]]


def _complex_structure(S: Tensor) -> Tensor:
    r"""Return a real skew J with :math:`J^2 = -I` that commutes with a skew S.

    On the eigenvectors of S to :math:`\pm i\mu` with :math:`\mu > 0` it is
    :math:`\pm i`. Small :math:`\mu` are known worse, and have their turn after the
    others, on what is left; where nothing is left of S, any J will do.
    """
    count = S.shape[-1]
    values, V = torch.linalg.eigh(-1j * S)
    size = values.abs().max()
    if size < 1e-15:
        turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=S.dtype, device=S.device)
        return torch.block_diag(*[turn] * (count // 2))
    clear = values.abs() > 1e-4 * size
    J = ((V[:, clear] * (1j * values[clear].sign())) @ V[:, clear].mH).real
    if not bool(clear.all()):
        B = _real_basis(V[:, ~clear])
        rest = B.mT @ S @ B
        J = J + B @ _complex_structure((rest - rest.mT) / 2) @ B.mT
    J = (J - J.mT) / 2
    return 1.5 * J + 0.5 * J @ J @ J  # Newton's step to J² = -I
