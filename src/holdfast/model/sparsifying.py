"""Sparsity that rises while a model trains."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..core.checks import check_module, check_optimizer
from ..maps.gradual import GradualTopK
from .optim import chains_moved_by


class Sparsify:
    r"""Advance the schedules of sparse weights by one after every step of an optimizer.

    It concerns weights with a `maps.GradualTopK`, also one inside another map, whose
    originals this optimizer moves.
    How far they are stands in the maps' buffers, and so in the model's state dict:
    there is nothing else to save.

    Args:
        model: the model.
        optimizer: its optimizer.

    Raises:
        ValueError: no weight of the model that the optimizer moves has a schedule.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> layer, schedule = torch.nn.Linear(4, 4), maps.GradualTopK(0.75, steps=2)
        >>> layer = holdfast.register_parametrization(layer, "weight", schedule)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> _ = holdfast.Sparsify(layer, optimizer)
        >>> for _ in range(2):
        ...     layer(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        >>> int((layer.weight != 0).sum())
        4

    References:
        Zhu and Gupta, To Prune, or Not to Prune, 2017,
        https://arxiv.org/abs/1710.01878
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        check_module(model, "Sparsify")
        check_optimizer(optimizer, "Sparsify")
        self._schedules = [
            schedule
            for _, _, chain in chains_moved_by(optimizer, model)
            for schedule in chain.modules()
            if isinstance(schedule, GradualTopK)
        ]
        if not self._schedules:
            raise ValueError(
                "No weight that the optimizer moves has a schedule: register "
                "`maps.GradualTopK` before the optimizer is made, or call "
                "`holdfast.swap_parameters(optimizer)`."
            )
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:  # noqa: ANN401
        for schedule in self._schedules:
            schedule.advance_()

    def remove(self) -> None:
        """Leave the sparsity where it is from now on."""
        self._handle.remove()
