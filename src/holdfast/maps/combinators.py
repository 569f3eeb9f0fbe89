"""Maps around one map: another shape, a scale, another type to compute in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.calling import call
from ..core.checks import as_tuple
from ..core.inversion import says_there_is_none
from ..core.parametrization import Parametrization
from ..errors import InvalidTensorError, NotInSetError
from ..linalg.matricization import Axes, matricize, tensorize
from ..linalg.precision import cast, double, exactly
from ..linalg.structure import require_matrix
from ..linalg.tolerances import kept_in
from ..sets import combinators as sets
from ..sets.constraint import Constraint
from ..sets.linear import Real
from .around import Around


class Matricized(Around):
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

    foreach = "vmap"

    def __init__(self, map: Parametrization, rows: Axes = 0) -> None:
        super().__init__()
        self.map = map
        self.rows = rows

    def _made(self, constraint: Constraint) -> Constraint:
        return sets.matricized(constraint, self.rows)

    _taken = _made

    def _inward(self, weight: Tensor) -> Tensor:
        return matricize(weight, self.rows).contiguous()

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        return tensorize(value, self.shape, self.rows).contiguous()


class Transposed(Around):
    r"""A map of the transposed matrix: rows for columns, lower for upper.

    .. math::
        X \mapsto \varphi(X)^T

    The originals are those of the map, whose shape is then (k, n) for most; the right
    inverse is exact where that of the map is. For maps that treat rows and columns
    differently; the orthogonal ones transpose wide matrices by themselves. Costs one
    copy.

    Args:
        map: the map of (k, n) matrices.

    Shape:
        as the map's originals ``-> (*batch, n, k)``.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> X = torch.tensor([[1.0, 1.0], [0.0, 5.0]])
        >>> maps.Transposed(maps.Softmax())(X).sum(-2)
        tensor([1., 1.])
    """

    foreach = "vmap"

    def __init__(self, map: Parametrization) -> None:
        super().__init__()
        self.map = map

    def _made(self, constraint: Constraint) -> Constraint:
        return sets.transposed(constraint)

    _taken = _made

    def _inward(self, weight: Tensor) -> Tensor:
        require_matrix(weight)
        return weight.mT.contiguous()

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        return value.mT.contiguous()


class Scaled(Around):
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

    foreach = "vmap"

    def __init__(self, map: Parametrization, scale: float | None = None) -> None:
        super().__init__()
        self.map = map
        self.scale = scale

    @property
    def decays(self) -> bool | tuple[bool, ...]:
        """The scale does, and what the map says."""
        own = self.map.decays
        if self.scale is not None:
            return own
        return (True, *(own if isinstance(own, tuple) else (own,)))

    def _made(self, constraint: Constraint) -> Constraint:
        if self.scale is None:
            return sets.multiples(constraint) or Real()
        if isinstance(constraint, Real):
            return constraint
        return sets.Scaled(constraint, self.scale)

    def _check(self, weight: Tensor) -> None:
        if self.scale is None and sets.multiples(self.map.codomain) is None:
            raise InvalidTensorError(
                "A scale that is learnt may change its sign, which leads out of "
                f"{self.map.codomain} of `{type(self.map).__name__}`. Give `scale` a "
                "number, or take a map that makes orthonormal columns."
            )

    def _inward(self, weight: Tensor) -> Tensor:
        if self.scale is None:
            return weight
        if self.scale == 0 or not math.isfinite(self.scale):
            raise ValueError(
                f"Expected a scale other than 0, and finite. Got {self.scale}."
            )
        return weight / self.scale

    def _handed(self, originals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return originals[self.scale is None :]

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        return value * (originals[0] if self.scale is None else self.scale)

    def _found(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.scale is not None:
            return self.map.right_inverse(self._inward(weight))
        scale, P = _scale(weight, self.map.codomain)
        try:
            return scale, *as_tuple(self.map.right_inverse(P))
        except NotImplementedError as error:
            if not says_there_is_none(error, self.map):
                raise
            raise InvalidTensorError(
                f"`{type(self.map).__name__}` has no right inverse, so that no scale "
                f"can be found for it. Give `scale` a number. {error}"
            ) from None


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


class Cast(Around):
    r"""A map that computes in another type than the one that its tensors are kept in.

    .. math::
        X \mapsto \mathrm{round}(\varphi(\mathrm{cast}(X)))

    An island: the originals keep the type of the weight, are cast for the map alone,
    and its value is cast back, rounded once. Autocast is off inside. A complex weight
    is computed in the complex type of the same precision. The map's buffers, such as a
    base point, are in the island's type from the start; ``module.float()`` takes them
    out of it, as it does with any buffer. The right inverse is that of the map, exact
    but for the rounding of the originals. Costs two copies beside the map.

    Args:
        map: the map.
        dtype: a real floating-point type, by default ``torch.float64``.

    Shape:
        as the map's.

    Example:
        >>> import torch
        >>> from holdfast import maps
        >>> X = torch.tensor([[0.0, 30.0], [30.0, 0.0]])
        >>> exp = maps.Chain(maps.Symmetric(), maps.MatrixExp())
        >>> float(maps.Cast(exp)(X)[0, 0] / 5343237290762.2305)
        1.0
    """

    foreach = "stack"

    def __init__(
        self, map: Parametrization, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.map = map
        self.dtype = dtype

    def _inward(self, weight: Tensor) -> Tensor:
        known = isinstance(self.dtype, torch.dtype)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not known or not self.dtype.is_floating_point:
            raise ValueError(
                f"Expected a real floating-point type to compute in. Got {self.dtype}."
            )
        return cast(weight, self.dtype)

    def _handed(self, originals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(cast(tensor, self.dtype) for tensor in originals)

    def _value(self, originals: tuple[Tensor, ...]) -> Tensor:
        with exactly(originals[0]):
            return call(self.map, originals)

    def _outward(self, value: Tensor, originals: tuple[Tensor, ...]) -> Tensor:
        kept = originals[0]
        return cast(value, kept.real.dtype if kept.is_complex() else kept.dtype)

    def _found(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        with kept_in(weight.dtype):  # which has rounded what the map gets
            found = self.map.right_inverse(self._inward(weight))
        if isinstance(found, Tensor):
            return self._outward(found, (weight,))
        return tuple(self._outward(tensor, (weight,)) for tensor in found)
