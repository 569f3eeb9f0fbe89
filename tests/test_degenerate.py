"""Where formulas break: zeros, equal values, lost ranks, huge and tiny numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from case import Case, Shape, forward
from cases_definite import DEFINITE
from cases_invertible import INVERTIBLE
from cases_linear import LINEAR
from cases_norms import NORMS
from holdfast import maps, sets

INPUTS: dict[str, Callable[[Shape], Tensor]] = {
    "zero": torch.zeros,
    "minus zero": lambda shape: -torch.zeros(shape),
    "equal": torch.ones,
    "huge": lambda shape: 1e18 * torch.randn(shape),
    "huge and equal": lambda shape: torch.full(shape, 1e18),
    "huge and negative": lambda shape: torch.full(shape, -1e18),
    "tiny": lambda shape: 1e-18 * torch.randn(shape),
    "half": lambda shape: (
        torch.randn(shape) * (torch.arange(shape[-1]) % 2 if shape else 0)
    ),
}
CASES = [
    case
    for case in (*LINEAR, *INVERTIBLE, *DEFINITE, *NORMS)
    if "degenerate" not in case.exceptions
]


def law_degenerate(case: Case, dtype: torch.dtype, kind: str) -> None:
    shape = (4, 4)
    chain = case.bound(shape, dtype)
    originals = [INPUTS[kind](s).to(dtype) for s in case.originals(shape)]
    leaves = [x.requires_grad_() for x in originals]
    value = forward(chain, *leaves)
    slopes = torch.autograd.grad(value.abs().sum(), leaves)
    for tensor in (value, *slopes):
        assert bool(tensor.isfinite().all()), f"{case} of {kind}, {dtype}"


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_slopes_are_finite_where_formulas_break(case, kind):
    for dtype in (torch.float32, torch.float64):
        law_degenerate(case, dtype, kind)


class Divided(maps.Gram):
    def forward(self, B: Tensor) -> Tensor:
        return super().forward(B / B.norm())


def test_the_degenerate_law_rejects_a_division_by_zero():
    def always(_: Shape) -> sets.Constraint:
        return sets.PositiveSemidefinite()

    wrong = Case("wrong", lambda _: [Divided()], always)
    with pytest.raises(AssertionError, match="wrong of zero"):
        law_degenerate(wrong, torch.float64, "zero")
