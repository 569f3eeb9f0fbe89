"""Maps made of several maps, each of which makes a part of the weight."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ..core.calling import call
from ..core.checks import as_tuple
from ..core.parametrization import Parametrization, decays_through
from ..errors import InvalidTensorError, NotInSetError
from ..linalg.factoring import Sizes, product_of
from ..linalg.precision import full_precision
from ..sets.constraint import Constraint
from ..sets.linear import Real
from ..sets.products import Concatenations, MatrixProducts
from .around import (
    Places,
    hold,
    originals_near,
    originals_of,
    without_trace,
)


class Several(Parametrization):
    """Several maps side by side, whose originals are those of all, in order.

    They are submodules by number, as in ``nn.Sequential``.
    """

    deterministic = True

    @property
    def decays(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether weight decay means something for all of the maps."""
        return decays_through((nn.Identity(), *self.maps)) is True

    # how many originals each map has: `bind` or `right_inverse` sees it
    counts: tuple[int, ...] = ()

    def _split(self, weight: Tensor) -> list[Tensor]:
        """Return the part of each map, in its codomain if the weight is in this one."""
        raise NotImplementedError

    def _join(self, parts: list[Tensor]) -> Tensor:
        """Return the weight of the parts."""
        raise NotImplementedError

    @property
    def maps(self) -> tuple[Parametrization, ...]:
        """The maps, in order."""
        return cast("tuple[Parametrization, ...]", tuple(self._modules.values()))

    @property
    def moves(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether any of the maps has moving state."""
        return any(map_.moves for map_ in self.maps)

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether any of the maps has a base point."""
        return any(map_.based for map_ in self.maps)

    def bind(self, weight: Tensor) -> None:
        """Bind each map to its part of the weight."""
        if not self.maps:
            raise ValueError(f"`{type(self).__name__}` takes at least one map.")
        places = Places(self)
        for map_, part in zip(self.maps, self._split(weight), strict=True):
            if map_.domain.dim(part.shape) < part.numel():
                raise NotInSetError(
                    f"`{type(map_).__name__}` takes {map_.domain}, and a free tensor "
                    "does not stay there while it trains. Put a `Chain` of the map "
                    "that leads there, and this one, in its place."
                )
            places.bind(map_, part)
        self.counts = without_trace(self, lambda: self._counted(weight))

    def _counted(self, weight: Tensor) -> tuple[int, ...]:
        pairs = zip(self.maps, self._split(weight), strict=True)
        return tuple(len(as_tuple(originals_near(map_, part))) for map_, part in pairs)

    @full_precision
    def forward(self, *originals: Tensor) -> Tensor:
        """Return the weight of the maps' values."""
        pairs = zip(self.maps, self._shared(originals), strict=True)
        return self._join([call(map_, own) for map_, own in pairs])

    def _shared(self, originals: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        """Return the originals of each map."""
        if not self.counts:
            raise InvalidTensorError(
                f"How many tensors the maps of `{type(self).__name__}` take is known "
                "when it is bound: register it, or call its `bind` with a weight."
            )
        if len(originals) != sum(self.counts):
            raise InvalidTensorError(
                f"`{type(self).__name__}` takes {sum(self.counts)} tensors, those of "
                f"its maps. Got {len(originals)}. In a chain, put it first."
            )
        ends = [sum(self.counts[: i + 1]) for i in range(len(self.counts))]
        pairs = zip(ends, self.counts, strict=True)
        return [originals[end - count : end] for end, count in pairs]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the originals of all parts."""
        pairs = zip(self.maps, self._split(weight), strict=True)
        found = [as_tuple(originals_of(map_, part)) for map_, part in pairs]
        self.counts = tuple(map(len, found))
        return tuple(tensor for own in found for tensor in own)

    def refine_(self, *originals: Tensor) -> None:
        """Advance the state of the maps that have one."""
        for map_, own in zip(self.maps, self._shared(originals), strict=True):
            if map_.moves:
                map_.refine_(*own)

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the bases of the maps that have one."""
        for map_, own in zip(self.maps, self._shared(originals), strict=True):
            if map_.based:
                map_.rebase_(*own, repair=repair)


class Product(Several):
    r"""The matrix product of the values of several maps.

    .. math::
        (X_1, \ldots, X_m) \mapsto \varphi_1(X_1)\, \varphi_2(X_2) \cdots \varphi_m(X_m)

    With factors of size ``(n, r_1), (r_1, r_2), ..., (r_m, k)``. The originals are
    those of all maps, in order. ``Product(Chain(), Chain(), sizes=r)`` is a matrix of
    rank r, ``Product(ThinOrthogonal(), Chain(Softplus(), Diagonal()), ThinOrthogonal(),
    sizes=r)`` its singular value decomposition.

    The right inverse has to find factors. It is exact for these two, for an orthonormal
    factor on either side of a square one that is definite, triangular with positive
    diagonal, or diagonal, and where the weight is in the codomain of one map and the
    identity in those of all others: a diagonal one beside a free one, say. For other
    maps it is a search, which registration takes for what it gives: it moves the value
    to the product that is found, as ``moved`` tells. A value that no product is found
    for cannot be assigned. `sets.MatrixProducts` says more. Costs the maps and
    m - 1 products.

    Args:
        maps: the maps, from left to right.
        sizes: the sizes between the factors, one number for all; ``None`` is the
            smaller size of the weight.

    Shape:
        as the maps' originals ``-> (*batch, n, k)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> turned = maps.Product(maps.Orthogonal(), maps.Diagonal())
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", turned)
        >>> layer.weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> chain = layer.parametrizations.weight
        >>> chain.original0.shape, chain.original1.detach()
        (torch.Size([2, 2]), tensor([1., 1.]))
    """

    foreach = "stack"

    def __init__(self, *maps: Parametrization, sizes: Sizes = None) -> None:
        super().__init__()
        hold(self, maps)
        self.sizes: Sizes = sizes

    @property
    def codomain(self) -> MatrixProducts:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The products of tensors in the maps' codomains."""
        return MatrixProducts(tuple(map_.codomain for map_ in self.maps), self.sizes)

    def _split(self, weight: Tensor) -> list[Tensor]:
        return self.codomain.split(weight)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return product_of(*parts)


class Concatenated(Several):
    r"""The values of several maps behind each other along a dimension.

    .. math::
        (X_1, \ldots, X_m) \mapsto (\varphi_1(X_1), \ldots, \varphi_m(X_m))

    Each block has a map of its own, with originals and state of its own: an orthogonal
    forget gate between free ones, or one `SpectralNorm` for each gate. For many equal
    blocks, `PerBlock` evaluates one map once. The right inverse is exact where those of
    the maps are; where one has none, its block is its original. Costs the maps and
    one copy.

    Args:
        maps: the maps, in the order of the blocks.
        sizes: the blocks' sizes along the dimension; ``None`` makes them equal.
        dim: the dimension; negative ones count from the end.

    Shape:
        as the maps' originals ``-> (d_0, ..., d_m)``.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> gates = maps.Concatenated(maps.Chain(), maps.Orthogonal(), maps.Chain())
        >>> gru = torch.nn.GRU(2, 3)
        >>> gru = holdfast.register_parametrization(gru, "weight_hh_l0", gates)
        >>> reset, update, new = gru.weight_hh_l0.chunk(3)
        >>> torch.allclose(update @ update.T, torch.eye(3), atol=1e-6)
        True
    """

    foreach = "vmap"

    def __init__(
        self,
        *maps: Parametrization,
        sizes: tuple[int, ...] | None = None,
        dim: int = 0,
    ) -> None:
        super().__init__()
        hold(self, maps)
        self.sizes = sizes
        self.dim = dim

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensors whose blocks are in the maps' codomains."""
        sets = tuple(map_.codomain for map_ in self.maps)
        if all(type(each) is Real for each in sets):
            return Real()
        return Concatenations(sets, self.sizes, self.dim)

    def _split(self, weight: Tensor) -> list[Tensor]:
        sets = tuple(map_.codomain for map_ in self.maps)
        parts = Concatenations(sets, self.sizes, self.dim).split(weight)
        return [part.contiguous() for part in parts]

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, self.dim)
