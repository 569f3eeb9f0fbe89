"""The gradient of the exponential of skew matrices, from what its value left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .chebyshev import chosen, scale
from .products import accumulate_product, add_product, product
from .programs import CUBE, Plan, Row
from .structure import difference_


def sweep(
    A: Tensor, G: Tensor, plan: Plan, halvings: Tensor | None, tensors: Sequence[Tensor]
) -> Tensor:
    r"""Return a gradient whose skew part is right, by a sweep back through the program.

    A product Z = X Y costs two, :math:`\bar X = \bar Z Y^H` and
    :math:`\bar Y = X^H \bar Z`. The square of an odd power Y costs one: of its gradient
    only the symmetric part S matters, and of :math:`-(S Y + Y S)` any matrix that has
    the same skew part, -2 S Y. The cube adds one to it. Nothing is scaled to the size
    of G, so that its scale changes no digit.

    Args:
        A: the matrix.
        G: the gradient of the exponential.
        plan: as evaluated.
        halvings: as evaluated.
        tensors: as evaluated.
    """
    factor = None if plan.equal else scale(halvings)
    A = A if factor is None else A * factor
    saved = list(tensors)
    for j in reversed(range(plan.squarings)):
        D = saved.pop().mH
        swept = add_product(add_product(G, D, G, beta=2), G, D)
        G = swept if plan.equal else chosen(halvings, j, swept, G)
    steps = plan.program.steps
    sums: list[Tensor | None] = [None] * len(steps)
    for m in reversed(range(len(steps))):
        added, left, right = steps[m]
        if steps[m] == CUBE:
            G = _before_cube(sums, G, A)
            break
        Y = A if right == (1.0,) else saved.pop()
        if left != right:
            _add_product(sums, right, saved.pop().mH, G)
            _add_product(sums, left, G, Y.mH)
        elif _is_unit(left):
            _add_product(sums, left, _transposed(G).add_(G), Y.mH)
        else:
            _add(sums, left, accumulate_product(product(G, Y.mH), Y.mH, G))
        _add(sums, added, G, ours=m + 1 < len(steps))
        last = sums.pop()
        assert last is not None
        G = last
    return G if factor is None else G * factor


def _before_cube(sums: Sequence[Tensor | None], cube: Tensor, A: Tensor) -> Tensor:
    """Return the gradient of A from those of its first three powers, by two products.

    The gradient of the cube counts by its skew part K, as that of A³ is, and is then
    :math:`K A^2 + A K A + A^2 K`, the skew part of :math:`(2 P + P^H) A^H` for
    :math:`P = K A^H`. So it takes part in the product that the square has anyway.
    """
    first, square = sums
    assert first is not None
    assert square is not None
    P = product(difference_(cube), A.mH)  # twice that
    square.add_(P, alpha=0.5)
    even = _transposed(square).add_(square).add_(P, alpha=0.5)
    return accumulate_product(first, even, A.mH)


def _transposed(X: Tensor) -> Tensor:
    """Return a copy, to be changed in place; faster than reading X in two orders."""
    return X.mH.clone(memory_format=torch.contiguous_format)


def _is_unit(row: Row) -> bool:
    return row[-1] == 1 and not any(row[:-1])


def _add_product(sums: list[Tensor | None], row: Row, X: Tensor, Y: Tensor) -> None:
    """Add multiples of X Y to the gradients of the basis."""
    last = sums[len(row) - 1]
    if _is_unit(row) and last is not None:
        sums[len(row) - 1] = accumulate_product(last, X, Y)
    else:
        _add(sums, row, product(X, Y))


def _add(sums: list[Tensor | None], row: Row, G: Tensor, *, ours: bool = True) -> None:
    """Add multiples of G to the gradients of the basis; it may become one if ours.

    Memory that was just in use is much quicker than new one.
    """
    rest: list[tuple[int, float]] = []
    for i, c in enumerate(row):
        total = sums[i]
        if total is not None and c:
            total.add_(G, alpha=c)
        elif c:
            rest.append((i, c))
    for place, (i, c) in enumerate(rest):
        own = ours and place + 1 == len(rest)
        sums[i] = (G if c == 1 else G.mul_(c)) if own else G * c
