"""Products of Householder reflections, in the convention of LAPACK."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import double


def reflections(X: Tensor) -> Tensor:
    r"""Return the first k columns of :math:`H_1 \cdots H_k`.

    The reflection :math:`H_j = I - 2 v_j v_j^T / \|v_j\|^2` has the entries of column
    j of ``X`` below the diagonal, a one on it and zeros above. What ``X`` has on and
    above its diagonal is not read. With :math:`V = [v_1 \cdots v_k]`, its upper square
    block :math:`V_1`, and :math:`S` the upper triangle of :math:`V^T V` with half the
    diagonal,

    .. math::
        H_1 \cdots H_k E = E - V S^{-1} V_1^T.

    Shape: ``(*batch, n, k) -> (*batch, n, k)`` for n >= k, real.

    Example:
        >>> import torch
        >>> reflections(torch.zeros(3, 2))
        tensor([[-1.,  0.],
                [ 0., -1.],
                [ 0.,  0.]])

    References:
        Joffrain et al., Accumulating Householder Transformations, Revisited, 2006,
        https://doi.org/10.1145/1141885.1141886
    """
    n, k = X.shape[-2:]
    identity = torch.eye(n, k, dtype=X.dtype, device=X.device)
    # Next to the identity E - V S^{-1} V_1^T cancels, and single precision would lose
    # two digits. In double it still costs a fraction of `householder_product`.
    V = double(X.tril(-1) + identity)
    gram = V.mT @ V
    S = gram.triu(1) + torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1) / 2)
    removed = V @ torch.linalg.solve_triangular(S, V[..., :k, :].mT, upper=True)
    return (identity - removed).to(X.dtype)


def reflectors(W: Tensor) -> tuple[Tensor, Tensor]:
    """Return X and signs such that ``reflections(X) * signs`` is W made orthonormal.

    That is W itself if its columns are orthonormal, and otherwise the factor Q of
    W = Q R with a positive diagonal of R. The signs are on the diagonal of X as well,
    where torch looks for them; above it there are zeros.

    Shape: ``(*batch, n, k) -> (*batch, n, k), (*batch, k)`` for n >= k, real.

    Example:
        >>> import torch
        >>> X, signs = reflectors(torch.eye(3, 2))
        >>> signs
        tensor([-1, -1], dtype=torch.int8)
    """
    # `geqrf` refuses tensors without values
    factored, tau = (W, W[..., 0, :]) if W.is_meta else torch.geqrf(W)
    signs = diagonal_signs(factored)
    # LAPACK's tau = 0 is no reflection at all; here a zero column reflects one axis.
    signs = torch.where(tau == 0, -signs, signs)
    identity = torch.eye(*W.shape[-2:], dtype=W.dtype, device=W.device)
    return factored.tril(-1) + identity * signs.unsqueeze(-2), signs


def diagonal_signs(X: Tensor) -> Tensor:
    """Return the signs of the diagonal, +1 for a zero, as int8.

    Example:
        >>> import torch
        >>> diagonal_signs(torch.diag(torch.tensor([0.5, -0.5])))
        tensor([ 1, -1], dtype=torch.int8)
    """
    signs = torch.where(X.diagonal(dim1=-2, dim2=-1) < 0, -1, 1)
    return signs.to(torch.int8)
