"""A tensor of any number of dimensions as one matrix, or as a batch of blocks."""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import InvalidTensorError
from .norms import axis

Axes = int | tuple[int, ...]


def matricize(W: Tensor, rows: Axes) -> Tensor:
    """Return W as one matrix, with the dimensions ``rows`` as its rows.

    All others are its columns, in their order. Negative ones count from the end.

    Example:
        >>> import torch
        >>> matricize(torch.zeros(2, 3, 5), 1).shape
        torch.Size([3, 10])
        >>> matricize(torch.zeros(2, 3, 5), (0, -1)).shape
        torch.Size([10, 3])
    """
    if isinstance(rows, int):
        first = W.movedim(axis(rows, W.ndim), 0)
        return first.flatten(1) if W.ndim > 1 else first.unsqueeze(1)
    shape = matricized_shape(W.shape, rows)
    return W.permute(_order(W.ndim, rows)).reshape(shape)


def tensorize(M: Tensor, shape: tuple[int, ...], rows: Axes) -> Tensor:
    """Return the tensor of a shape that `matricize` makes ``M`` of.

    Example:
        >>> import torch
        >>> M = torch.arange(6).reshape(3, 2)
        >>> torch.equal(tensorize(M, (2, 3), 1), M.T)
        True
    """
    order = _order(len(shape), rows)
    back = [order.index(i) for i in range(len(shape))]
    return M.reshape([shape[i] for i in order]).permute(back)


def matricized_shape(shape: tuple[int, ...], rows: Axes) -> tuple[int, int]:
    """Return the shape of the matrix that `matricize` makes of a tensor.

    Example:
        >>> matricized_shape((8, 3, 5, 5), 0)
        (8, 75)
    """
    order = _order(len(shape), rows)
    count = 1 if isinstance(rows, int) else len(rows)
    sizes = [shape[i] for i in order]
    return math.prod(sizes[:count]), math.prod(sizes[count:])


def stacked_shape(shape: tuple[int, ...], blocks: int, dim: int) -> tuple[int, ...]:
    """Return the shape of the batch that `stack_blocks` makes of a tensor.

    Example:
        >>> stacked_shape((12, 5), 4, 0)
        (4, 3, 5)
    """
    kept = axis(dim, len(shape))
    if blocks < 1 or shape[kept] % blocks:
        raise InvalidTensorError(
            f"Expected a dimension {dim} that {blocks} blocks divide. Got shape "
            f"{tuple(shape)}."
        )
    stacked = [*shape]
    stacked[kept] //= blocks
    stacked.insert(block_axis(len(shape)), blocks)
    return tuple(stacked)


def block_axis(ndim: int) -> int:
    """Return which dimension of a batch counts the blocks: just before the matrices.

    Example:
        >>> block_axis(2), block_axis(3)
        (0, 1)
    """
    return max(0, ndim - 2)


def stack_blocks(W: Tensor, blocks: int, dim: int) -> Tensor:
    """Return the equal blocks along a dimension as a batch, just before the matrices.

    Example:
        >>> import torch
        >>> stack_blocks(torch.arange(4), 2, 0)
        tensor([[0, 1],
                [2, 3]])
        >>> stack_blocks(torch.zeros(7, 12, 5), 4, -2).shape
        torch.Size([7, 4, 3, 5])
    """
    stacked_shape(tuple(W.shape), blocks, dim)  # refuses what cannot be split
    kept = axis(dim, W.ndim)
    split = W.unflatten(kept, (blocks, W.shape[kept] // blocks))
    return split.movedim(kept, block_axis(W.ndim))


def join_blocks(B: Tensor, dim: int) -> Tensor:
    """Return the tensor that `stack_blocks` makes a batch of.

    Example:
        >>> import torch
        >>> join_blocks(torch.tensor([[[0, 1]], [[2, 3]]]), 1)
        tensor([[0, 1, 2, 3]])
    """
    kept = axis(dim, B.ndim - 1)
    return B.movedim(block_axis(B.ndim - 1), kept).flatten(kept, kept + 1)


def _order(ndim: int, rows: Axes) -> list[int]:
    """Return all dimensions, those of the rows first."""
    given = (rows,) if isinstance(rows, int) else rows
    first = [axis(dim, ndim) for dim in given]
    if len(set(first)) < len(first):
        raise ValueError(
            f"Expected each dimension once among the rows. Got {given} for a tensor of "
            f"{ndim} dimensions, in which some are the same."
        )
    return first + [dim for dim in range(ndim) if dim not in first]
