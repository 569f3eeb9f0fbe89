"""What maps would do to a tensor, tried on a copy of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.chain import ParametrizationList
from ..core.placement import Prepared
from ..core.registration import prepare
from .rules import Rule, Site
from .showing import in_one_line
from .timing import timed


@dataclass(frozen=True)
class Step:
    """What a plan is going to do to one tensor, as a trial on a copy of it told.

    Attributes:
        path: the tensor.
        shape: its shape; ``None`` for a tensor of a lazy module, which gets its maps
            in the first forward, along with a shape.
        maps: the maps, as they print.
        before: its number of entries, 0 as long as there is no shape.
        after: the number of free parameters.
        moved: how far the value will move, relative to its norm; ``None`` on the meta
            device, or where there is a problem.
        milliseconds: the time of one evaluation; ``None`` likewise.
        problem: why this cannot be done; empty if it can.
    """

    path: str
    shape: tuple[int, ...] | None
    maps: str
    before: int
    after: int = 0
    moved: float | None = None
    milliseconds: float | None = None
    problem: str = ""


def tried(site: Site, rule: Rule) -> Step:
    """Parametrize a copy of a tensor, and look at it."""
    tensor = site.module._parameters[site.name]
    assert tensor is not None
    maps = in_one_line(rule.maps or ())
    if site.is_uninitialized:
        return Step(site.path, None, maps, 0)
    known = (site.path, tuple(tensor.shape), maps, tensor.numel())
    trial = nn.Module()
    trial.register_parameter(site.name, _copy_of(tensor))
    try:
        with torch.random.fork_rng(devices=[]):
            chain = prepared(site, rule, trial).chain
    except Exception as error:
        return Step(*known, problem=" ".join(str(error).split()))
    after = sum(original.numel() for original in chain.originals())
    if tensor.is_meta:
        return Step(*known, after)
    return Step(*known, after, chain.moved, _milliseconds(chain))


def _copy_of(tensor: Tensor) -> nn.Parameter:
    copied = tensor.detach().clone(memory_format=torch.contiguous_format)
    return nn.Parameter(copied, requires_grad=tensor.requires_grad)


def _milliseconds(chain: ParametrizationList) -> float:
    originals = chain.first_originals()
    with torch.no_grad():
        return timed(lambda: chain.compute(*originals), originals[0].device)[1]


def prepared(site: Site, rule: Rule, module: nn.Module | None = None) -> Prepared:
    """Return the chain of copies of a rule's maps, for the tensor at a place."""
    maps = copy.deepcopy([*(rule.maps or ())])
    for map_ in maps:
        map_.train(map_.training and site.module.training)
    return prepare(module or site.module, site.name, maps, lambda: site.path)
