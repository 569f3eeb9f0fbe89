"""Maps made of other maps: around another shape, or with a scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.calling import call
from ..core.checks import as_tuple
from ..core.inversion import says_there_is_none
from ..core.parametrization import Outside, Parametrization
from ..errors import InvalidTensorError, NotInSetError
from ..linalg.matricization import Axes, matricize, matricized_shape, tensorize
from ..linalg.precision import double
from ..sets import combinators as sets
from ..sets.constraint import Constraint
from ..sets.linear import Real


class Matricized(Parametrization):
    r"""A map of matrices, for a tensor of any number of dimensions as one matrix.

    .. math::
        X \mapsto \mathrm{mat}^{-1}(\varphi(X)), \qquad
        \mathrm{mat} : \mathbb{R}^{d_0 \times \cdots \times d_m} \to
        \mathbb{R}^{n \times k}

    A convolution's kernel ``(out, in, h, w)`` with ``rows=0`` is a matrix of size
    out x (in h w). The originals are those of the map, and so is the right inverse,
    which is exact where that of the map is. Costs a copy of the tensor, and for
    ``rows=0`` nothing.

    Args:
        map: the map of matrices.
        rows: the dimension, or the dimensions in the order wanted, that become the
            rows; all others become the columns. Negative ones count from the end.

    Shape:
        as the map's originals ``-> (d_0, ..., d_m)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, map_ = torch.nn.Conv2d(2, 4, 3), maps.ThinOrthogonal()
        >>> map_ = maps.Matricized(map_, rows=0)
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> Q = layer.weight.flatten(1)
        >>> torch.allclose(Q @ Q.T, torch.eye(4), atol=1e-6)
        True
        >>> layer.parametrizations.weight.original.shape
        torch.Size([4, 18])
    """

    deterministic = True
    foreach = "vmap"

    # of the tensor: `bind` sees it
    shape: tuple[int, ...] = ()

    def __init__(self, map: Parametrization, rows: Axes = 0) -> None:
        super().__init__()
        self.map = map
        self.rows = rows

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors that are in the map's domain as a matrix."""
        return sets.matricized(self.map.domain, self.rows)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors that are in the map's codomain as a matrix."""
        return sets.matricized(self.map.codomain, self.rows)

    @property
    def outside(self) -> Outside:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.outside

    @property
    def moves(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.moves

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.based

    def bind(self, weight: Tensor) -> None:
        """Check the dimensions, and bind the map to the matrix."""
        matricized_shape(tuple(weight.shape), self.rows)
        self.shape = tuple(weight.shape)
        _bind(self.map, matricize(weight, self.rows).contiguous())

    def forward(self, *originals: Tensor) -> Tensor:
        """Return the tensor of the map's value."""
        M = call(self.map, self._matrices(originals))
        return tensorize(M, self.shape, self.rows).contiguous()

    def _matrices(self, originals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the map's originals: without a right inverse it is the tensor."""
        if len(originals) != 1 or tuple(originals[0].shape) != self.shape:
            return originals
        if self.shape == matricized_shape(self.shape, self.rows):
            return originals
        return (matricize(originals[0], self.rows),)

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the map's right inverse makes of the matrix."""
        self.shape = tuple(weight.shape)
        try:
            return self.map.right_inverse(matricize(weight, self.rows).contiguous())
        except NotImplementedError as error:
            if not says_there_is_none(error, self.map):
                raise
            raise NotImplementedError(str(error)) from None

    def refine_(self, *originals: Tensor) -> None:
        """Advance the map's state."""
        self.map.refine_(*self._matrices(originals))

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the map's base."""
        self.map.rebase_(*originals, repair=repair)


class Scaled(Parametrization):
    r"""A map times a number, given or learnt.

    .. math::
        X \mapsto c\, \varphi(X) \qquad \text{or} \qquad
        (c, X) \mapsto c\, \varphi(X)

    A number that is learnt is the first original, one for each matrix. It may change
    its sign in training, so that the map has to make orthonormal columns, or land in a
    linear space, where that makes no difference. The right inverse divides by c, or
    finds it: with P the projection of W to the map's codomain,
    :math:`c = \langle W, P \rangle / \langle P, P \rangle`, and P goes to the map.
    It is exact where that of the map is. Costs one pass over the tensor.

    Args:
        map: the map.
        scale: the number c, not zero; ``None`` learns it.

    Shape:
        as the map's. What is learnt has shape ``()``, or ``(*batch, 1, 1)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, map_ = torch.nn.Linear(2, 2), maps.Scaled(maps.Orthogonal())
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> layer.weight = 3 * torch.eye(2)
        >>> layer.parametrizations.weight.original0.item()
        3.0

    References:
        Schönemann, A Generalized Solution of the Orthogonal Procrustes Problem, 1966,
        https://doi.org/10.1007/BF02289451
    """

    deterministic = True
    foreach = "vmap"

    def __init__(self, map: Parametrization, scale: float | None = None) -> None:
        super().__init__()
        self.map = map
        self.scale = scale

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.domain

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The multiples of the map's codomain."""
        made = self.map.codomain
        if self.scale is None:
            return sets.multiples(made) or Real()
        return made if isinstance(made, Real) else sets.Scaled(made, self.scale)

    @property
    def outside(self) -> Outside:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.outside

    @property
    def moves(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.moves

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the map says."""
        return self.map.based

    def bind(self, weight: Tensor) -> None:
        """Check the scale, and bind the map."""
        if self.scale is not None:
            if self.scale == 0 or not math.isfinite(self.scale):
                raise ValueError(
                    f"Expected a scale other than 0, and finite. Got {self.scale}."
                )
            _bind(self.map, weight / self.scale)
            return
        _bind(self.map, weight)
        if sets.multiples(self.map.codomain) is None:
            raise InvalidTensorError(
                "A scale that is learnt may change its sign, which leads out of "
                f"{self.map.codomain} of `{type(self.map).__name__}`. Give `scale` a "
                "number, or take a map that makes orthonormal columns."
            )

    def forward(self, *originals: Tensor) -> Tensor:
        """Return the scale times the map's value."""
        if self.scale is not None:
            return self.scale * call(self.map, originals)
        return originals[0] * call(self.map, originals[1:])

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the scale, if it is learnt, and the map's originals without it."""
        try:
            if self.scale is not None:
                return self.map.right_inverse(weight / self.scale)
            scale, P = _scale(weight, self.map.codomain)
            return scale, *as_tuple(self.map.right_inverse(P))
        except NotImplementedError as error:
            if not says_there_is_none(error, self.map):
                raise
            if self.scale is not None:
                raise NotImplementedError(str(error)) from None
            raise InvalidTensorError(
                f"`{type(self.map).__name__}` has no right inverse, so that no scale "
                f"can be found for it. Give `scale` a number. {error}"
            ) from None

    def refine_(self, *originals: Tensor) -> None:
        """Advance the map's state."""
        self.map.refine_(*originals[self.scale is None :])

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the map's base."""
        self.map.rebase_(*originals[self.scale is None :], repair=repair)


def _bind(map_: Parametrization, weight: Tensor) -> None:
    """Bind a map inside of another one."""
    map_.bind(weight)
    # `Orthogonal` has signs where torch looks for them, which it cannot do here
    map_._non_persistent_buffers_set = set()


def _scale(weight: Tensor, constraint: Constraint) -> tuple[Tensor, Tensor]:
    """Return c > 0 and P of a set such that c P is next to the weight."""
    W = double(weight)
    P = constraint.project(W)
    batch = constraint.residual(W).ndim  # one residual for each matrix
    dims = (-2, -1) if batch else tuple(range(W.ndim))
    square = (P.conj() * P).real.sum(dims, keepdim=bool(batch))
    inner = (P.conj() * W).real.sum(dims, keepdim=bool(batch))
    scale = torch.where(square > 0, inner / square, 1)  # zero is in every linear space
    if not scale.is_meta and bool((scale <= 0).any()):
        raise NotInSetError(
            f"Expected a positive multiple of a tensor in {constraint}. Got one of "
            f"scale {float(scale.min()):.1e}: zero has no direction. Give it other "
            "values first, such as those of `torch.nn.init.orthogonal_`."
        )
    return scale.to(weight.dtype.to_real()), P.to(weight.dtype)
