"""Optimizers whose parameters changed under them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.chain import ParametrizationList
from ..core.checks import check_module, check_optimizer
from ..core.placement import successors


def swap_parameters(optimizer: Optimizer, model: nn.Module | None = None) -> int:
    """Re-bind an optimizer to the parameters that took the place of its own.

    Where a map has several originals (weight norm), registering replaces one parameter
    by several and removing replaces them by one. This puts the new ones into the
    group of the old one. State such as momentum is dropped with the old parameter: it
    was measured in other coordinates. A map with one original needs none of this, as
    its parameter stays the same object.

    The new ones take the place of the old one in its group. A model that was registered
    first has them elsewhere in ``model.parameters()``, and by that order an optimizer's
    state dict tells them apart. To load one that was saved so, name the model.

    Args:
        optimizer: an optimizer made before the change.
        model: its model; each group gets the order of ``model.parameters()``, after
            which come parameters of other models.

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
    names: dict[int, str] = {}
    if model is not None:
        check_module(model, "swap_parameters")
        names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = {key: place for place, key in enumerate(names)}
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
        group["params"] = sorted(
            parameters, key=lambda parameter: order.get(id(parameter), len(order))
        )
        if "param_names" in group:  # it was made of named parameters
            group["param_names"] = [names.get(id(p), "") for p in group["params"]]
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
