"""What a set of admissible tensors can tell about itself."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..errors import InvalidTensorError, NotInSetError, describe
from ..linalg.precision import double
from ..linalg.tolerances import tolerance

Shape = torch.Size | tuple[int, ...]


class Constraint(ABC):
    """A set of tensors: what holds, not how to get there.

    Matrices live in the last two dimensions; all leading ones are batch dimensions.
    Constructor arguments are stored under their own names.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> orthogonal = sets.Stiefel()
        >>> isinstance(orthogonal, sets.Constraint)
        True
        >>> W = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> orthogonal.contains(W), orthogonal.contains(orthogonal.project(W))
        (False, True)
    """

    @abstractmethod
    def residual(self, weight: Tensor) -> Tensor:
        """Return how far each matrix is from the set: >= 0, and 0 iff inside.

        It is relative, so that it can be held against a multiple of the rounding unit,
        and infinite for a shape that the set does not have.

        Shape: ``(*batch, n, k) -> (*batch)``, real, in the set's natural norm.
        """

    @abstractmethod
    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest (or a named cheap) point of the set.

        Raises:
            InvalidTensorError: the set has no tensors of this shape.
        """

    @abstractmethod
    def from_normal(self, normal: Tensor) -> Tensor:
        """Turn independent standard normal entries into a random point of the set."""

    @abstractmethod
    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of real degrees of freedom of such tensors."""

    def distance(self, weight: Tensor) -> Tensor:
        """Return how far `project` moves each matrix, over its norm.

        It is the residual of sets that have no more natural one.

        Shape: ``(*batch, n, k) -> (*batch)``.
        """
        W = double(weight)
        return relative(W - self.project(W), W)

    def sample(
        self,
        shape: Shape,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return a random point of the set with the given shape."""
        return self.from_normal(
            torch.randn(shape, dtype=dtype, device=device, generator=generator)
        )

    def contains(self, weight: Tensor, tol: float | None = None) -> bool:
        """Tell whether every residual is at most ``tol`` (default: by dtype, size).

        Of a tensor without values, on the meta device, there is nothing to tell.
        """
        if weight.is_meta:
            return True
        limit = tolerance(weight) if tol is None else tol
        with torch.no_grad():
            return bool((self.residual(weight) <= limit).all())

    def require(self, weight: Tensor) -> None:
        """Raise `NotInSetError` unless the set contains the tensor."""
        if not self.contains(weight):
            raise NotInSetError(
                f"Expected a tensor in {self}. Got {describe(weight)} of residual "
                f"{float(self.residual(weight).max()):.1e}, tolerance "
                f"{tolerance(weight):.1e}. `project` gives one that is in the set."
            )

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self).__init__).parameters
        arguments = {n: getattr(self, n) for n in parameters if n in vars(self)}
        shown = ", ".join(
            f"{name}=<{tuple(value.shape)} tensor>"
            if isinstance(value, Tensor)
            else f"{name}={value!r}"
            for name, value in arguments.items()
            if isinstance(value, Tensor) or value != parameters[name].default
        )
        return f"{type(self).__name__}({shown})"


def relative(distance: Tensor, weight: Tensor) -> Tensor:
    """Return the norm of each matrix of ``distance`` over that of ``weight``."""
    off, norm = _norm(distance), _norm(weight)
    return torch.where(norm > 0, off / norm, off)


def _norm(weight: Tensor) -> Tensor:
    dims = tuple(range(max(0, weight.ndim - 2), weight.ndim))
    return torch.linalg.vector_norm(weight, dim=dims) if dims else weight.abs()


def filled(weight: Tensor, value: float) -> Tensor:
    """Return the same residual for every matrix."""
    return torch.full(weight.shape[:-2], value, device=weight.device)


def inside(weight: Tensor) -> Tensor:
    """Return residuals of zero, in the type that residuals are computed in."""
    kind = double(weight.new_empty(0)).real
    return kind.new_zeros(weight.shape[:-2])


def is_square(shape: Shape) -> bool:
    """Tell whether tensors of the shape are square matrices."""
    return len(shape) >= 2 and shape[-1] == shape[-2]


def sizes(shape: Shape) -> tuple[int, int, int]:
    """Return the number of matrices and their sizes n and k."""
    if len(shape) < 2:
        raise InvalidTensorError(
            f"Expected a matrix or a batch of matrices. Got shape {tuple(shape)}."
        )
    return math.prod(shape[:-2]), shape[-2], shape[-1]
