"""The sets of ``torch.distributions``: ours for theirs, and theirs for ours."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from ..linalg.tolerances import tolerance
from .constraint import Constraint, Shape, filled
from .definite import PositiveSemidefinite, SymmetricPositiveDefinite
from .interval import Grid, Interval
from .linear import Real, SquareMatrices, SymmetricMatrices, TriangularMatrices
from .simplex import Simplex

_NAMED: dict[type, Constraint] = {
    type(constraints.real): Real(),
    type(constraints.lower_triangular): TriangularMatrices(),
    type(constraints.square): SquareMatrices(),
    type(constraints.symmetric): SymmetricMatrices(),
    type(constraints.positive_semidefinite): PositiveSemidefinite(),
    type(constraints.positive_definite): SymmetricPositiveDefinite(),
    type(constraints.boolean): Grid(1.0, 0, 1),
}


def from_torch(
    constraint: constraints.Constraint, *, margin: float = 0.0
) -> Constraint:
    """Return the set that a constraint of ``torch.distributions`` stands for.

    Args:
        constraint: a constraint, such as ``constraints.positive``.
        margin: how far inside `project` goes, as in `Interval` and `Simplex`.

    Raises:
        ValueError: there is no such set here, as for ``constraints.corr_cholesky``.

    Example:
        >>> from torch.distributions import constraints
        >>> from holdfast import sets
        >>> sets.from_torch(constraints.greater_than(2.0))
        Interval(lower=2.0)
        >>> sets.from_torch(constraints.positive_definite)
        SymmetricPositiveDefinite()
    """
    found = known(constraint, margin)
    if found is None:
        raise ValueError(
            f"There is no set for {constraint}. `maps.from_torch` makes a map for it, "
            "if torch has one."
        )
    return found


def known(constraint: constraints.Constraint, margin: float) -> Constraint | None:
    """Return the set that a constraint stands for, if there is one.

    Example:
        >>> known(constraints.simplex, 0.0)
        Simplex()
    """
    if isinstance(constraint, constraints.independent):
        return known(constraint.base_constraint, margin)
    if isinstance(constraint, type(constraints.simplex)):
        return Simplex(margin=margin)
    if isinstance(constraint, constraints.integer_interval):
        return Grid(1.0, constraint.lower_bound, constraint.upper_bound)
    bounds = bounds_of(constraint)
    if bounds is not None:
        return Interval(*bounds, margin=margin)
    return _NAMED.get(type(constraint))


def bounds_of(
    constraint: constraints.Constraint,
) -> tuple[float | Tensor, float | Tensor] | None:
    """Return the bounds of an interval or of a half-line.

    Example:
        >>> bounds_of(constraints.positive)
        (0.0, inf)
    """
    if isinstance(constraint, constraints.greater_than | constraints.greater_than_eq):
        return constraint.lower_bound, math.inf
    if isinstance(constraint, constraints.less_than):
        return -math.inf, constraint.upper_bound
    if isinstance(constraint, constraints.interval | constraints.half_open_interval):
        return constraint.lower_bound, constraint.upper_bound
    return None


class _AsTorch(constraints.Constraint):
    """A set as a constraint."""

    def __init__(self, constraint: Constraint, event_dim: int) -> None:
        self.set = constraint
        self._event_dim = event_dim

    @property
    def event_dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many dimensions of a tensor make one point of the set."""
        return self._event_dim

    def check(self, value: Tensor) -> Tensor:
        """Return for each point whether it is in the set."""
        batch = value.shape[: value.ndim - self._event_dim]
        events = value.reshape(-1, *value.shape[value.ndim - self._event_dim :])
        limit = tolerance(value)
        inside = [bool((self.set.residual(x) <= limit).all()) for x in events]
        return torch.tensor(inside, device=value.device).reshape(batch)

    def __repr__(self) -> str:
        return f"to_torch({self.set!r}, event_dim={self._event_dim})"


def to_torch(constraint: Constraint, event_dim: int = 2) -> constraints.Constraint:
    """Return a set as a constraint of ``torch.distributions``.

    Its ``check`` asks point by point whether the residual is within the tolerance.

    Args:
        constraint: the set.
        event_dim: how many dimensions, from the last one on, make one point.

    Example:
        >>> import torch
        >>> from holdfast import sets
        >>> orthogonal = sets.to_torch(sets.Stiefel())
        >>> orthogonal.check(torch.stack([torch.eye(2), torch.ones(2, 2)]))
        tensor([ True, False])
    """
    return _AsTorch(constraint, event_dim)


class Image(Constraint):
    """What a transform of torch's reaches, where no other set says so.

    Torch tells in from out, not how far: the residual is zero or infinite. `project`
    returns what the transform makes of the entries, where these are outside.

    Example:
        >>> import torch
        >>> from torch.distributions import transforms
        >>> Image(transforms.LowerCholeskyTransform()).contains(torch.eye(2))
        True
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __repr__(self) -> str:
        return repr(self.transform.codomain)

    def residual(self, weight: Tensor) -> Tensor:
        """Return zero inside, and infinity outside."""
        inside = bool(self.transform.codomain.check(weight).all())
        return filled(weight, 0.0 if inside else math.inf)

    def project(self, weight: Tensor) -> Tensor:
        """Return the tensor, or the transform of as many entries as it takes."""
        return weight if self.contains(weight) else self.from_normal(weight)

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the transform of as many entries as it takes."""
        batch = normal.ndim - self.transform.codomain.event_dim
        event = normal.unsqueeze(-1).flatten(batch)
        shape = torch.Size(self.transform.inverse_shape(normal.shape))
        taken = event[..., : shape[batch:].numel()].reshape(shape)
        return cast("Tensor", self.transform.with_cache(0)(taken))

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the number of entries that the transform takes: an upper bound."""
        return torch.Size(self.transform.inverse_shape(torch.Size(shape))).numel()
