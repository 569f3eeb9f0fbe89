"""The rows of the table for stable dynamics."""

from __future__ import annotations

import torch

from case import OVERFLOW
from holdfast import maps, sets
from holdfast.testing.case import SQUARE, TENSORS, Case

DYNAMICS = (
    *(
        Case(
            f"continuous time {alpha}",
            lambda _, alpha=alpha: [maps.Lyapunov(alpha)],
            lambda _, alpha=alpha: sets.Hurwitz(alpha),
            SQUARE,
            exceptions=OVERFLOW,
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
    Case(
        "diagonal",
        lambda _: [maps.LRU()],
        lambda _: sets.UnitDisc(),
        TENSORS,
        dtypes=(torch.complex64, torch.complex128),
        originals=lambda shape: (shape, shape),
        real=(0, 1),
    ),
)
