"""Invertible and definite weights cost a third of GeoTorch's, linear ones no more."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import holdfast
from holdfast import maps

from .reporting import OURS, TORCHS, Report, add, main, times_report
from .timing import Contestant, Effort, compare
from .weights import GEOTORCH, ROUNDS, Holder, Maker

SETTING = (
    "`layer.weight.backward(G)`: one read and its gradient, float32. Coordinates are "
    "normal with variance 1/n or 2/n. torch is the chain of its tutorial: a symmetric "
    "matrix, or any, and `torch.matrix_exp`; for the linear spaces its triangle alone."
)

# What is left open is the error of the method.
NO_MORE, A_THIRD = 1.1, 0.33


class Triangle(nn.Module):
    """The tutorial's symmetric or skew matrix."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, X: Tensor) -> Tensor:
        return X.triu(int(self.sign < 0)) + self.sign * X.triu(1).mT


class Exponential(nn.Module):
    """The tutorial's exponential."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.matrix_exp(X)


def torchs(*chain: nn.Module) -> Maker:
    return lambda layer: registered(layer, parametrize, *chain)


def ours(*chain: nn.Module) -> Maker:
    return lambda layer: registered(layer, holdfast, *chain)


def geotorchs(name: str, *arguments: int) -> dict[str, Maker]:
    """Return GeoTorch's space of that name, where it is installed."""
    if importlib.util.find_spec(GEOTORCH) is None:
        return {}
    make = getattr(importlib.import_module(GEOTORCH), name)
    return {GEOTORCH: lambda layer: make(layer, "weight", *arguments)}


def registered(layer: nn.Module, library: Any, *chain: nn.Module) -> nn.Module:
    for link in chain:
        library.register_parametrization(layer, "weight", link)
    return layer


def spaces(rank: int) -> dict[str, tuple[float, dict[str, Maker]]]:
    """Return what gets to each space, and the target beside GeoTorch's way.

    Torch's way comes first: ours should cost no more than that.
    """
    low, fixed = (f"positive_semidefinite_{kind}_rank" for kind in ("low", "fixed"))
    spectral = ours(maps.Symmetric(), maps.SpectralSoftplus())
    linear = {
        "symmetric": (1, geotorchs("symmetric"), ours(maps.Symmetric())),
        "skew": (-1, geotorchs("skew"), ours(maps.Skew())),
    }
    others = {
        "GL+": (
            geotorchs("invertible"),
            ours(maps.InvertibleSVD()),
            {f"{OURS} PLU": ours(maps.PLU("positive"))},
        ),
        "SL": (
            geotorchs("sln"),
            ours(maps.InvertibleSVD("one")),
            {f"{OURS} PLU": ours(maps.PLU("one"))},
        ),
        "definite": (
            geotorchs("positive_definite"),
            ours(maps.Cholesky()),
            {f"{OURS} SpectralSoftplus": spectral},
        ),
        "semidefinite": (geotorchs("positive_semidefinite"), ours(maps.Gram()), {}),
        f"rank <= {rank}": (geotorchs(low, rank), ours(maps.Gram(rank)), {}),
        f"rank = {rank}": (geotorchs(fixed, rank), ours(maps.Cholesky(rank=rank)), {}),
    }
    made: dict[str, tuple[float, dict[str, Maker]]] = {}
    for space, (sign, theirs, mine) in linear.items():
        made[space] = NO_MORE, {TORCHS: torchs(Triangle(sign)), **theirs, OURS: mine}
    for space, (theirs, mine, more) in others.items():
        any_matrix = space in ("GL+", "SL")
        chain = [Exponential()] if any_matrix else [Triangle(1), Exponential()]
        made[space] = A_THIRD, {TORCHS: torchs(*chain), **theirs, OURS: mine, **more}
    return made


def read(name: str, make: Maker, n: int, G: Tensor) -> Contestant:
    """Return one forward and backward of a weight, away from where it starts."""
    layer = make(Holder((n, n)))
    for original in layer.parametrizations.weight.parameters():
        original.data.add_(torch.randn_like(original) / n**0.5)
    return Contestant(name, "layer.weight.backward(G)", {"layer": layer, "G": G})


def measure(effort: Effort) -> Report:
    """Time a read of each square space, beside torch's exponential and GeoTorch."""
    claim = "Invertible and definite weights cost a third of GeoTorch's, linear no more"
    report = times_report(claim, TORCHS, SETTING)
    effort = replace(effort, rounds=min(effort.rounds, ROUNDS))
    for n, rank in ((4, 2),) if effort.quick else ((64, 8), (256, 32)):
        for space, (target, made) in spaces(rank).items():
            case, G = f"{n} x {n}, {space}", torch.randn(n, n)
            contestants = [read(name, make, n, G) for name, make in made.items()]
            comparison = compare(contestants, effort)
            add(report, case, comparison, NO_MORE)
            if GEOTORCH in comparison.seconds:
                ratio = comparison.ratios(OURS, GEOTORCH).median
                verdict = report.judge(f"{case}: / {GEOTORCH}", ratio, target)
                report.notes.append(f"{case}: {ratio:.3f} of GeoTorch's, {verdict}.")
    return report


if __name__ == "__main__":
    main(measure)
