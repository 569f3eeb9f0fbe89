"""Bounds that move while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..core.checks import check_module, check_optimizer, check_type
from ..core.parametrization import Parametrization
from ..core.plain_data import constructor
from ..errors import did_you_mean
from .optim import chains_moved_by


class MoveBounds:
    r"""Set a bound of maps anew after every step of an optimizer.

    .. math::
        b \leftarrow \text{value}(t), \qquad t = 0, 1, 2, \ldots

    It concerns the maps of one type, also those inside other maps, whose originals this
    optimizer moves. The originals stay: the weights follow the bound. Bounds are plain
    numbers, part of the spec of a map and not of a state dict; ``state_dict`` has the
    steps, on which they depend.

    Args:
        model: the model.
        optimizer: its optimizer.
        map: the type of the maps, `maps.SpectralBound` say.
        bound: the argument of that type which moves, such as ``"radius"``.
        value: the bound after so many steps, a function of a whole number.

    Raises:
        ValueError: the type has no such argument, a bound is not finite, or no weight
            of the model that the optimizer moves has such a map.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, map_ = torch.nn.Linear(4, 4), maps.SpectralBound(4.0)
        >>> layer = holdfast.register_parametrization(layer, "weight", map_)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> _ = holdfast.MoveBounds(
        ...     layer, optimizer, maps.SpectralBound, "radius", lambda t: 4 / (1 + t)
        ... )
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> layer.parametrizations.weight[0].radius
        2.0
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        map: type[Parametrization],
        bound: str,
        value: Callable[[int], float],
    ) -> None:
        check_module(model, "MoveBounds")
        check_optimizer(optimizer, "MoveBounds")
        check_type(map, type, "MoveBounds", "a class of maps")
        check_type(bound, str, "MoveBounds", "the name of a bound")
        known = [parameter.name for parameter in constructor(map)]
        if bound not in known:
            raise ValueError(
                f"`{map.__name__}` has no argument `{bound}`."
                f"{did_you_mean(bound, known)}"
            )
        self.bound = bound
        self.value = value
        self.steps = 0
        self._maps = [
            map_
            for _, _, chain in chains_moved_by(optimizer, model)
            for map_ in chain.modules()
            if isinstance(map_, map)
        ]
        if not self._maps:
            raise ValueError(
                f"No weight that the optimizer moves has a `{map.__name__}`: register "
                "it before the optimizer is made, or call "
                "`holdfast.swap_parameters(optimizer)`."
            )
        self._set()
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:  # noqa: ANN401
        self.steps += 1
        self._set()

    def _set(self) -> None:
        bound = float(self.value(self.steps))
        if not math.isfinite(bound):
            raise ValueError(
                f"Expected a finite `{self.bound}` after {self.steps} steps. "
                f"Got {bound}."
            )
        for map_ in self._maps:
            setattr(map_, self.bound, bound)

    def remove(self) -> None:
        """Leave the bounds where they are from now on."""
        self._handle.remove()

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps, on which the bounds depend."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a number of steps."""
        self.steps = int(state["steps"])
        self._set()
