"""Putting a chain in the place of a tensor, and a tensor in the place of a chain.

Each is a swap of registries and class, undone if it is interrupted. The registries are
replaced rather than edited, because ``copy.copy`` of a module shares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from . import recurrent
from .chain import ParametrizationList
from .memo import slot_of
from .moving import movers
from .reclassing import reclass
from .refinement import refine_on_forward

# Which parameters took the place of one that left a model, for `swap_parameters`
successors = WeakTensorKeyDictionary()


def note_successors(old: Tensor, new: Iterable[Tensor]) -> None:
    """Note which parameters took the place of one that leaves the model."""
    parameters = [tensor for tensor in new if isinstance(tensor, nn.Parameter)]
    if isinstance(old, nn.Parameter) and all(new is not old for new in parameters):
        successors[old] = parameters


class Prepared(NamedTuple):
    """A chain that only has to be put in the place of its tensor."""

    module: nn.Module
    name: str
    chain: ParametrizationList
    replaced: Tensor | None = None  # what leaves the model and somebody else has


def attach(prepared: Sequence[Prepared]) -> None:
    """Put chains in the places of plain tensors, all or none."""
    with undone_on_failure(*[each.module for each in prepared]):
        for each in prepared:
            _attach(each.module, each.name, each.chain)
        for each in prepared:
            each.chain.settle()
    for each in prepared:
        if each.replaced is not None:
            note_successors(each.replaced, each.chain.originals())


def _attach(module: nn.Module, name: str, chain: ParametrizationList) -> None:
    state = module.__dict__
    parameter = name in module._parameters
    registry = "_parameters" if parameter else "_buffers"
    chain.__dict__["order"] = names_in_order(module, registry)
    state[registry] = state[registry].copy()
    del state[registry][name]
    if name in module._non_persistent_buffers_set:
        chain._non_persistent_buffers_set.update(chain._buffers)
        state["_non_persistent_buffers_set"] = module._non_persistent_buffers_set - {
            name
        }
    chains = module._modules.get("parametrizations")
    if chains is None:
        chains = nn.ModuleDict()
        chains.__dict__["training"] = module.training
        state["_modules"] = {**module._modules, "parametrizations": chains}
    chain.__dict__["training"] = module.training
    chains._modules[name] = chain  # not `chains[name]`, which refuses "values" (A2)
    reclass(module, chains._modules)
    if movers(chain):
        refine_on_forward(module)
    recurrent.release(module)


def names_in_order(module: nn.Module, registry: str) -> tuple[str, ...]:
    """Return the names of a registry in the order before any left for a chain."""
    chains: Any = module._modules.get("parametrizations")
    if chains is None:
        return tuple(module.__dict__[registry])
    known: tuple[str, ...] = ()
    for chain in chains._modules.values():
        if bool(chain._parameters) == (registry == "_parameters"):
            known = max(known, getattr(chain, "order", ()), key=len)
    return (*known, *[k for k in module.__dict__[registry] if k not in known])


class undone_on_failure:
    """Put registries, hooks and classes of modules back when the block fails."""

    def __init__(self, *modules: nn.Module) -> None:
        self._before = [
            (part, type(part), part.__dict__.copy(), part._modules.copy())
            for module in modules
            for part in (module, module._modules.get("parametrizations"))
            if part is not None
        ]

    def __enter__(self) -> None:
        """Begin; everything was noted before."""

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Put everything back if the block failed."""
        if error is None:
            return
        for part, cls, state, modules in self._before:
            object.__setattr__(part, "__class__", cls)
            part.__dict__.clear()
            part.__dict__.update(state)
            part._modules.clear()
            part._modules.update(modules)
            if isinstance(part, ParametrizationList):
                part.forget()


def detach(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put the plain tensor in the place of the chain; the caller undoes a failure."""
    state = module.__dict__
    chains: Any = module._modules["parametrizations"]
    chain = chains._modules.pop(name)
    state.pop(slot_of(name), None)
    registry = "_parameters" if isinstance(tensor, nn.Parameter) else "_buffers"
    order = [*getattr(chain, "order", ()), name, *state[registry]]
    entries = {**state[registry], name: tensor}
    state[registry] = dict(sorted(entries.items(), key=lambda e: order.index(e[0])))
    if registry == "_buffers" and chain._non_persistent_buffers_set:
        state["_non_persistent_buffers_set"] = module._non_persistent_buffers_set | {
            name
        }
    if not chains._modules:
        links = {k: v for k, v in module._modules.items() if v is not chains}
        state["_modules"] = links
    reclass(module, chains._modules)
    refine_on_forward(module)
    recurrent.release(module)
