"""The transforms of ``torch.distributions``: as maps, and maps as transforms."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to
from torch.distributions.transforms import ComposeTransform, Transform

from ..core.checks import tensors_needed
from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError
from ..sets.constraint import Constraint
from ..sets.distributions import Image, bounds_of, known
from ..sets.distributions import to_torch as constraint_of
from .bounded import Sigmoid
from .bounds import MARGIN
from .chain import Chain
from .definite import Cholesky, Gram
from .half_line import Exponential
from .simplex import Softmax
from .structured import Symmetric, Triangular


class FromTransform(Parametrization):
    r"""A transform of ``torch.distributions`` as a map.

    .. math::
        X \mapsto t(X), \qquad \psi = t^{-1}

    Domain and codomain are the sets here that the transform's constraints stand for;
    where there is none, its own ``check`` tells what is inside, and registering takes
    the entries of a weight outside for coordinates. The right inverse is the
    transform's, as exact as that is. Transforms hold tensors that no module knows of:
    they do not move to another device with it, nor is a value remembered. A transform
    is no plain data, so that this map has no spec; a cache that it has is not used; and
    ``t.inv`` cannot be copied, which is torch's way with it.

    Args:
        transform: the transform.

    Shape:
        as the transform's.

    Example:
        >>> import torch, holdfast
        >>> from torch.distributions import transforms
        >>> from holdfast import maps
        >>> layer, map_ = (
        ...     torch.nn.Linear(3, 3),
        ...     maps.FromTransform(transforms.CorrCholeskyTransform()),
        ... )
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> L = layer.weight
        >>> torch.allclose((L @ L.T).diagonal(), torch.ones(3))
        True
        >>> layer.parametrizations.weight.original.shape
        torch.Size([3])
    """

    decays = False

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The set that the transform takes."""
        return _set(self.transform.domain, self.transform.inv)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The set that the transform makes."""
        if isinstance(self.transform, ComposeTransform):
            # torch takes the last one's, as if the others reached all that it takes
            return Chain(*map(FromTransform, self.transform.parts)).codomain
        return _set(self.transform.codomain, self.transform)

    def forward(self, X: Tensor) -> Tensor:
        """Return the transform's value."""
        # a cache goes by the identity of a tensor, which an optimizer writes to
        return cast("Tensor", self.transform.with_cache(0)(X))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what the transform's inverse makes of the weight."""
        try:
            back = cast("Tensor", self.transform.with_cache(0).inv(weight))
            return back.contiguous()
        except NotImplementedError as error:
            said = str(error) or "the transform has no inverse"
        raise NotImplementedError(said)


def _set(constraint: constraints.Constraint, transform: Transform) -> Constraint:
    found = known(constraint, MARGIN)
    return Image(transform) if found is None else found


def from_torch(constraint: constraints.Constraint) -> Parametrization:
    """Return a map onto the set that a constraint of ``torch.distributions`` means.

    As ``transform_to``: of a free tensor onto the set, not always one to one. Where
    torch has a transform and this library no map, it is a `FromTransform`.

    Args:
        constraint: a constraint, such as ``constraints.positive``.

    Raises:
        ValueError: neither has a map onto it, as for integers.

    Example:
        >>> from torch.distributions import constraints
        >>> from holdfast import maps
        >>> maps.from_torch(constraints.interval(-1.0, 1.0))
        Sigmoid(lower=-1.0)
        >>> maps.from_torch(constraints.positive_definite)
        Cholesky(diagonal='softplus')
    """
    if isinstance(constraint, constraints.independent):
        return from_torch(constraint.base_constraint)
    bounds = bounds_of(constraint)
    if bounds is not None:
        return _between(*bounds)
    named = _NAMED.get(type(constraint))
    if named is not None:
        return named()
    try:
        return FromTransform(cast("Transform", transform_to(constraint)))
    except NotImplementedError:
        raise ValueError(
            f"There is no map onto {constraint}, nor has torch one: "
            "`transform_to.register` gives it one."
        ) from None


_NAMED: dict[type, type[Parametrization]] = {
    type(constraints.real): Chain,
    type(constraints.simplex): Softmax,
    type(constraints.lower_triangular): Triangular,
    type(constraints.symmetric): Symmetric,
    type(constraints.positive_semidefinite): Gram,
    type(constraints.positive_definite): Cholesky,
}


def _between(lower: float | Tensor, upper: float | Tensor) -> Parametrization:
    above = isinstance(lower, Tensor) or lower > -math.inf
    below = isinstance(upper, Tensor) or upper < math.inf
    if above and below:
        return Sigmoid(lower, upper)
    if above:
        return Exponential(lower)
    return Exponential(upper, sign=-1) if below else Chain()


class _MapTransform(Transform):
    """A map as a transform."""

    def __init__(self, map_: Parametrization, event_dim: int) -> None:
        super().__init__()
        self.map = map_
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = constraint_of(map_.codomain, event_dim)

    def __repr__(self) -> str:
        return f"to_torch({self.map!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _MapTransform) and other.map is self.map

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def _call(self, x: Tensor) -> Tensor:
        return self.map(x)

    def _inverse(self, y: Tensor) -> Tensor:
        if any(part._buffers for part in self.map.modules()):
            raise NotImplementedError(
                f"The right inverse of {type(self.map).__name__} moves its buffers, "
                "so that it is the inverse for one value only."
            )
        found = self.map.right_inverse(y)
        if not isinstance(found, Tensor):
            raise NotImplementedError(
                f"{type(self.map).__name__} has {len(found)} originals, and a "
                "transform takes one tensor."
            )
        return found

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return it from the whole Jacobian of each event."""
        count = self.domain.event_dim
        event, image = x.shape[x.ndim - count :], y.shape[y.ndim - count :]
        if event.numel() != image.numel():
            raise NotImplementedError(
                f"{type(self.map).__name__} takes {event.numel()} numbers to "
                f"{image.numel()}: its Jacobian has no determinant."
            )
        of_each = torch.func.vmap(torch.func.jacrev(self.map))
        J = of_each(x.reshape(-1, *event)).reshape(-1, event.numel(), image.numel())
        return torch.linalg.slogdet(J).logabsdet.reshape(x.shape[: x.ndim - count])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the map's value."""
        return self._call(torch.empty(shape, device="meta")).shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the original."""
        return self._inverse(torch.empty(shape, device="meta")).shape


def to_torch(map_: Parametrization, event_dim: int = 2) -> Transform:
    """Return a map as a transform of ``torch.distributions``.

    The map is the same object, which trains and moves with its module; leading
    dimensions are batches. The inverse is the map's right inverse, for maps of one
    original without buffers; the log determinant comes from the whole Jacobian, for
    maps that keep the number of entries. A map that needs to know its tensor is bound
    first: by registering it, or by ``map.bind(weight)``.

    Args:
        map_: the map.
        event_dim: how many dimensions, from the last one on, make one point: 2 for
            matrices, 1 for vectors, 0 for maps of single entries.

    Raises:
        InvalidTensorError: the map's domain is not the whole space, or it takes several
            tensors.

    Example:
        >>> import torch
        >>> from torch import distributions
        >>> from holdfast import maps
        >>> positive = maps.to_torch(maps.Softplus(), event_dim=0)
        >>> normal = distributions.Normal(torch.zeros(2), 1.0)
        >>> above = distributions.TransformedDistribution(normal, positive)
        >>> bool((above.sample() > 0).all()), above.log_prob(torch.ones(2)).shape
        (True, torch.Size([2]))
    """
    if map_.domain.dim((2, 2)) < 4:
        raise InvalidTensorError(
            f"`{type(map_).__name__}` takes {map_.domain}, and a transform any tensor. "
            "Put a `Chain` of the map that leads there, and this one, in its place."
        )
    count = tensors_needed(map_)
    if count > 1:
        raise InvalidTensorError(
            f"`{type(map_).__name__}` takes {count} tensors, and a transform one. "
            "Register it on a module instead."
        )
    return _MapTransform(map_, event_dim)
