"""What the laws are about: a chain of maps, and what is claimed of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..core.checks import as_tuple
from ..core.inversion import says_there_is_none
from ..core.parametrization import Parametrization
from ..core.registration import register_parametrization
from ..sets.constraint import Constraint

Shape = tuple[int, ...]
Chain = Sequence[Parametrization]

SQUARE: tuple[Shape, ...] = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))
MATRICES: tuple[Shape, ...] = (*SQUARE, (5, 3), (3, 5), (4, 1), (2, 2, 4))
TENSORS: tuple[Shape, ...] = (*MATRICES, (6,), (4, 2, 3, 3))

REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex64, torch.complex128)
ALL = (*REAL, *COMPLEX)

# How far the value of a chain may be from the one asked for, relative to the largest
# entry, and how far from its set. Single precision: the library's own promise.
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
    """A chain of maps, and what is claimed of it.

    Attributes:
        name: what it is called in a report.
        make: returns new maps, not bound yet, for weights of a shape.
        codomain: the set that the chain lands in.
        shapes: those that it is made for.
        dtypes: those that it takes.
        originals: the shapes of the originals; by default what the right inverse gives.
        exceptions: the laws that it does not keep, with the reasons.
        real: which of these originals are real where the weight is complex; by default
            all but the last.
    """

    name: str
    make: Callable[[Shape], Chain]
    codomain: Callable[[Shape], Constraint]
    shapes: tuple[Shape, ...] = MATRICES
    dtypes: tuple[torch.dtype, ...] = ALL
    originals: Callable[[Shape], Sequence[Shape]] | None = None
    exceptions: Mapping[str, str] = field(default_factory=dict[str, str])
    real: Sequence[int] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def invertible(self) -> bool:
        """Tell whether every point of the codomain is claimed to be reached."""
        return "right_inverse" not in self.exceptions

    def draw(
        self, shape: Shape, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """Return random originals."""
        return tuple(torch.randn_like(x) for x in self.templates(shape, dtype))

    def templates(self, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return tensors of the originals' shapes and types."""
        if self.originals is not None:
            shapes = self.originals(shape)
            real = range(len(shapes) - 1) if self.real is None else self.real
            return tuple(
                torch.empty(s, dtype=dtype.to_real() if i in real else dtype)
                for i, s in enumerate(shapes)
            )
        chain = self.bound(shape, dtype)
        W = self.sample(shape, dtype)
        return (W,) if missing_inverse(chain, W) else right_inverse(chain, W)

    def sample(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        """Return a random point of the codomain."""
        return self.codomain(shape).sample(shape, dtype=dtype)

    def bound(
        self, shape: Shape, dtype: torch.dtype = torch.float64
    ) -> list[Parametrization]:
        """Return the maps, bound to a random tensor as a registration would."""
        chain, value = [*self.make(shape)], torch.randn(shape, dtype=dtype)
        for link in chain:
            link.bind(value)
            link.eval()
        return chain

    def registered(self, weight: Tensor) -> Host:
        """Return a module with the chain on its weight."""
        return hosted(self.make(tuple(weight.shape)), weight)


class Host(nn.Module):
    """A module with one weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return a number that every entry of the weight counts in."""
        return (self.weight * x).sum()


def hosted(chain: Chain, weight: Tensor) -> Host:
    """Register maps on the weight of a new module."""
    host = Host(weight)
    for link in chain:
        register_parametrization(host, "weight", link.to(weight.device))
    return host


def forward(chain: Chain, *tensors: Tensor) -> Tensor:
    """Run maps in order."""
    for link in chain:
        tensors = (link(*tensors),)
    return tensors[0]


def right_inverse(chain: Chain, value: Tensor) -> tuple[Tensor, ...]:
    """Run right inverses in reverse order."""
    tensors = (value,)
    for link in reversed(chain):
        tensors = as_tuple(link.right_inverse(*tensors))
    return tensors


def missing_inverse(chain: Chain, value: Tensor) -> str:
    """Return the name of a map that declares to have no right inverse, if any."""
    for link in reversed(chain):
        try:
            value = as_tuple(link.right_inverse(value))[0]
        except NotImplementedError as error:
            if not says_there_is_none(error, link):
                raise
            return type(link).__name__
    return ""
