"""GeoTorch's 19 spaces cost three times ours in the median, and none costs less."""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import holdfast
from holdfast import maps

from .reporting import OURS, Report, add, main, times_report
from .timing import Contestant, Effort, compare
from .weights import GEOTORCH, Holder, Maker, geotorchs, ours, spread

SETTING = (
    "`layer.weight.backward(G)`: one read and its gradient, float32. Coordinates are "
    "normal with variance 1/n or 2/n. Each space of GeoTorch has its default map; "
    "beside it the map of docs/names.md, and others of ours where there are. Spheres "
    "are one in each row. The product is of two Stiefel manifolds, stacked, and the "
    "space R^n is read through an identity. Spaces of square matrices have n rows."
)
NEVER_SLOWER, MEDIAN = 1.0, 0.33

Ways = tuple[dict[str, Maker], dict[str, Maker]]


class Stack(nn.Module):
    """GeoTorch's product of two manifolds, whose points are stacked."""

    def __init__(self, product: nn.Module) -> None:
        super().__init__()
        self.product = product

    def forward(self, *Xs: Tensor) -> Tensor:
        return torch.cat(self.product(Xs))

    def right_inverse(self, W: Tensor) -> tuple[Tensor, ...]:
        return self.product.right_inverse(W.chunk(2), check_in_manifold=False)


def registered(layer: nn.Module, module: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", module, unsafe=True)


def reals(layer: nn.Module, geotorch: Any) -> nn.Module:
    return registered(layer, geotorch.Rn(layer.weight.shape))


def product(layer: nn.Module, geotorch: Any) -> nn.Module:
    halves = layer.weight.detach().chunk(2)
    factors = [geotorch.Stiefel(half.shape) for half in halves]
    with torch.no_grad():
        layer.weight.copy_(torch.cat([factor.sample() for factor in factors]))
    return registered(layer, Stack(geotorch.product.ProductManifold(factors)))


def hurwitz(layer: nn.Module, geotorch: Any) -> nn.Module:
    """Start at zeros: the way back takes a matrix of n^4 entries."""
    shape = layer.weight.shape
    space = geotorch.Hurwitz(shape, 1e-3)
    space.right_inverse = lambda _: tuple(torch.zeros(shape) for _ in range(3))
    return registered(layer, space)


def without_a_function(make: Any) -> dict[str, Maker]:
    if importlib.util.find_spec(GEOTORCH) is None:
        return {}
    return {GEOTORCH: partial(make, geotorch=importlib.import_module(GEOTORCH))}


def mine(first: Maker, **others: Maker) -> dict[str, Maker]:
    """Return the map that counts, and others of ours."""
    return {OURS: first, **{f"{OURS} {name}": make for name, make in others.items()}}


def shaped(rank: int) -> dict[str, Ways]:
    """Return the ways to the spaces that have matrices of any shape."""
    thin = ours(maps.ThinOrthogonal("matrix_exp"))
    pair = ours(maps.Concatenated(maps.ThinOrthogonal(), maps.ThinOrthogonal()))
    subspaces = ours(maps.Horizontal()), ours(maps.Horizontal("matrix_exp"))
    return {
        "Rn": (without_a_function(reals), mine(ours(maps.Chain()))),
        "Sphere": (geotorchs("sphere"), mine(ours(maps.SphereExp()))),
        "SphereEmbedded": (
            geotorchs("sphere", embedded=True),
            mine(ours(maps.Normalize())),
        ),
        "Stiefel": (
            geotorchs("orthogonal"),
            mine(holdfast.orthogonal, ThinOrthogonal_matrix_exp=thin),
        ),
        "Grassmannian": (
            geotorchs("grassmannian"),
            mine(subspaces[0], Horizontal_matrix_exp=subspaces[1]),
        ),
        "AlmostOrthogonal": (
            geotorchs("almost_orthogonal", lam=0.1),
            mine(ours(maps.BoundedSVD(0.9, high=1.1))),
        ),
        "LowRank": (geotorchs("low_rank", rank=rank), mine(ours(maps.LowRank(rank)))),
        "FixedRank": (
            geotorchs("fixed_rank", rank=rank),
            mine(ours(maps.FixedRank(rank))),
        ),
        "ProductManifold": (without_a_function(product), mine(pair)),
    }


def square(rank: int) -> dict[str, Ways]:
    """Return the ways to the spaces of square matrices."""
    low, fixed = (f"positive_semidefinite_{kind}_rank" for kind in ("low", "fixed"))
    special = partial(holdfast.orthogonal, special=True)
    cayley = partial(special, orthogonal_map="cayley")
    spectral = ours(maps.Symmetric(), maps.SpectralSoftplus())
    positive, one = ours(maps.InvertibleSVD()), ours(maps.InvertibleSVD("one"))
    return {
        "Symmetric": (geotorchs("symmetric"), mine(ours(maps.Symmetric()))),
        "Skew": (geotorchs("skew"), mine(ours(maps.Skew()))),
        "SO": (geotorchs("orthogonal"), mine(special, cayley=cayley)),
        "GLp": (
            geotorchs("invertible"),
            mine(positive, PLU=ours(maps.PLU("positive"))),
        ),
        "SL": (geotorchs("sln"), mine(one, PLU=ours(maps.PLU("one")))),
        "PSD": (
            geotorchs("positive_definite"),
            mine(ours(maps.Cholesky()), SpectralSoftplus=spectral),
        ),
        "PSSD": (geotorchs("positive_semidefinite"), mine(ours(maps.Gram()))),
        "PSSDLowRank": (geotorchs(low, rank=rank), mine(ours(maps.Gram(rank)))),
        "PSSDFixedRank": (
            geotorchs(fixed, rank=rank),
            mine(ours(maps.Cholesky(rank=rank))),
        ),
        "Hurwitz": (without_a_function(hurwitz), mine(ours(maps.Lyapunov(1e-3)))),
    }


def read(name: str, make: Maker, G: Tensor) -> Contestant:
    """Return one forward and backward of a weight."""
    layer = spread(make(Holder(tuple(G.shape))))
    return Contestant(name, "layer.weight.backward(G)", {"layer": layer, "G": G})


def conclude(report: Report, ratios: list[float]) -> None:
    """Judge the median of all spaces and sizes."""
    if not ratios:
        report.notes.append(
            f"Each is to cost <= {NEVER_SLOWER:g} of {GEOTORCH}'s and the median "
            f"<= {MEDIAN:.2f}, but {GEOTORCH} is not installed here."
        )
        return
    median = statistics.median(ratios)
    verdict = report.judge("median of all", median, MEDIAN)
    report.notes.append(
        f"Median of {len(ratios)}: {median:.3f} of {GEOTORCH}'s, {verdict}; "
        f"from {min(ratios):.3f} to {max(ratios):.3f}."
    )


def measure(effort: Effort) -> Report:
    """Time a read of every space, at two sizes."""
    claim = "GeoTorch's spaces cost three times ours in the median, and none costs less"
    report = times_report(claim, GEOTORCH, SETTING)
    effort = replace(effort, rounds=min(effort.rounds, 25), most=3.0)
    ratios: list[float] = []
    for n, k, rank in ((4, 4, 2),) if effort.quick else ((64, 64, 8), (256, 32, 8)):
        spaces = {(n, k): shaped(rank), (n, n): square(rank)}
        if k == n:
            spaces = {(n, n): shaped(rank) | square(rank)}
        for shape, ways in spaces.items():
            G = torch.randn(shape)
            for space, made in ways.items():
                both = {**made[0], **made[1]}
                case = f"{shape[0]} x {shape[1]}, {space}"
                found = compare([read(name, both[name], G) for name in both], effort)
                there = GEOTORCH in found.seconds
                add(report, case, found, NEVER_SLOWER if there else None)
                if there:
                    ratios.append(found.ratios(OURS, GEOTORCH).median)
    conclude(report, ratios)
    return report


if __name__ == "__main__":
    main(measure)
