"""The exponential of skew matrices by polynomials, and its derivatives.

The polynomials are in `linalg/programs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .products import accumulate_product, add_product, add_to_diagonal
from .programs import DOUBLE, SINGLE, Program, Row, Step

# Halvings where the host may not look at the norm: its bound may be 2867 in single
# precision, 2048 in double. What is larger becomes NaN there. All matrices are halved
# so often, for D keeps its digits however small it is, and to choose between two
# matrices at each squaring costs more than the squarings that are not needed.
_FIXED = 10


@dataclass(frozen=True)
class Plan:
    """Which program, and how many squarings follow.

    If they are ``equal`` for all of a batch, the program itself halves its argument.
    """

    program: Program
    squarings: int
    equal: bool


# Made here, because the compiler does not trace a cache.
_FIXED_PLANS = [
    Plan(programs[-1].halved(_FIXED), _FIXED, equal=True)
    for programs in (SINGLE, DOUBLE)
]


class Evaluation(NamedTuple):
    """An exponential with what its reverse sweep needs."""

    value: Tensor
    plan: Plan
    halvings: Tensor  # by matrix, (*batch)
    tensors: tuple[Tensor, ...]  # the factors of the products


def combine(coefficients: Sequence[float], basis: Sequence[Tensor]) -> Tensor:
    """Return a linear combination; the tensor itself for a single coefficient 1."""
    terms = [(c, basis[i]) for i, c in enumerate(coefficients) if c]
    terms.sort(key=lambda term: term[0] != 1)  # ones first: nothing to multiply
    (c, total), *rest = terms
    if c != 1:
        total = total * c
    elif rest:
        (c, B), *rest = rest
        total = torch.add(total, B, alpha=c)
    for c, B in rest:
        total = torch.add(total, B, alpha=c)
    return total


def evaluate(A: Tensor, *, fixed: bool) -> Evaluation:
    """Return the exponential of a skew matrix by the program that its norm allows.

    Args:
        A: skew, or skew-Hermitian, ``(*batch, n, n)``.
        fixed: do the same work whatever the values are, so that they stay on the
            device and the operations can be traced.
    """
    wide = A.dtype in (torch.float64, torch.complex128)
    programs = DOUBLE if wide else SINGLE
    square = A @ A
    basis, bound = [A, square], _bound(square, 2)
    for program in programs[-1:] if fixed else programs:
        for degree in program.degrees[len(basis) :]:
            X, Y = _factors(program.steps[len(basis) - 1], basis)
            basis.append(X @ Y)
            bound = torch.minimum(bound, _bound(basis[-1], degree))
        if not fixed and _range(bound)[1] <= program.limit:
            return _run(Plan(program, 0, equal=True), bound, basis)
    bound = torch.minimum(bound, square.detach().abs().sum(-1).amax(-1).sqrt())
    program = programs[-1]
    if fixed:
        too_large = bound > program.limit * 2**_FIXED
        basis[0] = A.masked_fill(too_large[..., None, None], math.nan)
        return _run(_FIXED_PLANS[wide], bound, basis)
    plan, halvings = _halved(program, bound)
    return _run(plan, halvings, basis)


def _halved(program: Program, bound: Tensor) -> tuple[Plan, Tensor]:
    """Return how often to halve each matrix."""
    halvings = (bound / program.limit).log2().ceil().clamp_min(0)
    halvings = halvings.nan_to_num(0, 0, 0)  # the value is NaN without halving
    fewest, most = _range(halvings)
    if fewest == most:
        return Plan(program.halved(int(most)), int(most), equal=True), halvings
    return Plan(program, int(most), equal=False), halvings


def _range(values: Tensor) -> tuple[float, float]:
    """Return the least and the largest, as numbers."""
    if values.ndim == 0:
        value = float(values)
        return value, value
    if values.numel() == 0:
        return 0.0, 0.0
    least, largest = values.aminmax()
    return float(least), float(largest)


def _bound(power: Tensor, degree: int) -> Tensor:
    """Return an upper bound on the spectral norm of a skew A, from a power of it.

    The singular values of a real A come in pairs, so that ``2 s^(2k) <= ||A^k||_F^2``.
    """
    norm = torch.linalg.vector_norm(power.detach(), dim=(-2, -1))
    if not power.is_complex():
        norm = norm / math.sqrt(2)
    return norm.sqrt() if degree == 2 else norm.pow(1 / degree)


def _scale(halvings: Tensor) -> Tensor:
    return torch.exp2(-halvings)[..., None, None]


def _run(plan: Plan, halvings: Tensor, basis: list[Tensor]) -> Evaluation:
    """Evaluate the program, given the first powers of A."""
    if not plan.equal:
        scale, degrees = _scale(halvings), plan.program.degrees
        basis = [B * scale ** degrees[i] for i, B in enumerate(basis)]
    tensors: list[Tensor] = []
    for m, step in enumerate(plan.program.steps):
        X, Y = _factors(step, basis)
        tensors += [] if X is basis[0] else [X]
        tensors += [] if Y is basis[0] or Y is X else [Y]
        if m + 1 >= len(basis):
            basis.append(_product(step, basis, X, Y))
    D = basis[-1]
    for j in range(plan.squarings):
        tensors.append(D)
        squared = add_product(D, D, D, beta=2)
        D = squared if plan.equal else _where(halvings > j, squared, D)
    return Evaluation(add_to_diagonal(D, 1), plan, halvings, tuple(tensors))


def _factors(step: Step, basis: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    X = combine(step.left, basis)
    return X, X if step.left == step.right else combine(step.right, basis)


def _product(step: Step, basis: Sequence[Tensor], X: Tensor, Y: Tensor) -> Tensor:
    return add_product(combine(step.added, basis), X, Y) if step.added else X @ Y


def _where(mask: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    return torch.where(mask[..., None, None], X, Y)


def gradient(
    A: Tensor, G: Tensor, plan: Plan, halvings: Tensor, tensors: Sequence[Tensor]
) -> Tensor:
    r"""Return the skew gradient, by a sweep back through the program.

    A product Z = X Y costs two, :math:`\bar X = \bar Z Y^H` and
    :math:`\bar Y = X^H \bar Z`. The square of an odd power Y costs one: of its gradient
    only the symmetric part S matters, and of :math:`-(S Y + Y S)` any matrix that has
    the same skew part, -2 S Y. Nothing is scaled to the size of G, so that its scale
    changes no digit.

    Args:
        A: the matrix.
        G: the gradient of the exponential.
        plan: as evaluated.
        halvings: as evaluated.
        tensors: as evaluated.
    """
    scale = 1.0 if plan.equal else _scale(halvings)
    A = A if plan.equal else A * scale
    saved = list(tensors)
    for j in reversed(range(plan.squarings)):
        D = saved.pop().mH
        swept = add_product(add_product(G, D, G, beta=2), G, D)
        G = swept if plan.equal else _where(halvings > j, swept, G)
    steps = plan.program.steps
    sums = [_Sum([], []) for _ in range(len(steps) + 1)]
    sums[-1].terms.append((1.0, G))
    for m in reversed(range(len(steps))):
        added, left, right = steps[m]
        G = sums[m + 1].total()
        Y = A if right == (1.0,) else saved.pop()
        if left != right:
            _spread(sums, right, saved.pop().mH, G)
            _spread(sums, left, G, Y.mH)
        elif _is_unit(left):
            _spread(sums, left, _transposed(G).add_(G), Y.mH)
        else:
            _spread(sums, left, add_product(G @ Y.mH, Y.mH, G))
        _spread(sums, added, G)
    slope = sums[0].total()
    return _transposed(slope).sub_(slope).mul_(scale / -2)


def _transposed(X: Tensor) -> Tensor:
    """Return a copy, to be changed in place; faster than reading X in two orders."""
    return X.mH.clone(memory_format=torch.contiguous_format)


class _Sum(NamedTuple):
    """Multiples of tensors and products of two, to be added up."""

    terms: list[tuple[float, Tensor]]
    products: list[tuple[Tensor, Tensor]]

    def total(self) -> Tensor:
        products = self.products
        if len(self.terms) < 2 and products:  # nothing of our own to add to
            (X, Y), *products = products
            self.terms.append((1.0, X @ Y))
        total = combine(*zip(*self.terms, strict=True))  # pyright: ignore
        for X, Y in products:
            total = accumulate_product(total, X, Y)
        return total


def _is_unit(row: Row) -> bool:
    return row[-1] == 1 and not any(row[:-1])


def _spread(sums: list[_Sum], row: Row, X: Tensor, Y: Tensor | None = None) -> None:
    """Add multiples of X, or of X Y, to the gradients of the basis."""
    if Y is not None and _is_unit(row):
        sums[len(row) - 1].products.append((X, Y))
        return
    G = X if Y is None else X @ Y
    for i, c in enumerate(row):
        if c:
            sums[i].terms.append((c, G))


def derivative(A: Tensor, H: Tensor, plan: Plan, halvings: Tensor) -> Tensor:
    """Return the derivative of the exponential at A in any direction H.

    It is made of ordinary operations, differentiable to every order, and costs three
    times the value. Its adjoint is the same function at ``A.mH``.
    """
    if not plan.equal:
        scale = _scale(halvings)
        A, H = A * scale, H * scale
    basis, slopes = [A], [H]
    for step in plan.program.steps:
        (X, Y), (dX, dY) = _factors(step, basis), _factors(step, slopes)
        basis.append(_product(step, basis, X, Y))
        slopes.append(add_product(_product(step, slopes, dX, Y), X, dY))
    D, dD = basis[-1], slopes[-1]
    for j in range(plan.squarings):
        squared = add_product(D, D, D, beta=2)
        moved = add_product(add_product(dD, D, dD, beta=2), dD, D)
        if not plan.equal:
            squared = _where(halvings > j, squared, D)
            moved = _where(halvings > j, moved, dD)
        D, dD = squared, moved
    return dD
