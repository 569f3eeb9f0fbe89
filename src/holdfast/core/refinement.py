"""State that moves on its own (R2): once per training forward, never on a read.

A hook on the host's forward advances the maps that have such state. It does nothing in
evaluation, nor while autograd runs, as in the recomputation of a checkpoint.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .ahead import holders, put_back_
from .cache import is_advanced
from .chain import ParametrizationList
from .moving import advance_, movers
from .sharing import parts_of
from .torch_state import in_backward_pass


def refine_on_forward(module: nn.Module) -> None:
    """Hook the maps with moving state onto the training forward, or unhook them."""
    chains: Any = module._modules.get("parametrizations")
    moving = [c for c in getattr(chains, "_modules", {}).values() if movers(c)]
    for chain in moving:
        for part in [part for map_ in movers(chain) for part in parts_of(map_)]:
            part.__dict__["advanced_by_host"] = True
        chain.__dict__["_refined"] = (chain.versions(), None)
        chain.note_special()
    if not moving and refine_hook not in module._forward_pre_hooks.values():
        return
    hooks = {k: v for k, v in module._forward_pre_hooks.items() if v is not refine_hook}
    module.__dict__["_forward_pre_hooks"] = type(module._forward_pre_hooks)(hooks)
    if moving:
        module.register_forward_pre_hook(refine_hook)


def refine_hook(module: nn.Module, _: object) -> None:
    """Advance moving state once per training forward, not in a recomputation of it."""
    if not (module.training or holders):
        return
    chains: Any = module._modules.get("parametrizations")
    # torch's own removal leaves this hook behind
    for chain in getattr(chains, "_modules", {}).values():
        if movers(chain):
            if not module.training or in_backward_pass():
                put_back_(chain)
            elif not is_advanced(chain, module):
                refine_(chain)


def refine_(chain: ParametrizationList) -> None:
    """Advance the state of the maps that have moving state."""
    advance_(chain, chain.originals())
    chain.__dict__["_refined"] = (chain.versions(), None)


def catch_up_(chain: ParametrizationList) -> None:
    """Refine where the host's forward evidently is not what uses the weight.

    ``nn.MultiheadAttention`` reads ``out_proj.weight`` and never calls ``out_proj``.
    The originals moved, were read, and moved again without a forward in between: then
    this read, and every later one after a move, stands for the forward.
    """
    refined, overlooked = chain.__dict__["_refined"]
    versions = chain.versions()
    if versions == refined or in_backward_pass():
        return
    if overlooked in (None, versions):
        chain.__dict__["_refined"] = (refined, versions)
    else:
        refine_(chain)
        chain.__dict__["_refined"] = (versions, versions)
