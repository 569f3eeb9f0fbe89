"""Products of Householder reflections, in the convention of LAPACK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .closed_form import Tensors, closed_form
from .orthonormal import polish
from .precision import double, full_precision
from .products import add_to_diagonal
from .reflecting import (
    Block,
    apply_block,
    base_gradient,
    block_gradient,
    block_tangent,
    parallel,
)
from .structure import lower

# More reflections than this are halved.
_REFLECTIONS = 96


class _Reflections:
    """The product for a lower triangle, around a base.

    Behind the value are V; of the blocks from left to right all T, all W, and what
    each but the last is applied to; and U of the first, if there is a base.
    """

    @staticmethod
    def forward(X: Tensor, base: Tensor | None) -> tuple[Tensor, ...]:
        V = lower(X.clone(memory_format=torch.contiguous_format), -1)
        V = add_to_diagonal(V, 1)
        if not parallel(V):
            return _by_blocks(V, base)
        if V.dtype == torch.float32:
            wide = _by_blocks(double(V), None if base is None else double(base))
            return tuple(X.to(V.dtype) for X in wide)
        Q, *others = _by_blocks(V, base)
        Q = polish(Q if base is None else _by_blocks(V, None)[0], 1)
        return Q if base is None else base @ Q, *others

    @staticmethod
    def keep(inputs: tuple[Tensor, Tensor | None], outputs: Any) -> Tensors:  # noqa: ANN401
        return inputs[1], *outputs[1:]

    @staticmethod
    def vjp(
        kept: Sequence[Any], needs: tuple[bool, bool], G: Tensor, *others: Tensor | None
    ) -> Tensors:
        base, V, *rest = kept
        gV, *grads = others
        blocks = _blocks(base, V, rest)
        gU = None if base is None else grads[-1]
        gbase = base_gradient(blocks[0], G, gU) if needs[1] else None
        columns: list[Tensor] = []
        for block, (gT, gW, gY) in zip(blocks, _by_block(grads, V), strict=True):
            part, below = block_gradient(block, G, gT, gW, gU)
            columns.append(pad(part, (0, 0, V.shape[-2] - part.shape[-2], 0)))
            gU = None
            if below is not None:
                G = below if gY is None else below + gY
        gX = torch.cat(columns, -1)
        return lower(gX if gV is None else gX + gV, -1), gbase

    @staticmethod
    def jvp(kept: Sequence[Any], dX: Tensor | None, dbase: Tensor | None) -> Tensors:
        base, V, *rest = kept
        dV = torch.zeros_like(V) if dX is None else dX.tril(-1)
        blocks, columns = _blocks(base, V, rest), _columns(dV)
        found: list[tuple[Tensor, ...]] = []
        dY: Tensor | None = None
        for block, part in zip(reversed(blocks), reversed(columns), strict=True):
            at_base = dbase if block is blocks[0] else None
            found.insert(0, block_tangent(block, part, dY, at_base))
            dY = found[0][0]
        return _arranged(dV, found, base)


_reflections = closed_form(_Reflections)


def reflections(X: Tensor, base: Tensor | None = None) -> Tensor:
    r"""Return the first k columns of :math:`B H_1 \cdots H_k`.

    The reflection :math:`H_j = I - 2 v_j v_j^T / \|v_j\|^2` has the entries of column
    j of ``X`` below the diagonal, a one on it and zeros above. What ``X`` has on and
    above its diagonal is not read. With :math:`V = [v_1 \cdots v_k]`, its upper square
    block :math:`V_1`, and :math:`S` the upper triangle of :math:`V^T V` with half the
    diagonal,

    .. math::
        H_1 \cdots H_k E = E - V S^{-1} V_1^T.

    Without a base, B is the identity. Costs about 4nk² operations, and 6nk² for the
    gradient; a base costs 2n²k and as much again. On CUDA all is done in double. See
    Note [Blocks of reflections] in `linalg/reflecting.py`.

    Shape: ``(*batch, n, k), (*batch, n, n) -> (*batch, n, k)`` for n >= k, real; the
        base may lack leading dimensions.

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
    if base is not None:
        base = base.expand(*X.shape[:-2], *base.shape[-2:])
    return _reflections(X, base)


def _by_blocks(V: Tensor, base: Tensor | None) -> tuple[Tensor, ...]:
    """Return the outputs of the rule."""
    found: list[tuple[Tensor, ...]] = []
    Y: Tensor | None = None
    columns = _columns(V)
    for i in reversed(range(len(columns))):
        found.insert(0, apply_block(columns[i], Y, None if i else base))
        Y = found[0][0]
    return _arranged(V, found, base)


def _arranged(
    V: Tensor, found: list[tuple[Tensor, ...]], base: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the outputs for Q, T, W and U of each block."""
    (Q, *Y), T, W, U = zip(*found, strict=True)
    return Q, V, *T, *W, *Y, *(() if base is None else U[:1])


def _by_block(values: Sequence[Any], V: Tensor) -> Iterator[tuple[Any, Any, Any]]:
    """Return T, W and Y of each block, or what there is for them."""
    c = len(_widths(V.shape[-1]))
    T, W, Y = values[:c], values[c : 2 * c], values[2 * c : 3 * c - 1]
    return zip(T, W, [*Y, None], strict=True)


def _blocks(base: Tensor | None, V: Tensor, rest: Sequence[Any]) -> list[Block]:
    blocks: list[Block] = []
    for part, (T, W, Y) in zip(_columns(V), _by_block(rest, V), strict=True):
        outer = base is not None and not blocks
        U = rest[-1] if outer else part
        blocks.append(Block(part, Y, base if outer else None, T, W, U))
    return blocks


def _widths(k: int) -> list[int]:
    """Return how many reflections each block has: halves, and of the rest again."""
    return [k] if k <= _REFLECTIONS else [k // 2, *_widths(k - k // 2)]


def _columns(V: Tensor) -> list[Tensor]:
    """Return the vectors of each block, without the zeros above."""
    columns: list[Tensor] = []
    n, start = V.shape[-2], 0
    for part in V.split(_widths(V.shape[-1]), -1):
        columns.append(part.split([start, n - start], -2)[1])
        start += part.shape[-1]
    return columns


@full_precision
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
