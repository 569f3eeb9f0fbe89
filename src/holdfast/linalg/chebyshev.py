"""The exponential of skew matrices by polynomials, and its derivative.

The polynomials are in `linalg/programs.py`, the gradient is in `linalg/sweeping.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .moments import (
    Moments,
    Number,
    bound,
    higher,
    moments,
    second_moment,
    within,
)
from .precision import double
from .products import accumulate_product, add_product, product
from .programs import CUBE, DOUBLE, FIXED, SINGLE, Plan, Program, Row, Step
from .tracing import traced
from .unitarity import repaired, rounded_alike

# The root of the mean squared singular value, in norms, up to which it is tried whether
# a smaller program will do.
_SHARE = 0.75

# In single precision, what so many squarings have made of rounding errors is mended.
_MANY = 2

# From this size on, what is rounded alike adds up without a squaring, too.
_LARGE = 256


class Evaluation(NamedTuple):
    """An exponential with what its reverse sweep needs."""

    value: Tensor  # less the identity
    plan: Plan
    halvings: Tensor | None  # by matrix, (*batch); None, if there are none
    tensors: tuple[Tensor, ...]  # the factors of the products


def combine(coefficients: Row, basis: Sequence[Tensor]) -> Tensor:
    """Return a linear combination; the tensor itself for a single coefficient 1."""
    terms = [(c, basis[i]) for i, c in enumerate(coefficients) if c]
    if terms[-1][0] == 1:  # nothing to multiply
        terms.insert(0, terms.pop())
    (c, total), *rest = terms
    if c != 1:
        total = total * c
    elif rest:
        (c, B), *rest = rest
        total = torch.add(total, B, alpha=c)
    over = rest and not torch.is_grad_enabled() and not traced(total)
    for c, B in rest:
        total = total.add_(B, alpha=c) if over else torch.add(total, B, alpha=c)
    return total


def evaluate(A: Tensor, *, fixed: bool) -> Evaluation:
    """Return exp(A) - I for a skew A, by the program that its norm allows.

    Args:
        A: skew, or skew-Hermitian, ``(*batch, n, n)``.
        fixed: do the same work whatever the values are, so that they stay on the
            device and the operations can be traced.
    """
    wide = A.dtype in (torch.float64, torch.complex128)
    *smaller, largest = DOUBLE if wide else SINGLE
    basis = [A, product(A, A)]
    if fixed:
        return _the_same_for_all(FIXED[wide], basis)
    second = second_moment(basis[1])
    if enough := _enough(smaller, second):
        return _run(Plan(enough, 0, equal=True), None, basis)
    known = moments(basis[1], second)
    if value := _by_one_of(smaller, basis, known):
        return value
    basis = _extended(basis, largest)
    found = higher(known, basis, largest.steps[1].right)
    if _all(within(found, largest.limit)):
        plan, halvings, smallest = Plan(largest, 0, equal=True), None, _LARGE
    else:
        (plan, halvings), smallest = _halved(largest, basis, found), 0
    whole = _run(plan, halvings, basis)
    if wide or A.shape[-1] < smallest or not rounded_alike(whole.value, A):
        return whole
    return whole._replace(value=repaired(double(whole.value)).to(A.dtype))


def _the_same_for_all(plan: Plan, basis: list[Tensor]) -> Evaluation:
    """Evaluate a plan whatever the norms are; NaN for what is too large for it."""
    A, *powers = _extended(basis, plan.program)
    limit = plan.program.limit * 2**plan.squarings
    too_large = _norms(plan.program, [A, *powers]) > limit
    A = A.masked_fill(too_large[..., None, None], math.nan)
    return _run(plan, None, [A, *powers])


def _enough(programs: Sequence[Program], second: Number) -> Program | None:
    """Return the first one that a quick look at A² allows, if there is one."""
    if isinstance(second, Tensor):
        second = float(second.max()) if second.numel() else 0.0
    told = (program for program in programs if program.known == 2)
    return next((p for p in told if second <= p.limit**4), None)


def _by_one_of(
    programs: Sequence[Program], basis: list[Tensor], known: Moments
) -> Evaluation | None:
    """Evaluate the first program that a close look allows, if there is one."""
    for program in programs:
        more, found = basis, known
        if program.known > len(basis):
            if not _all(_promising(known, program)):
                continue
            more = _extended(basis, program)
            found = higher(known, more, program.steps[1].right)
        if _all(within(found, program.limit)):
            return _run(Plan(program, 0, equal=True), None, more)
    return None


def _promising(known: Moments, program: Program) -> Tensor | bool:
    """Tell where a program may serve, so that its bound should be worth its price.

    The bound is above the norm, and that above the mean: for random matrices by 1.4.
    """
    _, first, second = known.sums
    return second <= first * (program.limit * _SHARE) ** 2


def _extended(basis: Sequence[Tensor], program: Program) -> list[Tensor]:
    """Return as much of the basis as the norm is told from."""
    basis = [*basis]
    for step in program.steps[len(basis) - 1 : program.known - 1]:
        X, Y = _factors(step, basis)
        basis.append(product(X, Y))
    return basis


def _all(truths: object) -> bool:
    return bool(truths.all() if isinstance(truths, Tensor) else truths)


def _norms(program: Program, basis: list[Tensor]) -> Tensor:
    """Return upper bounds on the norms, from powers of A."""
    norms = basis[1].detach().abs().sum(-1).amax(-1).sqrt()
    for power, degree in zip(basis[1:], program.degrees[1:], strict=True):
        norms = torch.minimum(norms, bound(power, degree))
    return norms


def _halved(
    program: Program, basis: list[Tensor], found: Moments
) -> tuple[Plan, Tensor]:
    """Return how often to halve each matrix."""
    halvings = (_norms(program, basis) / program.limit).log2().ceil().clamp_min(0)
    fewer = within(found, program.limit * torch.exp2(halvings - 1))
    halvings = torch.where(fewer, halvings - 1, halvings).clamp_min(0)  # pyright: ignore
    halvings = halvings.nan_to_num(0, 0, 0)  # the value is NaN without halving
    fewest, most = (float(count) for count in halvings.aminmax())
    if fewest == most:
        return Plan(program.halved(int(most)), int(most), equal=True), halvings
    return Plan(program, int(most), equal=False), halvings


def scale(halvings: Tensor | None) -> Tensor:
    """Return the factors of matrices that are halved so often."""
    assert halvings is not None
    return torch.exp2(-halvings)[..., None, None]


def _run(plan: Plan, halvings: Tensor | None, basis: list[Tensor]) -> Evaluation:
    """Evaluate the program, given what there is of the basis."""
    if plan.squarings:  # other elements than powers were for the whole A
        basis = basis[: len(plan.program.degrees)]
    if not plan.equal:
        factor = scale(halvings)
        basis = [
            B * factor**d for B, d in zip(basis, plan.program.degrees, strict=False)
        ]
    tensors: list[Tensor] = []
    for m, step in enumerate(plan.program.steps):
        X, Y = _factors(step, basis)
        if step != CUBE:  # see `_before_cube`
            tensors += [] if X is basis[0] else [X]
            tensors += [] if Y is basis[0] or Y is X else [Y]
        if m + 1 >= len(basis):
            basis.append(_product(step, basis, X, Y))
    D = basis[-1]
    for j in range(plan.squarings):
        tensors.append(D)
        squared = add_product(D, D, D, beta=2)
        D = squared if plan.equal else chosen(halvings, j, squared, D)
    if plan.squarings >= _MANY and D.dtype in (torch.float32, torch.complex64):
        D = repaired(D)
    return Evaluation(D, plan, halvings, tuple(tensors))


def _factors(step: Step, basis: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    X = combine(step.left, basis)
    return X, X if step.left == step.right else combine(step.right, basis)


def _product(step: Step, basis: Sequence[Tensor], X: Tensor, Y: Tensor) -> Tensor:
    if not step.added:
        return product(X, Y)
    C = combine(step.added, basis)
    if traced(C) or any(C is B for B in basis):
        return add_product(C, X, Y)
    return accumulate_product(C, X, Y)


def chosen(halvings: Tensor | None, j: int, X: Tensor, Y: Tensor) -> Tensor:
    """Return X for the matrices that are halved more than j times, Y for others."""
    assert halvings is not None
    return torch.where((halvings > j)[..., None, None], X, Y)


def derivative(A: Tensor, H: Tensor, plan: Plan, halvings: Tensor | None) -> Tensor:
    """Return the derivative of the exponential at A in any direction H.

    It is made of ordinary operations, differentiable to every order, and costs three
    times the value. Its adjoint is the same function at ``A.mH``.
    """
    if not plan.equal:
        factor = scale(halvings)
        A, H = A * factor, H * factor
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
            squared = chosen(halvings, j, squared, D)
            moved = chosen(halvings, j, moved, dD)
        D, dD = squared, moved
    return dD
