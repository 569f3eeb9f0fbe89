"""Maps with state that moves on its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .calling import call
from .chain import ParametrizationList
from .parametrization import Parametrization


def movers(chain: nn.Module) -> list[Parametrization]:
    """Return the maps of a chain that have moving state."""
    if not isinstance(chain, ParametrizationList):
        return []
    return [
        map_
        for map_ in chain._modules.values()
        if isinstance(map_, Parametrization) and map_.moves
    ]


def advance_(chain: ParametrizationList, tensors: tuple[Tensor, ...]) -> None:
    """Advance the state of the maps that have some, by the originals."""
    links = chain.links()
    left = [map_ for map_ in movers(chain) if any(map_ is link for link in links)]
    with torch.no_grad():
        for map_ in links:
            if left and map_ is left[0]:
                left.pop(0).refine_(*tensors)
            if not left:
                break
            tensors = (call(map_, tensors),)
