r"""What is certain of a matrix, rounding included, at a fraction of a decomposition.

Each function here may fail to tell, and is then of no consequence: a caller decomposes
the matrix. What it does tell holds of the matrix that it was given, in exact
arithmetic, however the computation here was rounded. Where operations are recorded, or
derivatives are asked for, nobody should ask: see `worth_asking`.

Note [Room for rounding]
    With the unit roundoff u of the precision that is computed in, an inner product of
    n terms is off by :math:`n u / (1 - n u)` of the product of the norms at most, so a
    product of matrices by as much of those of their Frobenius norms; and where the
    factorization of Cholesky runs to its end for :math:`H - cI`, with
    :math:`c \ge (n + 1) u / (1 - (n + 1) u)\, \mathrm{tr}\, H`, the Hermitian H is
    positive definite. Here twice as much is allowed for. Rump, Verification of Positive
    Definiteness, 2006, https://doi.org/10.1007/s10543-006-0056-1
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tolerances import tolerance
from .tracing import dual, traced

# So many squarings tell radii of up to 0.95 from 1 for matrices of some hundred rows,
# at a third of what eigenvalues take.
_SQUARINGS = 8

# What is left of the digits of a square in double precision.
_RESOLVED = 1e-10


def worth_asking(W: Tensor) -> bool:
    """Tell whether values may be looked at: nothing is recorded or differentiated.

    Example:
        >>> import torch
        >>> worth_asking(torch.eye(2)), worth_asking(torch.eye(2, device="meta"))
        (True, False)
    """
    differentiated = W.requires_grad and torch.is_grad_enabled()
    return not (traced(W) or dual() or differentiated or not W.numel())


def finite(X: Tensor) -> Tensor:
    """Return whether all entries are, as a scalar that stays on its device.

    Five times faster than asking each: infinity and NaN times zero is NaN.

    Example:
        >>> import torch
        >>> finite(torch.ones(3)), finite(torch.tensor([1.0, torch.inf]))
        (tensor(True), tensor(False))
    """
    return (X * 0).sum() == 0


def rooms(weight: Tensor) -> tuple[float, ...]:
    """Return within which residuals it pays to ask whether a matrix is inside.

    First of all whether it is for sure; then, as values on the boundary are rounded to
    either side, within an eighth of the tolerance. In double precision, squares and
    sums have lost that.

    Example:
        >>> import torch
        >>> [f"{room:.1e}" for room in rooms(torch.eye(64))]
        ['0.0e+00', '1.9e-06']
    """
    if not worth_asking(weight):
        return ()
    room = tolerance(weight) / 8
    return (0.0, room) if room > _RESOLVED else (0.0,)


def beyond_rank(W: Tensor, rank: int) -> Tensor | None:
    """Return the norm of what `near_columns` leave: at least the distance to the rank.

    ``None`` where that does not pay, or nothing may be looked at.

    Args:
        W: matrices in double precision.
        rank: r.

    Example:
        >>> import torch
        >>> beyond_rank(torch.diag(torch.tensor([3.0, 0.0])).double(), 1)
        tensor(0., dtype=torch.float64)
    """
    W = W.contiguous()
    V = near_columns(W, rank) if worth_asking(W) else None
    return None if V is None else _norm(W - (W @ V) @ V.mH)


def surely_definite(H: Tensor, plus: Tensor | float = 0.0) -> bool:
    """Tell whether H + cI is positive definite for sure, for every matrix of a batch.

    A factorization of Cholesky, n³/3 operations: a quarter of the time of eigenvalues.
    See Note [Room for rounding].

    Args:
        H: Hermitian matrices in double precision; only the lower half is looked at.
        plus: c, a number or one for each matrix.

    Example:
        >>> import torch
        >>> H = torch.ones(3, 3).double()  # it has a zero eigenvalue
        >>> surely_definite(H), surely_definite(H, 1e-9)
        (False, True)
    """
    diagonal = H.diagonal(dim1=-2, dim2=-1).real
    plus = torch.as_tensor(plus, dtype=diagonal.dtype, device=H.device).unsqueeze(-1)
    size = diagonal.abs().sum(-1, keepdim=True) + H.shape[-1] * plus.abs()
    room = (H.shape[-1] + 2) * torch.finfo(H.dtype).eps * size
    lower = H.clone(memory_format=torch.contiguous_format)
    lower.diagonal(dim1=-2, dim2=-1).add_(plus - room)
    if not bool((lower.diagonal(dim1=-2, dim2=-1).real > 0).all()):  # nor is it NaN
        return False
    factor, failed = torch.linalg.cholesky_ex(lower)
    sound = torch.isfinite(factor.diagonal(dim1=-2, dim2=-1).real).all()
    return bool((failed == 0).all() & sound)


def surely_between(W: Tensor, low: float, high: float) -> bool:
    r"""Tell whether all singular values are inside an interval for sure.

    By definiteness of :math:`b^2 I - G` and of :math:`G - a^2 I`, where G is the
    smaller Gram matrix. To be told, they have to keep off the ends: by about
    :math:`n^2` roundings of double precision, relative to the square.

    Args:
        W: matrices in double precision.
        low: a; not looked at if it is not positive.
        high: b; not looked at if it is infinite.

    Example:
        >>> import torch
        >>> W = torch.diag(torch.tensor([1.0, 2.0])).double()
        >>> surely_between(W, 0.9, 2.1), surely_between(W, 0.9, 1.9)
        (True, False)
    """
    if W.shape[-2] < W.shape[-1]:
        W = W.mH
    G = W.mH @ W
    squares = G.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    room = (W.shape[-2] + 2) * torch.finfo(W.dtype).eps * squares
    return (high == torch.inf or surely_definite(-G, high**2 - room)) and (
        low <= 0 or surely_definite(G, -(low**2) - room)
    )


def surely_decays(W: Tensor, radius: Tensor | float = 1.0) -> bool:
    r"""Tell whether all eigenvalues are below a radius in modulus, for sure.

    .. math::
        |\lambda|^{2^j} \le \|W^{2^j}\|_F

    by squaring, with a bound of what rounding has added. It takes as many squarings as
    it takes powers to shrink to nothing, up to eight; eigenvalues cost as much as
    thirty.

    Args:
        W: square matrices in double precision.
        radius: positive; a number, or one for each matrix.

    Example:
        >>> import torch
        >>> W = torch.tensor([[0.5, 9.0], [0.0, -0.5]]).double()
        >>> surely_decays(W), surely_decays(W, 0.4)
        (True, False)
    """
    scale = torch.as_tensor(radius, dtype=W.real.dtype, device=W.device)
    X = W / scale[..., None, None]
    eps = torch.finfo(W.dtype).eps
    norm = _norm(X)
    error = 2 * eps * norm
    for squarings in range(_SQUARINGS + 1):
        largest = float((norm + error).max())
        if largest < 1:
            return True
        if squarings == _SQUARINGS or not largest < 1e30:  # nor NaN
            return False
        X = X @ X
        product = (X.shape[-1] + 2) * eps * norm.square()
        error = 2 * norm * error + error.square() + product
        norm = _norm(X)
    return False


def near_columns(W: Tensor, rank: int) -> Tensor | None:
    r"""Return r orthonormal columns V that W has its rows near, if any are.

    .. math::
        V = \mathrm{qr}(W^H\, \mathrm{qr}(W \Omega))

    for r columns :math:`\Omega`, the same ones every time. Whatever they are,
    :math:`W V V^H` is of rank r, so that :math:`\|W - W V V^H\|_F` is at least the
    distance of W from all such matrices, and :math:`\sigma_i(W V) \le \sigma_i(W)`. Of
    a matrix that is of rank r to rounding, what is left over is as small as rounding.
    Costs about 6nkr operations, against 10nk² and more of singular vectors; ``None``
    where r is too large for that to pay.

    Args:
        W: matrices in double precision.
        rank: r.

    Example:
        >>> import torch
        >>> W = torch.outer(torch.arange(4.0), torch.ones(3)).double()
        >>> V = near_columns(W, 1)
        >>> bool(torch.linalg.matrix_norm(W - W @ V @ V.mH) < 1e-14)
        True

    References:
        Halko, Martinsson and Tropp, Finding Structure with Randomness, 2011,
        https://arxiv.org/abs/0909.4061
    """
    n, k = W.shape[-2:]
    if not 0 < 2 * rank <= min(n, k):
        return None
    random = torch.Generator().manual_seed(0)
    start = torch.randn(k, rank, generator=random, dtype=torch.float64).to(W)
    W = W.contiguous()  # thin products with the transpose take ten times as long
    Q = torch.linalg.qr(W @ start).Q
    return torch.linalg.qr((Q.mH @ W).mH).Q  # W.mH @ Q would take much longer


def _norm(X: Tensor) -> Tensor:
    """Return the Frobenius norm, rounded up."""
    return torch.linalg.vector_norm(X, dim=(-2, -1)) * (1 + 1e-10)


def certain(residual: Tensor, limit: float, W: Tensor) -> bool:
    """Tell whether an upper bound of residuals says that all matrices are inside.

    Example:
        >>> import torch
        >>> certain(torch.tensor([1e-9, 1e-8]), 1e-6, torch.eye(2))
        True
    """
    return worth_asking(W) and bool((residual <= limit).all())
