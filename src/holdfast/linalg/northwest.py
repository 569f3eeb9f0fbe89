r"""All matrices with given row and column sums, an entry after the other.

Note [Two by two]
    An entry w, what lies east of it in its row, south of it in its column, and
    south-east of both are a table of two by two, whose sums are known once the entries
    above and to the left are: w may be anything between two bounds, and what is free of
    the other three is the same amount less. All four are sums of what cannot be
    negative, so nothing is lost by cancellation. An entry needs its left and its upper
    neighbour only: the entries of an antidiagonal are computed at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .entrywise import logit


def northwest(X: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    r"""Return the matrix of given sums with the coordinates X.

    Each entry divides the interval that the entries before it leave like
    :math:`\sigma(x)` divides 1. See Note [Two by two].

    Shape: ``(*batch, n - 1, k - 1), (*batch, n), (*batch, k) -> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> northwest(torch.zeros(1, 1), torch.ones(2), torch.ones(2))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    batch, n, k = X.shape[:-2], X.shape[-2] + 1, X.shape[-1] + 1
    rows, columns = rows.expand(*batch, n), columns.expand(*batch, k)
    if n == 1 or k == 1:
        forced = columns.unsqueeze(-2) if n == 1 else rows.unsqueeze(-1)
        return forced + X.sum((-2, -1), keepdim=True)  # nothing, but a part of graphs
    order, lengths = _diagonals(n - 1, k - 1, X.device)
    logits = X.flatten(-2)[..., order]
    entries, east, south, corner = _sweep(logits, rows, columns, lengths)
    W = entries[..., order.argsort()].unflatten(-1, (n - 1, k - 1))
    W = torch.cat([W, east.unsqueeze(-1)], -1)
    return torch.cat([W, torch.cat([south, corner], -1).unsqueeze(-2)], -2)


def _diagonals(n: int, k: int, device: torch.device) -> tuple[Tensor, list[int]]:
    """Return where the entries of the antidiagonals lie, and how many each has."""
    rows = torch.arange(n, device=device).unsqueeze(-1)
    diagonals = rows + torch.arange(k, device=device)
    order = (diagonals * n + rows).flatten().argsort()
    return order, [min(d + 1, n, k, n + k - 1 - d) for d in range(n + k - 1)]


def _sweep(
    logits: Tensor, rows: Tensor, columns: Tensor, lengths: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the entries, the last column, the last row and their corner."""
    n, k = rows.shape[-1] - 1, columns.shape[-1] - 1
    below, after = _suffix_sums(rows), _suffix_sums(columns)
    # of each entry of a diagonal, from the top: what is left in its row and column,
    # in the rows below it and in the columns after it
    row, column = rows[..., :1], columns[..., :1]
    under, beyond = below[..., 1:2], after[..., 1:2]
    entries, last_column, last_row = [], [], []
    for d, x in enumerate(logits.split(lengths, -1)):
        w, east, south, rest = _table(x, row, column, under, beyond)
        entries.append(w)
        m = lengths[d]
        starts, ends = d + 1 < k, d + 1 < n  # a new column at the top, a new row below
        if not starts:
            last_column.append(east[..., :1])
        if not ends:
            last_row.append(south[..., -1:])
        low, high = 0 if starts else 1, m if ends else m - 1
        row, under = east[..., low:], rest[..., low:]
        column, beyond = south[..., :high], rest[..., :high]
        if starts:
            column = torch.cat([columns[..., d + 1 : d + 2], column], -1)
            beyond = torch.cat([after[..., d + 2 : d + 3], beyond], -1)
        if ends:
            row = torch.cat([row, rows[..., d + 1 : d + 2]], -1)
            under = torch.cat([under, below[..., d + 2 : d + 3]], -1)
    parts = (entries, last_column, last_row)
    return *(torch.cat(part, -1) for part in parts), rest  # pyright: ignore[reportPossiblyUnboundVariable, reportReturnType]


def _table(
    x: Tensor, row: Tensor, column: Tensor, under: Tensor, beyond: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return an entry, what is east, south and south-east. See Note [Two by two]."""
    free = torch.minimum(torch.minimum(row, column), torch.minimum(under, beyond))
    taken, left = x.sigmoid() * free, (-x).sigmoid() * free
    wide, high = row - beyond, row - column
    return (
        wide.relu() + taken,
        high.relu() + left,
        (-high).relu() + left,
        (-wide).relu() + taken,
    )


def northwest_inverse(W: Tensor, eps: float) -> Tensor:
    """Return the coordinates of a matrix, all at once.

    An entry on a bound counts as ``eps`` of its interval away from it; where the
    interval is a point, the coordinate is zero.

    Shape: ``(*batch, n, k) -> (*batch, n - 1, k - 1)``.

    Example:
        >>> import torch
        >>> northwest_inverse(torch.full((2, 2), 0.5), 1e-7)
        tensor([[0.]])
    """
    east = _suffix_sums(W)[..., 1:]
    south = _suffix_sums(W.mT)[..., 1:].mT
    rest = _suffix_sums(south)[..., 1:]
    n, k = W.shape[-2] - 1, W.shape[-1] - 1
    w, east, south, rest = (
        part[..., :n, :k] for part in (W, east[..., :k], south, rest)
    )
    return logit(torch.minimum(w, rest), torch.minimum(east, south), eps)


def _suffix_sums(x: Tensor) -> Tensor:
    """Return the sums from each entry on along the last dimension."""
    return x.flip(-1).cumsum(-1).flip(-1)
