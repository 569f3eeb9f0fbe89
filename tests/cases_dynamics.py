"""The rows of the table for stable dynamics."""

from __future__ import annotations

import torch
from torch import Tensor

from case import SQUARE, TENSORS, Case, Shape
from holdfast import maps, sets


class _RealOriginals(Case):
    """A case whose originals are real where the weight is complex."""

    def draw(
        self, shape: Shape, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        return super().draw(shape, dtype.to_real())


DYNAMICS = (
    *(
        Case(
            f"continuous time {alpha}",
            lambda _, alpha=alpha: [maps.Lyapunov(alpha)],
            lambda _, alpha=alpha: sets.Hurwitz(alpha),
            SQUARE,
        )
        for alpha in (0.0, 0.5)
    ),
    *(
        Case(
            f"discrete time {rho}",
            lambda _, rho=rho: [maps.Stein(rho)],
            lambda _, rho=rho: sets.SchurStable(rho),
            SQUARE,
        )
        for rho in (1.0, 0.5)
    ),
    _RealOriginals(
        "diagonal",
        lambda _: [maps.LRU()],
        lambda _: sets.UnitDisc(),
        TENSORS,
        dtypes=(torch.complex64, torch.complex128),
        originals=lambda shape: (shape, shape),
        exceptions={"batch": "two originals; test_dynamics.py has it"},
    ),
)
