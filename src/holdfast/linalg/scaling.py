r"""Scaling rows and columns of a positive matrix to given sums.

Note [Sinkhorn by Newton]
    :math:`W = e^{X_{ij} + f_i + g_j}` has the row sums r for the f that normalizes the
    rows; what is left is a convex function of g, whose gradient is what the columns
    miss, and whose Hessian :math:`C - W^T R^{-1} W` costs k² numbers. Newton's steps on
    it, each after a sweep of Sinkhorn's, converge in about ten where sweeps alone need
    thousands. A step's length is the best of three: the whole, one that surely descends
    (the function is self-concordant, with the spread of the step as its modulus), and
    their geometric mean. Large logits are approached by halves: the solution for X/2 is
    twice as near to that for X as nothing is.

    The derivative is that of the equations, not of the steps: with D the change of the
    logits, that of W is :math:`W \odot (D - a - b)`, a for each row and b for each
    column, such that no sum changes. This operator is symmetric, so that it is the
    gradient's as well, and nothing but W need be kept.

    Whatever precision the steps have left, `rounded` makes the sums right.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .closed_form import Tensors, closed_form
from .precision import double
from .tracing import captured, recorded

# The spread of logits at which Newton's method starts from nothing.
_START = 8.0

# Of what is left at a temperature before the last, and at the last: relative errors.
_COARSE, _FINE = 1e-2, 1e-14

_STEPS_COARSE, _STEPS_FINE = 3, 40

# Where no value may be looked at: temperatures, and steps at the last of them.
_BLIND_HALVINGS, _BLIND_STEPS = 4, 12

# Keeps the Hessian invertible where W falls apart into blocks, to double precision.
_RIDGE = 1e-15


def sinkhorn(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    r"""Return :math:`e^{X_{ij} + f_i + g_j}` with given positive row and column sums.

    See Note [Sinkhorn by Newton]. Computed in double precision, to rounding.

    Shape: ``(*batch, n, k), (*batch, n), (*batch, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> sinkhorn(
        ...     torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.ones(2), torch.ones(2)
        ... )
        tensor([[0.7311, 0.2689],
                [0.2689, 0.7311]])

    References:
        Sinkhorn, Diagonal Equivalence to Matrices with Prescribed Row and Column Sums,
        1967, https://doi.org/10.2307/2314570
    """
    L = double(X)
    r = rows.to(L.dtype).expand(L.shape[:-1])
    c = columns.to(L.dtype).expand(*L.shape[:-2], L.shape[-1])
    return _scaled(L, r, c).to(X.dtype)


class _Scaled:
    @staticmethod
    def forward(X: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor]:
        if X.shape[-1] > X.shape[-2]:  # the smaller side is solved for
            return (_scale(X.mT, columns, rows).mT,)
        return (_scale(X, rows, columns),)

    @staticmethod
    def keep(inputs: Any, outputs: Any) -> Tensors:  # noqa: ANN401
        return (outputs[0],)

    @staticmethod
    def vjp(kept: Any, needs: Any, G: Tensor) -> Tensors:  # noqa: ANN401
        return _without_sums(kept[0], G), None, None

    @staticmethod
    def jvp(kept: Any, dX: Tensor, *others: None) -> Tensors:  # noqa: ANN401
        return (_without_sums(kept[0], dX),)


_scaled = closed_form(_Scaled)


def _scale(X: Tensor, r: Tensor, c: Tensor) -> Tensor:
    g, blind = torch.zeros_like(X[..., :1, :]), recorded(X) or captured(X)
    halvings = _BLIND_HALVINGS if blind or X.numel() == 0 else _halvings(X)
    for level in range(halvings, -1, -1):
        fine = level == 0
        steps = _BLIND_STEPS if blind else _STEPS_FINE
        Y = X / 2**level
        for _ in range(steps if fine else _STEPS_COARSE):
            g, error = _step(Y, g, r, c)
            if not blind and bool((error <= (_FINE if fine else _COARSE)).all()):
                break
        g = g if fine else 2 * g
    return rounded(_with_rows(X, g, r)[0], r, c)


def _halvings(X: Tensor) -> int:
    """Return how often the logits are halved until their spread is small."""
    centred = X - X.mean(-1, keepdim=True)
    spread = float((centred - centred.mean(-2, keepdim=True)).abs().max())
    if math.isnan(spread):
        return 0  # the value is NaN as well
    return max(0, math.ceil(math.log2(min(max(spread, 1.0), 1e30) / _START)))


def _with_rows(X: Tensor, g: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrix with right rows, and the logarithms of what divides them."""
    logits = X + g
    norm = logits.logsumexp(-1, keepdim=True)
    return (logits + (r.log().unsqueeze(-1) - norm)).exp(), norm


def _step(X: Tensor, g: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return g after a sweep and a step of Newton's, and the error before the step."""
    logits = X + (r.log().unsqueeze(-1) - (X + g).logsumexp(-1, keepdim=True))
    g = c.log().unsqueeze(-2) - logits.logsumexp(-2, keepdim=True)
    W, norm = _with_rows(X, g, r)
    missing = c - W.sum(-2)
    error = (missing.abs() / c).amax(-1)
    d = _solve(W, missing)
    spread = d.amax(-1, keepdim=True) - d.amin(-1, keepdim=True)
    safe = torch.where(spread > 0, spread.log1p() / spread, 1)
    best, least = g, (r * norm.squeeze(-1)).sum(-1) - (c * g.squeeze(-2)).sum(-1)
    for length in (safe, safe.sqrt(), torch.ones_like(safe)):
        new = g + (length * d).unsqueeze(-2)
        value = (r * (X + new).logsumexp(-1)).sum(-1) - (c * new.squeeze(-2)).sum(-1)
        # at the end of the way all are equal to rounding, and the whole step is best
        better = (value <= least + least.abs() * 1e-15)[..., None, None]
        best = torch.where(better, new, best)
        least = torch.minimum(value, least)
    return best, error


def _solve(W: Tensor, right: Tensor) -> Tensor:
    """Solve with the Hessian, and with 1 in its null space."""
    r, c = W.sum(-1), W.sum(-2)
    H = torch.diag_embed((1 + _RIDGE) * c) - W.mT @ (W / r.unsqueeze(-1))
    total = c.sum(-1)[..., None, None]
    H = H + c.unsqueeze(-1) * c.unsqueeze(-2) / total
    return torch.linalg.solve_ex(H, right.unsqueeze(-1))[0].squeeze(-1)


def _without_sums(W: Tensor, D: Tensor) -> Tensor:
    """Return W ⊙ (D - a - b) with a for each row, b for each column, without sums."""
    if W.shape[-1] > W.shape[-2]:
        return _without_sums(W.mT, D.mT).mT
    r = W.sum(-1, keepdim=True)
    D = D - (W * D).sum(-1, keepdim=True) / r
    b = _solve(W, (W * D).sum(-2)).unsqueeze(-2)
    a = -(W * b).sum(-1, keepdim=True) / r
    return W * (D - a - b)


def rounded(W: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return a matrix with exactly these sums, near one that has them nearly.

    Rows, then columns that are too heavy are scaled down, and what is missing is added
    as a matrix of rank one. Nonnegative entries stay so.

    Shape: ``(*batch, n, k), (*batch, n), (*batch, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> rounded(
        ...     torch.tensor([[3.0, 1.0], [0.0, 0.0]]), torch.ones(2), torch.ones(2)
        ... )
        tensor([[0.7500, 0.2500],
                [0.2500, 0.7500]])

    References:
        Altschuler, Weed and Rigollet, Near-Linear Time Approximation Algorithms for
        Optimal Transport via Sinkhorn Iteration, 2017,
        https://arxiv.org/abs/1705.09634
    """
    W = W * _at_most(rows / W.sum(-1)).unsqueeze(-1)
    W = W * _at_most(columns / W.sum(-2)).unsqueeze(-2)
    left, right = (rows - W.sum(-1)).relu(), (columns - W.sum(-2)).relu()
    total = left.sum(-1)[..., None, None]
    share = right.unsqueeze(-2) / torch.where(total > 0, total, 1)
    return W + left.unsqueeze(-1) * share


def _at_most(ratio: Tensor) -> Tensor:
    """Return the ratio where it is below 1, and 1 for 0/0."""
    return torch.where(ratio < 1, ratio, 1)
