"""Several maps, whose values are multiplied."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ..core.calling import call
from ..core.checks import as_tuple
from ..core.inversion import says_there_is_none
from ..core.parametrization import Parametrization
from ..errors import NotInSetError
from ..linalg.factoring import Sizes, product_of
from ..linalg.precision import full_precision
from ..sets.products import MatrixProducts
from .around import bind_inside, without_trace


class Product(Parametrization):
    r"""The matrix product of the values of several maps.

    .. math::
        (X_1, \ldots, X_m) \mapsto \varphi_1(X_1)\, \varphi_2(X_2) \cdots \varphi_m(X_m)

    With factors of size ``(n, r_1), (r_1, r_2), ..., (r_m, k)``. The originals are
    those of all maps, in order. ``Product(Chain(), Chain(), sizes=r)`` is a matrix of
    rank r, ``Product(ThinOrthogonal(), Chain(Softplus(), Diagonal()), ThinOrthogonal(),
    sizes=r)`` its singular value decomposition.

    The right inverse has to find factors. It is exact for these two, and where the
    weight is in the codomain of one map and the identity in those of all others: a
    diagonal one beside a free one, say. For other maps it is a search, which
    registration takes for what it gives: it moves the value to the product that is
    found, as ``moved`` tells. A value that no product is found for cannot be assigned.
    `sets.MatrixProducts` says more. Costs the maps and m - 1 products.

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

    deterministic = True

    # how many originals each map has: `bind` or `right_inverse` sees it
    counts: tuple[int, ...] = ()

    def __init__(self, *maps: Parametrization, sizes: Sizes = None) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)
        self.sizes: Sizes = sizes

    @property
    def links(self) -> list[Parametrization]:
        """The maps as a list."""
        return cast("list[Parametrization]", [*self.maps._modules.values()])

    @property
    def codomain(self) -> MatrixProducts:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The products of tensors in the maps' codomains."""
        sets = tuple(link.codomain for link in self.links)
        return MatrixProducts(sets, self.sizes)

    @property
    def moves(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether any of the maps has moving state."""
        return any(link.moves for link in self.links)

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether any of the maps has a base point."""
        return any(link.based for link in self.links)

    def bind(self, weight: Tensor) -> None:
        """Bind each map to a factor of the weight."""
        if not self.links:
            raise ValueError("`Product` takes one map or more. Got none.")
        for link, factor in zip(self.links, self.codomain.split(weight), strict=True):
            if link.domain.dim(factor.shape) < factor.numel():
                raise NotInSetError(
                    f"`{type(link).__name__}` takes {link.domain}, and a free tensor "
                    "does not stay there while it trains. Put a `Chain` of the map "
                    "that leads there, and this one, in its place."
                )
            bind_inside(link, factor)
        found = without_trace(self, lambda: self._found(weight))
        self.counts = tuple(map(len, found))

    def _found(self, weight: Tensor) -> list[tuple[Tensor, ...]]:
        """Return the originals of each map."""
        pairs = zip(self.links, self.codomain.split(weight), strict=True)
        return [_originals(link, factor) for link, factor in pairs]

    @full_precision
    def forward(self, *originals: Tensor) -> Tensor:
        """Return the product of the maps' values."""
        pairs = zip(self.links, self._parts(originals), strict=True)
        return product_of(*(call(link, part) for link, part in pairs))

    def _parts(self, originals: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        ends = [sum(self.counts[: i + 1]) for i in range(len(self.counts))]
        pairs = zip(ends, self.counts, strict=True)
        return [originals[end - count : end] for end, count in pairs]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the originals of all factors."""
        found = self._found(weight)
        self.counts = tuple(map(len, found))
        return tuple(tensor for part in found for tensor in part)

    def refine_(self, *originals: Tensor) -> None:
        """Advance the state of the maps that have one."""
        for link, part in zip(self.links, self._parts(originals), strict=True):
            if link.moves:
                link.refine_(*part)

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the bases of the maps that have one."""
        for link, part in zip(self.links, self._parts(originals), strict=True):
            if link.based:
                link.rebase_(*part, repair=repair)


def _originals(link: Parametrization, factor: Tensor) -> tuple[Tensor, ...]:
    """Return the originals of a factor; itself where there is no right inverse."""
    try:
        return as_tuple(link.right_inverse(factor))
    except NotImplementedError as error:
        if not says_there_is_none(error, link):
            raise
        return (factor,)
