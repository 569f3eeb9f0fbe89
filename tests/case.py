"""What is claimed of a chain of maps: a case, and what it is made of.

A case is a chain of maps and the set that the chain lands in. What a case is known not
to do stands in `exceptions`, by the name of the law, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import holdfast
from holdfast import Parametrization, sets

Shape = tuple[int, ...]
Chain = list[Parametrization]

SQUARE: tuple[Shape, ...] = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))
MATRICES: tuple[Shape, ...] = (*SQUARE, (5, 3), (3, 5), (4, 1), (2, 2, 4))
TENSORS: tuple[Shape, ...] = (*MATRICES, (6,), (4, 2, 3, 3))

# What a law runs over that does not look at the size: square, tall and wide
PLAIN: tuple[Shape, ...] = ((4, 4), (5, 3), (3, 5))

REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex64, torch.complex128)
ALL = (*REAL, *COMPLEX)

# How far the value of a chain may be from the one asked for, entry by entry, and how
# far from its set. Single precision: the issue's own threshold.
CLOSE = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.bfloat16: 4e-2,
    torch.float16: 5e-3,
    torch.complex64: 1e-5,
    torch.complex128: 1e-12,
}


@dataclass(frozen=True)
class Case:
    """A chain of maps, and what is claimed of it."""

    name: str
    make: Callable[[Shape], Chain]
    codomain: Callable[[Shape], sets.Constraint]
    shapes: tuple[Shape, ...] = MATRICES
    dtypes: tuple[torch.dtype, ...] = ALL
    originals: Callable[[Shape], Sequence[Shape]] = lambda shape: (shape,)
    exceptions: Mapping[str, str] = field(default_factory=dict)
    real: Sequence[int] | None = None  # originals that are; all but the last, if None

    def __str__(self) -> str:
        return self.name

    def settings(
        self, dtypes: Sequence[torch.dtype], shapes: Sequence[Shape]
    ) -> list[tuple[Shape, torch.dtype]]:
        """Return the case's own shapes and types among the given ones."""
        return [
            (shape, dtype)
            for shape in self.shapes
            for dtype in self.dtypes
            if shape in shapes and dtype in dtypes
        ]

    def draw(
        self, shape: Shape, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """Return random originals, those that are lengths or scales real."""
        shapes = self.originals(shape)
        real = range(len(shapes) - 1) if self.real is None else self.real
        return tuple(
            torch.randn(s, dtype=dtype.to_real() if i in real else dtype)
            for i, s in enumerate(shapes)
        )

    def bound(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Chain:
        """Return the maps, bound to a random tensor as a registration would."""
        chain, value = self.make(shape), torch.randn(shape, dtype=dtype)
        for link in chain:
            link.bind(value)
            link.eval()
        return chain

    def registered(self, weight: Tensor) -> Host:
        """Return a module with the chain on its weight."""
        host = Host(weight)
        for link in self.make(tuple(weight.shape)):
            holdfast.register_parametrization(host, "weight", link)
        return host


class Host(nn.Module):
    """A module with one weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).sum()


def forward(chain: Chain, *tensors: Tensor) -> Tensor:
    """Run maps in order."""
    for link in chain:
        tensors = (link(*tensors),)
    return tensors[0]


def right_inverse(chain: Chain, value: Tensor) -> tuple[Tensor, ...]:
    """Run right inverses in reverse order."""
    tensors: Tensor | tuple[Tensor, ...] = value
    for link in reversed(chain):
        assert isinstance(tensors, Tensor)
        tensors = link.right_inverse(tensors)
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def mask(shape: Shape) -> Tensor:
    """Return a mask that prunes every third entry."""
    return (torch.arange(torch.Size(shape).numel()) % 3 != 0).reshape(shape)


def always(constraint: sets.Constraint) -> Callable[[Shape], sets.Constraint]:
    return lambda shape: constraint
