"""Optimizers whose parameters changed under them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.chain import ParametrizationList
from ..core.checks import check_optimizer
from ..core.placement import successors


def swap_parameters(optimizer: Optimizer) -> int:
    """Re-bind an optimizer to the parameters that took the place of its own.

    Where a map has several originals (weight norm), registering replaces one parameter
    by several and removing replaces them by one. This puts the new ones into the
    group of the old one. State such as momentum is dropped with the old parameter: it
    was measured in other coordinates. A map with one original needs none of this, as
    its parameter stays the same object.

    The order within a group may differ from that of ``model.parameters()``, by which
    an optimizer's state dict tells them apart: to resume, register first, make the
    optimizer then, as it was when the state was saved.

    Args:
        optimizer: an optimizer made before the change.

    Returns:
        How many parameters were replaced.

    Example:
        >>> import torch, holdfast
        >>> layer = torch.nn.Linear(2, 3)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> layer = holdfast.weight_norm(layer)
        >>> holdfast.swap_parameters(optimizer)
        1
        >>> len(optimizer.param_groups[0]["params"])
        3
    """
    check_optimizer(optimizer, "swap_parameters")
    replaced = 0
    seen: set[int] = set()
    for group in optimizer.param_groups:
        parameters: list[Tensor] = []
        for old in group["params"]:
            new = _latest(old)
            if new[0] is not old:
                optimizer.state.pop(old, None)
                replaced += 1
            for parameter in new:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    parameters.append(parameter)
        group["params"] = parameters
    return replaced


def _latest(parameter: Tensor) -> list[Tensor]:
    """Follow the replacements to the parameters that are in the model now."""
    if parameter not in successors:
        return [parameter]
    return [last for new in successors[parameter] for last in _latest(new)]


def chains_moved_by(
    optimizer: Optimizer, model: nn.Module
) -> Iterator[tuple[nn.Module, str, ParametrizationList]]:
    """Yield module, name and chain of the parametrized tensors that it trains."""
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in model.modules():
        chains: Any = module._modules.get("parametrizations")
        for name, chain in ({} if chains is None else chains._modules).items():
            if isinstance(chain, ParametrizationList) and all(
                id(original) in moved for original in chain.originals()
            ):
                yield module, name, chain
