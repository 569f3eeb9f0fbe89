r"""Splitting a matrix into a semidefinite one of low rank and a diagonal.

Note [Communalities]
    For :math:`W = B B^H + D` with B of r columns, only the diagonal of W knows D. Cut
    the indices into three classes, with :math:`B_1, B_2, B_3` the rows of B in them.
    Blocks off the diagonal are products of these, and

    .. math::
        W_{13} W_{23}^{+} W_{21} = B_1 B_3^H (B_2 B_3^H)^{+} B_2 B_1^H = B_1 B_1^H

    where the classes have r independent rows each: so n >= 3r. This gives the diagonal
    of :math:`B B^H` without an iteration. Where W is no such matrix, or its blocks are
    ill-conditioned, some rounds of the alternating fit come after it: eigenvalues of
    W - D give B, and the diagonal of W less that of B B^H gives D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .gram_matrix import semidefinite_factor

# Singular values below this part of the largest do not count for the pseudoinverse.
_NEGLIGIBLE = 1e-10

_ROUNDS = 30


def low_rank_plus_diagonal(
    W: Tensor, rank: int, floor: float, *, rounds: int = _ROUNDS
) -> tuple[Tensor, Tensor]:
    r"""Return B and d with :math:`W \approx B B^H + \mathrm{diag}(d)`.

    Exact where W is of that form and generic, for n >= 3r; the diagonal of W is met
    always. See Note [Communalities].

    Args:
        W: a definite matrix, or a batch.
        rank: r, the number of columns of B.
        floor: d is at least ``floor`` times the diagonal of W.
        rounds: of the alternating fit; one tells whether W is of that form, about.

    Shape: ``(*batch, n, n) -> (*batch, n, r), (*batch, n)``.

    Example:
        >>> import torch
        >>> B = torch.tensor([[1.0], [2.0], [3.0]])
        >>> W = B @ B.mT + torch.diag(torch.tensor([1.0, 2.0, 3.0]))
        >>> low_rank_plus_diagonal(W, 1, 1e-7)[1]
        tensor([1.0000, 2.0000, 3.0000])

    References:
        Albert, The Matrices of Factor Analysis, 1944,
        https://doi.org/10.1073/pnas.30.4.90
    """
    diagonal = W.diagonal(dim1=-2, dim2=-1).real
    smallest = floor * diagonal
    d = torch.minimum(
        (diagonal - _communalities(W, rank)).clamp(min=smallest), diagonal
    )
    for _ in range(rounds):
        B = semidefinite_factor(W - torch.diag_embed(d).to(W.dtype), rank)
        d = torch.maximum(diagonal - _squares(B), smallest)
    # columns of zeros would have no gradient: they get what rounding allows
    least = floor * diagonal.amax(-1, keepdim=True)
    rest = W - torch.diag_embed(d - least).to(W.dtype)
    return semidefinite_factor(rest, rank), d


def _communalities(W: Tensor, rank: int) -> Tensor:
    """Return the diagonal of the part of low rank, by the blocks off the diagonal."""
    n = W.shape[-1]
    classes = [torch.arange(c, n, 3, device=W.device) for c in range(3)]
    found = W.new_zeros(W.shape[:-1], dtype=W.dtype.to_real())
    for c in range(3):
        one, two, three = (classes[(c + i) % 3] for i in range(3))
        U, values, Vh = torch.linalg.svd(_block(W, two, three), full_matrices=False)
        r = min(rank, values.shape[-1])
        kept = values[..., :r]
        counts = kept > _NEGLIGIBLE * values[..., :1]
        inverse = torch.where(counts, 1 / torch.where(counts, kept, 1), 0)
        left = _block(W, one, three) @ Vh[..., :r, :].mH * inverse.unsqueeze(-2)
        right = U[..., :r].mH @ _block(W, two, one)
        found[..., one] = (left * right.mT).sum(-1).real
    return found


def _block(W: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return W[..., rows, :][..., columns]


def _squares(B: Tensor) -> Tensor:
    return (B * B.conj()).real.sum(-1)
