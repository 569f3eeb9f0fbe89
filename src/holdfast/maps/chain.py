"""Several maps as one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from ..core.calling import call
from ..core.checks import as_tuple
from ..core.inversion import says_there_is_none
from ..core.parametrization import Outside, Parametrization, decays_through
from ..errors import InvalidTensorError, NotInSetError
from ..sets.constraint import Constraint, Shape, filled
from ..sets.linear import Real
from .around import Places, hold, originals_near, without_trace

Originals = Tensor | tuple[Tensor, ...]


class Chain(Parametrization):
    r"""Maps in order, as one map: to be inside of another one.

    .. math::
        X \mapsto \varphi_m(\cdots \varphi_1(X))

    Registering the maps one by one does the same for a weight; a chain can be scaled,
    cast, or put on blocks. The first map takes the originals, every other one the value
    of the one before, which has to lie in its domain. The right inverses run in
    reverse, each of a value in its map's codomain, and are exact where all are. No map
    at all is the identity.

    Args:
        maps: the maps, the first one first.

    Shape:
        as the first map's originals, and the last one's value.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> scales = maps.Chain(maps.Softplus(), maps.Diagonal())
        >>> layer = torch.nn.Linear(2, 2)
        >>> layer = holdfast.register_parametrization(layer, "weight", scales)
        >>> layer.weight = torch.diag(torch.tensor([0.5, 2.0]))
        >>> layer.weight.detach()
        tensor([[0.5000, 0.0000],
                [0.0000, 2.0000]])
        >>> layer.parametrizations.weight.original.shape
        torch.Size([2])
    """

    deterministic = True
    foreach = "stack"

    def __init__(self, *maps: Parametrization) -> None:
        super().__init__()
        hold(self, maps)

    @property
    def maps(self) -> tuple[Parametrization, ...]:
        """The maps, in order: submodules by number, as in ``nn.Sequential``."""
        return cast("tuple[Parametrization, ...]", tuple(self._modules.values()))

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The domain of the first map."""
        links = self.maps
        return links[0].domain if links else Real()

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The codomain of the last map, or what the others reach of it."""
        links = self.maps
        if not links:
            return Real()
        return links[-1].codomain if self._fits() else _Reached(self)

    def _fits(self) -> bool:
        """Tell whether each map makes all that the next one takes."""
        return all(
            type(before.codomain) is Real or repr(before.codomain) == repr(after.domain)
            for before, after in pairwise(self.maps)
        )

    @property
    def outside(self) -> Outside:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the last map says, if the maps before it take what it takes."""
        links = self.maps
        if links and (self._fits() or all(x.outside == "project" for x in links)):
            return links[-1].outside
        return "error"

    @property
    def decays(self) -> bool | tuple[bool, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the first map says, if the others do not object."""
        return decays_through(self.maps)

    @property
    def moves(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tell whether any of the maps has moving state."""
        return any(link.moves for link in self.maps)

    @property
    def based(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the first map says."""
        links = self.maps
        return bool(links) and links[0].based

    def bind(self, weight: Tensor) -> None:
        """Bind each map to what it has to make, the last one to the weight."""
        value: Originals = weight
        places = Places(self)
        for link in reversed(self.maps):
            made = as_tuple(value)[0]
            places.bind(link, made)
            value = without_trace(
                link, lambda made=made, link=link: originals_near(link, made)
            )
            if len(as_tuple(value)) > 1 and link is not self.maps[0]:
                raise InvalidTensorError(
                    f"`{type(link).__name__}` takes {len(as_tuple(value))} tensors, "
                    "and the map before it in the `Chain` makes one. Put it first."
                )
        without_trace(self, lambda: self._check_domains(as_tuple(value)))

    def _check_domains(self, originals: tuple[Tensor, ...]) -> None:
        """Refuse a map whose domain does not contain what the maps before it make.

        Random originals tell: the present ones may be zero, which is in many sets.
        """
        links, first = self.maps, self.domain
        asking = [i for i, link in enumerate(links) if type(link.domain) is not Real]
        if not any(asking) or originals[0].is_meta:  # the first map's is the caller's
            return
        tensors = tuple(map(_random, originals))
        tensors = tensors if type(first) is Real else (first.project(*tensors),)
        for before, after in pairwise(links[: asking[-1] + 1]):
            tensors = (call(before, tensors),)
            if not after.domain.contains(tensors[0]):
                raise NotInSetError(
                    f"`{type(after).__name__}` takes {after.domain}, which "
                    f"`{type(before).__name__}` before it does not lead to: residual "
                    f"{float(after.domain.residual(tensors[0]).max()):.1e}. Put the "
                    "map that leads there between them."
                )

    def forward(self, *originals: Tensor) -> Tensor:
        """Return the value of the last map."""
        tensors = originals
        for link in self.maps:
            tensors = (call(link, tensors),)
        return tensors[0]

    def right_inverse(self, weight: Tensor) -> Originals:
        """Return the originals, by the right inverses in reverse order."""
        value: Originals = weight
        for link in reversed(self.maps):
            made = as_tuple(value)[0]
            if link.outside != "project":
                link.codomain.require(made)
            try:
                value = link.right_inverse(made)
            except NotImplementedError as error:
                if not says_there_is_none(error, link):
                    raise
                raise NotImplementedError(str(error)) from None
        return value

    def refine_(self, *originals: Tensor) -> None:
        """Advance the state of the maps that have one."""
        tensors = originals
        for link in self.maps:
            if link.moves:
                link.refine_(*tensors)
            tensors = (call(link, tensors),)

    def rebase_(self, *originals: Tensor, repair: bool = True) -> None:
        """Move the base of the first map."""
        self.maps[0].rebase_(*originals, repair=repair)


class _Reached(Constraint):
    """What a chain takes of its last map's codomain: the maps before have theirs."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def __repr__(self) -> str:
        links = reversed(self.chain.maps)
        return " made of ".join(repr(link.codomain) for link in links)

    def residual(self, weight: Tensor) -> Tensor:
        """Return the last map's residual, and where it is none, those before."""
        return without_trace(self.chain, lambda: self._residual(weight))

    def _residual(self, weight: Tensor) -> Tensor:
        value, largest = weight, filled(weight, 0.0)
        for link in reversed(self.chain.maps):
            if link.outside != "project":  # which takes any value
                residual = link.codomain.residual(value).to(largest.dtype)
                if residual.shape != largest.shape:  # a vector has one for all
                    residual = residual.max() if residual.numel() else largest
                largest = torch.maximum(largest, residual)
                if not link.codomain.contains(value):
                    break
            try:
                value = as_tuple(link.right_inverse(value))[0]
            except NotInSetError:
                return filled(weight, math.inf)
        return largest

    def project(self, weight: Tensor) -> Tensor:
        """Return the value of the originals that the projections lead back to."""
        return without_trace(self.chain, lambda: self._project(weight))

    def _project(self, weight: Tensor) -> Tensor:
        value: Originals = weight
        for link in reversed(self.chain.maps):
            value = originals_near(link, as_tuple(value)[0])
        return self.chain.forward(*as_tuple(value))

    def from_normal(self, normal: Tensor) -> Tensor:
        """Return the projection of a random tensor in the last map's codomain.

        Of rows of norm 1: it may be the original itself, and the exponential of a
        matrix with normal entries has no inverse in its precision.
        """
        drawn = self.chain.maps[-1].codomain.from_normal(normal / _row_norm(normal))
        return self.project(drawn)

    def dim(self, shape: Shape, dtype: torch.dtype = torch.float32) -> int:
        """Return the smallest dimension on the way, which is the most there can be."""
        return without_trace(self.chain, lambda: self._dim(shape, dtype))

    def _dim(self, shape: Shape, dtype: torch.dtype) -> int:
        value, dims = self._project(torch.ones(shape, dtype=dtype)), list[int]()
        for link in reversed(self.chain.maps):
            dims.append(link.codomain.dim(value.shape, dtype))
            value = as_tuple(originals_near(link, value))[0]
        return min(dims)


def _random(tensor: Tensor) -> Tensor:
    """Return random entries, of norm about 1 in each row."""
    generator = torch.Generator(tensor.device).manual_seed(0)
    drawn = torch.empty_like(tensor).normal_(generator=generator)
    return drawn / _row_norm(tensor)


def _row_norm(tensor: Tensor) -> float:
    """Return the norm that a row of normal entries has."""
    return max((1, *tensor.shape[-1:])) ** 0.5
