"""A map for each of the equal blocks of a tensor: gates, heads, groups."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..core.checks import as_tuple
from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..linalg.matricization import block_axis, join_blocks, stack_blocks
from ..linalg.tolerances import tolerance
from ..sets import combinators as sets
from ..sets.constraint import Constraint
from .around import Around, originals_of


class PerBlock(Around):
    r"""A map for each of the equal blocks that follow each other along a dimension.

    .. math::
        (X_1, \ldots, X_b) \mapsto (\varphi(X_1), \ldots, \varphi(X_b))

    The gates of an LSTM are 4 blocks of ``weight_hh_l0``, those of a GRU 3, queries,
    keys and values 3 of ``in_proj_weight``, and its heads 3 times their number. The
    blocks are one batch, which is evaluated at once, and so the map must treat leading
    dimensions as batches; registering compares a block of the batch with a single one,
    and refuses a map that does not, such as `SpectralNorm`, which takes all blocks for
    one matrix. Originals, and buffers such as base points, are those of the map for the
    batch: for most maps ``(*batch, b, n / b, k)``. The right inverse is exact where
    that of the map is. Costs one evaluation of the map for the batch, and nothing more
    along the rows; two copies along the columns.

    Args:
        map: the map of one block.
        blocks: their number b, which divides the dimension.
        dim: the dimension; negative ones count from the end.

    Shape:
        as the map's for ``(*batch, b, n / b, k) -> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> rnn, map_ = torch.nn.LSTM(2, 3), maps.PerBlock(maps.Orthogonal(), blocks=4)
        >>> rnn = holdfast.register_parametrization(rnn, "weight_hh_l0", map_)
        >>> for W in rnn.weight_hh_l0.chunk(4):
        ...     print(torch.allclose(W @ W.T, torch.eye(3), atol=1e-6))
        True
        True
        True
        True
    """

    foreach = "vmap"

    def __init__(self, map: Parametrization, blocks: int = 4, dim: int = 0) -> None:
        super().__init__()
        self.map = map
        self.blocks = blocks
        self.dim = dim

    def _made(self, constraint: Constraint) -> Constraint:
        return sets.per_block(constraint, self.blocks, self.dim)

    _taken = _made

    def _inward(self, weight: Tensor) -> Tensor:
        return stack_blocks(weight, self.blocks, self.dim).contiguous()

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        return join_blocks(value, self.dim).contiguous()

    def _check(self, weight: Tensor) -> None:
        """Refuse a map that does not take the blocks for a batch."""
        if weight.is_meta or not weight.numel():
            return
        stacked, axis = self._inward(weight), block_axis(weight.ndim)
        single, first = copy.deepcopy(self.map), stacked.select(axis, 0)
        single.bind(first)
        generator = torch.Generator(weight.device).manual_seed(0)
        drawn = [
            torch.empty_like(x).normal_(generator=generator)
            for x in _originals(self.map, stacked)
        ]
        wanted = [x.shape for x in _originals(single, first)]
        alone = [x.select(axis, 0) for x in drawn if x.ndim > axis]
        if [x.numel() for x in alone] == [shape.numel() for shape in wanted]:
            value = copy.deepcopy(self.map).eval()(*drawn).select(axis, 0)
            shaped = (x.reshape(shape) for x, shape in zip(alone, wanted, strict=True))
            expected = single.eval()(*shaped)
            off = torch.linalg.vector_norm(value - expected)
            limit = tolerance(weight) ** 0.5 * torch.linalg.vector_norm(expected)
            if bool(off <= limit):
                return
        raise InvalidTensorError(
            f"`{type(self.map).__name__}` does not treat the {self.blocks} blocks as a "
            "batch: the first one has another value among the others than by itself. "
            "`PerBlock` takes maps that compute with the last dimensions only; "
            "`Concatenated` takes one of any kind for each block."
        )


def _originals(map_: Parametrization, value: Tensor) -> tuple[Tensor, ...]:
    """Return originals of a value, or of what is next to it, from a copy of the map."""
    twin = copy.deepcopy(map_)
    if not twin.codomain.contains(value):
        value = twin.codomain.project(value)
    return as_tuple(originals_of(twin, value))
