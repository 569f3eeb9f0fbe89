r"""Matrices of low rank, and what is of low rank beside a given matrix.

Note [Multiples of rows]
    For which :math:`D = \mathrm{diag}(t)` is :math:`M = D W - B` of rank r? With U and
    V its first r singular vectors, and :math:`P = I - U U^H`, :math:`Q = I - V V^H`,
    the rest of it is :math:`N = P M Q`, whose derivative is, to first order in N, that
    of M between the same projections: what U and V change drops out. A step of Gauss
    and Newton's, damped as Levenberg and Marquardt do,
    :math:`t \leftarrow t - (H + \lambda\, \mathrm{diag}\, W W^H)^+ g`, has

    .. math::
        g_i = \mathrm{Re}\, \langle W_i, N_i \rangle, \qquad
        H_{ij} = \mathrm{Re}\, P_{ij}\, (W Q W^H)_{ji},

    and converges quadratically, as :math:`\lambda \to 0`, where N vanishes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from .precision import double
from .structure import require_matrix

# Quadratic convergence takes about five, after some that are damped.
_STEPS, _PATIENCE = 60, 10

# One start is enough for most; of matrices with few rows, some need five.
_STARTS, _FEW_ROWS = 16, 64

# Relative to the squares of the rows: the first, and the least that grows.
_DAMPING, _LEAST_DAMPING = 1e-1, 1e-6

# By which factor the last steps go below what is asked for.
_BETTER = 16.0


def require_rank(W: Tensor, rank: int) -> None:
    """Raise unless matrices of the shape can have this rank, which is not zero.

    Example:
        >>> import torch
        >>> require_rank(torch.zeros(2, 3), 3)
        Traceback (most recent call last):
        ...
        holdfast.errors.InvalidTensorError: ... Got rank 3 for shape (2, 3).
    """
    require_matrix(W)
    if not 1 <= rank <= min(W.shape[-2:]):
        raise InvalidTensorError(
            "Expected a rank from 1 to the smaller side of the matrix. "
            f"Got rank {rank} for shape {tuple(W.shape)}."
        )


def truncated_svd(W: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first singular vectors and values, at most ``rank`` of them.

    Shape: ``(*batch, n, k) -> (*batch, n, r), (*batch, r), (*batch, r, k)``.

    Example:
        >>> import torch
        >>> truncated_svd(torch.diag(torch.tensor([3.0, 2.0])), 1)[1]
        tensor([3.])
    """
    U, values, Vh = torch.linalg.svd(W, full_matrices=False)
    return U[..., :rank], values[..., :rank], Vh[..., :rank, :]


def nearest_of_rank(W: Tensor, rank: int) -> Tensor:
    """Return the nearest matrix of at most this rank.

    A matrix of zeros takes no decomposition.

    Example:
        >>> import torch
        >>> nearest_of_rank(torch.diag(torch.tensor([3.0, 2.0])), 1)
        tensor([[3., 0.],
                [0., 0.]])

    References:
        Eckart and Young, The Approximation of One Matrix by Another of Lower Rank,
        1936, https://doi.org/10.1007/BF02288367
    """
    if rank >= min(W.shape[-2:]) or not (W.is_meta or bool(W.any())):
        return W
    U, values, Vh = truncated_svd(W, rank)
    return (U * values.unsqueeze(-2)) @ Vh


def rounding_norm(W: Tensor) -> Tensor:
    """Return about the spectral norm of what rounding adds to a matrix of its type.

    Independent errors add up to a matrix whose singular values are all alike.

    Shape: ``(*batch, n, k) -> (*batch)``.

    Example:
        >>> import torch
        >>> f"{rounding_norm(torch.ones(100, 100)).item():.1e}"
        '1.2e-06'
    """
    norm = torch.linalg.matrix_norm(double(W))
    return torch.finfo(W.dtype).eps * norm / max(1, min(W.shape[-2:])) ** 0.5


def balanced_factors(
    W: Tensor, rank: int, floor: Tensor, spare: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return B and A with :math:`B^H B = A A^H` whose product is nearest to W.

    In directions that W lacks, B is zero and A is not, so that a gradient leads there.

    Args:
        W: the matrix, or a batch.
        rank: the number of columns of B; beyond the sizes of W only with ``spare``.
        floor: singular values up to it are lacking.
        spare: rows of A for the directions that W lacks; by default its singular
            vectors, as long as the first row.

    Shape: ``(*batch, n, k), (*batch) -> (*batch, n, r), (*batch, r, k)``.

    Example:
        >>> import torch
        >>> W = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
        >>> balanced_factors(W, 1, torch.zeros(()))
        (tensor([[2.],
                [0.]]), tensor([[2., 0.]]))
    """
    U, values, Vh = truncated_svd(W, rank)
    largest = values[..., :1]
    lacking = values <= floor.unsqueeze(-1)
    root = values.masked_fill(lacking, 0).sqrt()
    length = torch.where(largest > 0, largest, 1).sqrt()
    found = values.shape[-1]
    rows = Vh * length.unsqueeze(-1) if spare is None else spare[..., :found, :]
    B = U * root.unsqueeze(-2)
    A = torch.where(lacking.unsqueeze(-1), rows, Vh * root.unsqueeze(-1))
    if spare is None or found == rank:
        return B, A
    B = torch.nn.functional.pad(B, (0, rank - found))
    return B, torch.cat([A, spare[..., found:, :]], -2)


def row_multiples(W: Tensor, base: Tensor, rank: int, tol: float) -> Tensor:
    r"""Return t such that :math:`\mathrm{diag}(t) W - B` is of rank r, if there is one.

    It is looked for from where the rows are nearest to those of the base B, and then
    from others, the same every time. What is left over tells whether it was found. See
    Note [Multiples of rows].

    Args:
        W: the matrix, or a batch.
        base: B.
        rank: r.
        tol: how much may be left over, relative to B.

    Shape: ``(*batch, n, k), (*batch, n, k) -> (*batch, n)``, real.

    Example:
        >>> import torch
        >>> base = torch.eye(3).double()
        >>> W = torch.diag(torch.tensor([2.0, 1.0, 4.0]).double()) @ base
        >>> row_multiples(W, base, 1, 1e-14)
        tensor([0.5000, 1.0000, 0.2500], dtype=torch.float64)
    """
    inner, squares = ((W.conj() * X).real.sum(-1) for X in (base, W))
    nearest = torch.where(squares > 0, inner / squares, 1)
    if W.is_meta:
        return nearest
    enough = tol * _norm(base)
    t, off = _descended(W, base, rank, nearest, enough)
    random = torch.Generator().manual_seed(0)  # the same multiples every time
    sizes = row_norms(base) / row_norms(W)
    others = _STARTS - 1 if W.shape[-2] <= _FEW_ROWS else 0
    for _ in range(others):
        if bool((off <= enough / 2).all()):
            break
        drawn = 2 * torch.rand(t.shape, generator=random, dtype=t.dtype)
        rival, rest = _descended(W, base, rank, drawn.to(t.device) * sizes, enough)
        t = torch.where((rest < off).unsqueeze(-1), rival, t)
        off = torch.minimum(off, rest)
    return t


def _descended(
    W: Tensor, base: Tensor, rank: int, t: Tensor, enough: Tensor
) -> tuple[Tensor, Tensor]:
    """Return multiples, and what is left over, that damped steps lead to."""
    squares = row_norms(W).square()
    M, N, off = _left(W, base, rank, t)
    damping = torch.full_like(off, _DAMPING)
    idle = torch.zeros_like(off)  # steps that were of little use, one after the other
    for _ in range(_STEPS):
        if bool(((off <= enough / _BETTER) | (idle > _PATIENCE)).all()):
            break
        rival = t - _step(W, M, N, rank, damping.unsqueeze(-1) * squares)
        other_M, other_N, rest = _left(W, base, rank, rival)
        nearer = rest < off
        idle = torch.where(rest < 0.9 * off, 0, idle + 1)
        t = torch.where(nearer.unsqueeze(-1), rival, t)
        M, N = (
            torch.where(nearer[..., None, None], new, old)
            for new, old in ((other_M, M), (other_N, N))
        )
        off = torch.minimum(off, rest)
        damping = torch.where(nearer, damping / 10, 4 * damping + _LEAST_DAMPING)
    return t, off


def _left(
    W: Tensor, base: Tensor, rank: int, t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return M, N of Note [Multiples of rows], and the norm of N."""
    M = t.unsqueeze(-1) * W - base
    N = M - nearest_of_rank(M, rank)
    return M, N, _norm(N)


def _step(W: Tensor, M: Tensor, N: Tensor, rank: int, damping: Tensor) -> Tensor:
    """Return the step of Note [Multiples of rows]."""
    U, _, Vh = truncated_svd(M, rank)
    identity = torch.eye(W.shape[-2], dtype=W.dtype, device=W.device)
    outside = W - (W @ Vh.mH) @ Vh
    H = ((identity - U @ U.mH) * (outside @ outside.mH).mT).real
    g = (W.conj() * N).real.sum(-1)
    inverse = torch.linalg.pinv(H + torch.diag_embed(damping), hermitian=True)
    return (inverse @ g.unsqueeze(-1)).squeeze(-1)


def _norm(M: Tensor) -> Tensor:
    return torch.linalg.vector_norm(M, dim=(-2, -1))


def row_norms(V: Tensor) -> Tensor:
    """Return the norms of the rows; those of zero rows are 1, with a slope of zero.

    Shape: ``(*batch, n, k) -> (*batch, n)``, real.

    Example:
        >>> import torch
        >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([5., 1.])
    """
    norms = torch.linalg.vector_norm(V, dim=-1)
    return norms.masked_fill(norms == 0, 1)
