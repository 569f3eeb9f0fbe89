"""Maps, layers and contestants that several benchmarks share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import holdfast

from .reporting import OURS, TORCHS, Report, add, times_report
from .timing import Contestant, Effort, compare

# The same names are in all of them.
LIBRARIES: dict[str, Any] = {TORCHS: parametrize, OURS: holdfast}
RECIPES: dict[str, Any] = {TORCHS: parametrizations, OURS: holdfast}
MODES = {"gradients on": torch.enable_grad, "gradients off": torch.no_grad}


class Identity(nn.Module):
    """The cheapest map that a user can write: what is left is the mechanism."""

    def forward(self, X: Tensor) -> Tensor:
        return X


class Symmetric(nn.Module):
    """The map that PyTorch's tutorial begins with, with its right inverse."""

    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT

    def right_inverse(self, A: Tensor) -> Tensor:
        return A.triu()


def both(*scopes: Callable[[], Any]) -> Callable[[], Any]:
    """Return what makes a context of two."""

    @contextmanager
    def scope() -> Iterator[None]:
        with scopes[0](), scopes[1]():
            yield

    return scope


def reads(
    claim: str, effort: Effort, *, maps: int, target: float, scoped: bool = False
) -> Report:
    """Compare reads through a chain of identities to plain reads."""
    setting = f"`layer.weight` of `nn.Linear(8, 8)`; identity maps by the user: {maps}."
    report = times_report(claim, "plain", setting)
    for case, mode in MODES.items():
        contestants = [
            Contestant(name, "layer.weight", {"layer": nn.Linear(8, 8)}, mode)
            for name in ("plain", "plain again")
        ]
        for name, library in LIBRARIES.items():
            layer = nn.Linear(8, 8)
            for _ in range(maps):
                library.register_parametrization(layer, "weight", Identity())
            around = both(mode, library.cached) if scoped else mode
            contestants.append(
                Contestant(name, "layer.weight", {"layer": layer}, around)
            )
        add(report, case, compare(contestants, effort), target)
    return report


def vocoder(
    parametrize: Callable[[nn.Module], nn.Module], layers: int
) -> nn.Sequential:
    """Return a stack of convolutions as vocoders have them, each parametrized."""
    convolutions = (nn.Conv1d(64, 64, 3, padding=1) for _ in range(layers))
    return nn.Sequential(*map(parametrize, convolutions))


def serving(
    report: Report,
    case: str,
    make: Callable[[Callable[[nn.Module], nn.Module]], nn.Sequential],
    recipe: str,
    x: Tensor,
    effort: Effort,
) -> None:
    """Compare no-grad forwards of a parametrized net to those of the folded net.

    ``make`` builds the net and gives each of its layers to the function it gets. A
    server runs one net, again and again: so the blocks are long, and what the others
    have left in the processor's caches is forgotten soon.
    """
    effort = replace(effort, block=5 * effort.block)
    nets = {
        name: make(getattr(library, recipe)).eval() for name, library in RECIPES.items()
    }
    plain = [("folded", nets[OURS]), ("folded again", nets[OURS])]
    nets = {**{name: folded(net) for name, net in plain}, **nets}
    contestants = [
        Contestant(name, "net(x)", {"net": net, "x": x}, torch.no_grad)
        for name, net in nets.items()
    ]
    off = both(torch.no_grad, partial(holdfast.remember, False))
    names = {"net": nets[OURS], "x": x}
    contestants.append(Contestant("holdfast, remember(False)", "net(x)", names, off))
    add(report, case, compare(contestants, effort), target=1.05)


def folded(net: nn.Sequential) -> nn.Module:
    """Return a copy of the net with plain weights."""
    net = copy.deepcopy(net)
    for module in net:
        if holdfast.is_parametrized(module, "weight"):
            holdfast.remove_parametrizations(module, "weight")
    return net
