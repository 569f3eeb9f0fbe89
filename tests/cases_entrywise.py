"""Rows of the table of cases: entries within bounds, and on a grid."""

from __future__ import annotations

import torch
from torch import Tensor

from case import always
from holdfast import maps, sets
from holdfast.testing.case import MATRICES, REAL, SQUARE, TENSORS, Case, Shape

INFINITY = float("inf")


def ramp(shape: Shape) -> Tensor:
    """Return a bound for each column, from -1 to 1."""
    return torch.linspace(-1, 1, shape[-1], dtype=torch.float64)


def signs(shape: Shape) -> Tensor:
    """Return a sign for each column: -1, 0, 1, ..."""
    return torch.arange(shape[-1]) % 3 - 1


def signed(shape: Shape) -> sets.Interval:
    """Return the tensors with these signs."""
    s = signs(shape)
    return sets.Interval(
        torch.where(s < 0, -INFINITY, 0.0), torch.where(s > 0, INFINITY, 0.0)
    )


_STRAIGHT = {"gradient": "it passes straight through: test_entrywise.py"}

ENTRYWISE = (
    Case(
        "softplus",
        lambda _: [maps.Softplus()],
        always(sets.Interval(0.0)),
        TENSORS,
        REAL,
    ),
    Case(
        "softplus below each column's bound",
        lambda shape: [maps.Softplus(ramp(shape), sign=-1, beta=2.0)],
        lambda shape: sets.Interval(upper=ramp(shape)),
        MATRICES,
        REAL,
    ),
    Case(
        "softplus with signs",
        lambda shape: [maps.Softplus(sign=signs(shape))],
        signed,
        MATRICES,
        REAL,
    ),
    Case(
        "exponential",
        lambda _: [maps.Exponential()],
        always(sets.Interval(0.0)),
        TENSORS,
        REAL,
    ),
    Case(
        "exponential with signs",
        lambda shape: [maps.Exponential(sign=signs(shape))],
        signed,
        SQUARE,
        REAL,
    ),
    Case(
        "square above 1",
        lambda _: [maps.Square(1.0)],
        always(sets.Interval(1.0)),
        TENSORS,
        REAL,
    ),
    *(
        Case(
            f"{name} of an interval",
            lambda _, kind=kind: [kind(-0.5, 2.0)],
            always(sets.Interval(-0.5, 2.0)),
            TENSORS,
            REAL,
        )
        for name, kind in (
            ("sigmoid", maps.Sigmoid),
            ("tanh", maps.Tanh),
            ("sine", maps.Sine),
        )
    ),
    *(
        Case(
            f"{name} of an interval for each column",
            lambda shape, kind=kind: [kind(ramp(shape), 1.0)],
            lambda shape: sets.Interval(ramp(shape), 1.0),
            SQUARE,
            REAL,
        )
        for name, kind in (
            ("sigmoid", maps.Sigmoid),
            ("tanh", maps.Tanh),
            ("sine", maps.Sine),
        )
    ),
    Case(
        "fake quantize",
        lambda _: [maps.FakeQuantize(6, step=0.125)],
        always(sets.Grid(0.125, -31, 31)),
        TENSORS,
        REAL,
        exceptions=_STRAIGHT,
    ),
)
