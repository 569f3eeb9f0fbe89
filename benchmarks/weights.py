"""One read of an orthogonal weight, forward and backward, beside torch and GeoTorch."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .reporting import OURS, TORCHS, Report, add, times_report
from .subjects import RECIPES
from .timing import Comparison, Contestant, Effort, compare

# A read of a large matrix takes far longer than a block should.
ROUNDS = 9
GEOTORCH, PRODUCT = "geotorch", "a product"
SETTING = (
    "`layer.weight.backward(G)`: one read and its gradient, float32. Coordinates are "
    "normal with variance 1/n or 2/n, which makes skew matrices of norm 2 to 3; the "
    "product is one of the weight's size, X @ S."
)

Maker = Callable[[nn.Module], nn.Module]


class Holder(nn.Module):
    """A module with one weight of any shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) / shape[-2] ** 0.5)


def makers(kind: str, **options: Any) -> dict[str, Maker]:
    """Return what puts the same map on a weight with torch and with us."""
    return {
        name: partial(library.orthogonal, orthogonal_map=kind, **options)
        for name, library in RECIPES.items()
    }


def geotorchs(triv: str, space: str = "orthogonal") -> dict[str, Maker]:
    """Return what does it with GeoTorch, where that is installed."""
    if importlib.util.find_spec(GEOTORCH) is None:
        return {}
    make = getattr(importlib.import_module(GEOTORCH), space)
    return {GEOTORCH: lambda m: make(m, "weight", triv=triv)}


def moved(layer: nn.Module, norm: float | None = None) -> nn.Module:
    """Move the coordinates away from the base, where nothing is to be done.

    With a norm, scale them so that their skew matrices have it.
    """
    for original in layer.parametrizations.weight.parameters():
        step = torch.randn_like(original).tril(-1) / original.shape[-2] ** 0.5
        original.data.add_(step)
        if norm is not None:
            L = original.data.tril(-1)
            size = torch.linalg.matrix_norm(L - L.mT, 2, keepdim=True)
            original.data.mul_(norm / size)
    return layer


def product(shape: tuple[int, ...]) -> Contestant:
    """Return one product of a matrix of this shape and a square one."""
    names = {"X": torch.randn(shape), "S": torch.randn(*shape[:-2], *[shape[-1]] * 2)}
    return Contestant(PRODUCT, "X @ S", names)


def read(
    name: str,
    make: Maker,
    shape: tuple[int, ...],
    G: Tensor,
    norm: float | None = None,
) -> Contestant:
    """Return one forward and backward of a weight."""
    layer = moved(make(Holder(shape)), norm)
    return Contestant(name, "layer.weight.backward(G)", {"layer": layer, "G": G})


def reading(
    report: Report,
    case: str,
    made: Mapping[str, Maker],
    shape: tuple[int, ...],
    effort: Effort,
    target: float,
    *,
    products: float | None = None,
    norm: float | None = None,
) -> Comparison:
    """Compare reads of a weight.

    The target is for our ratio to the first maker's, and ``products`` for the number of
    products that the time would be enough for. With a norm, the skew matrices have it.
    """
    G = torch.randn(shape)
    contestants = [read(name, make, shape, G, norm) for name, make in made.items()]
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    comparison = compare([*contestants, product(shape)], effort)
    add(report, case, comparison, target)
    count, verdict = comparison.ratios(OURS, PRODUCT).median, ""
    if products is not None:
        judged = report.judge(f"{case}: products", count, products, " products")
        verdict = f", {judged}"
    report.notes.append(f"{case}: {count:.1f} products of the same size{verdict}.")
    return comparison


def reading_report(claim: str) -> Report:
    """Return an empty report for `reading`."""
    return times_report(claim, TORCHS, SETTING)
