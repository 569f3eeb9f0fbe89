"""Matrices with given row and column sums."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidTensorError
from ..linalg.entrywise import require_real
from ..linalg.precision import double
from ..linalg.scaling import rounded
from ..linalg.structure import require_matrix
from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled, sizes
from .interval import like

Sums = float | Tensor

# How far the two totals may be apart, relatively: marginals come in single precision.
_TOTALS = 1e-5


class TransportPolytope(Constraint):
    r"""Nonnegative matrices with given row and column sums.

    .. math::
        \{W : w_{ij} \ge 0,\ \textstyle\sum_j w_{ij} = r_i,\ \sum_i w_{ij} = c_j\}

    Without arguments, the doubly stochastic matrices: all sums are 1, and the
    permutation matrices are the corners. A matrix that is not square then has rows of
    sum 1 and columns of equal sums. Entries of zero belong to the set. The
    residual is the largest error of a sum, or the largest negative part, over the
    largest sum. Complex numbers are outside.

    Args:
        rows: the sum of each row; a tensor gives each its own.
        columns: the sum of each column, likewise. Both have to add up to the same;
            ``None`` makes them equal, and fit.
        margin: the share of the product of the sums that `project` mixes into a matrix
            that is outside. Maps that do not reach zero ask for a hundredth.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> sets.TransportPolytope().contains(torch.eye(3))
        True
        >>> sets.TransportPolytope().project(torch.zeros(2, 2))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(
        self, rows: Sums = 1.0, columns: Sums | None = None, *, margin: float = 0.0
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.margin = margin

    def residual(self, weight: Tensor) -> Tensor:
        """Return how far the sums are off, or the entries below zero."""
        if weight.ndim < 2 or weight.is_complex() or not self._fits(weight.shape):
            return filled(weight, math.inf)
        W = double(weight)
        r, c = marginals(W, self.rows, self.columns)
        off = torch.maximum(
            (W.sum(-1) - r).abs().amax(-1), (W.sum(-2) - c).abs().amax(-1)
        )
        largest = torch.maximum(r.amax(-1), c.amax(-1))
        return torch.maximum(off, (-W).amax((-2, -1)).relu()) / largest

    def _fits(self, shape: Shape) -> bool:
        sums = ((self.rows, shape[-2]), (self.columns, shape[-1]))
        return 0 not in shape[-2:] and all(
            not isinstance(x, Tensor) or x.ndim == 0 or x.shape[-1] in (1, size)
            for x, size in sums
        )

    def project(self, weight: Tensor) -> Tensor:
        """Return a matrix in the set at most five times as far as the nearest one.

        In the sum of moduli. Negative entries become zero, what is too heavy is scaled
        down, and what is missing is added as a matrix of rank one.
        """
        check_marginals(weight, self.rows, self.columns)
        W = double(weight).relu()
        r, c = marginals(W, self.rows, self.columns)
        P = rounded(W, r, c)
        outside = (self.residual(weight) > tolerance(weight))[..., None, None]
        mixed = P + self.margin * (_product(r, c) - P)
        return torch.where(outside, mixed, P).to(weight.dtype)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the product of the sums, perturbed by lognormal factors."""
        check_marginals(normal, self.rows, self.columns)
        r, c = marginals(double(normal), self.rows, self.columns)
        return rounded(_product(r, c) * double(normal).exp(), r, c).to(normal.dtype)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return :math:`(n - 1)(k - 1)`, of the rows and columns that are not zero."""
        sizes(shape)
        check_shape(torch.empty(shape, device="meta"), self.rows, self.columns)
        free = torch.ones(shape[:-2], dtype=torch.long)
        for sums, size in ((self.rows, shape[-2]), (self.columns, shape[-1])):
            positive = (torch.as_tensor(1.0 if sums is None else sums) > 0).expand(
                *shape[:-2], size
            )
            free = free * (positive.sum(-1).cpu() - 1).relu()
        return int(free.sum())


def marginals(W: Tensor, rows: Sums, columns: Sums | None) -> tuple[Tensor, Tensor]:
    """Return the sums of the rows and of the columns, with one total."""
    r = like(rows, W).expand(W.shape[:-1])
    c = like(1.0 if columns is None else columns, W).expand(*W.shape[:-2], W.shape[-1])
    ratio = r.sum(-1, keepdim=True) / c.sum(-1, keepdim=True)
    return r, c * ratio


def _product(r: Tensor, c: Tensor) -> Tensor:
    """Return the matrix of rank one with these sums."""
    return r.unsqueeze(-1) * (c / r.sum(-1, keepdim=True)).unsqueeze(-2)


def check_shape(weight: Tensor, rows: Sums, columns: Sums | None) -> None:
    """Refuse what is no real matrix with as many rows and columns as there are sums."""
    require_real(weight)
    require_matrix(weight)
    batch, (n, k) = weight.shape[:-2], weight.shape[-2:]
    for what, sums, size in (("row", rows, n), ("column", columns, k)):
        shape = tuple(sums.shape) if isinstance(sums, Tensor) else ()
        fits = len(shape) <= weight.ndim - 1 and all(
            a in (1, b) for a, b in zip(shape[::-1], (*batch, size)[::-1], strict=False)
        )
        if size == 0 or not fits:
            raise InvalidTensorError(
                f"Expected one sum for each {what} of a matrix of shape "
                f"{tuple(weight.shape)}. Got {what}s of shape {shape}."
            )


def check_marginals(weight: Tensor, rows: Sums, columns: Sums | None) -> None:
    """Refuse sums that no nonnegative matrix has."""
    check_shape(weight, rows, columns)
    n, k = weight.shape[-2:]
    r, c = (torch.as_tensor(1.0 if x is None else x) for x in (rows, columns))
    if r.is_meta or c.is_meta:
        return
    if not bool((r >= 0).all() and (c >= 0).all()):
        raise InvalidTensorError("Expected nonnegative row and column sums.")
    total = r.double().expand(*r.shape[:-1], n).sum(-1)
    fits = c.double().expand(*c.shape[:-1], k).sum(-1)
    other = total if columns is None else fits
    if not bool(((total - other).abs() <= _TOTALS * total).all() and (total > 0).all()):
        raise InvalidTensorError(
            "Expected row and column sums with the same positive total. Got "
            f"{float(total.max()):.6g} in {n} rows, {float(other.max()):.6g} in {k} "
            "columns. For a matrix that is not square, say, 1/n and 1/k."
        )
