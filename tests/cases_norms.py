"""Norms of slices and singular values: the rows of the table of cases, and the sets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from case import ROUNDED, always
from holdfast import maps, sets
from holdfast.linalg.rays import Dims
from holdfast.testing.case import MATRICES, TENSORS, Case, Shape
from subjects import Subject

# one entry has no deviation
LONG: tuple[Shape, ...] = ((4, 4), (2, 3, 3), (0, 3, 3), (5, 3), (3, 5), (6,))

# a single slice has an entry
FILLED = tuple(shape for shape in TENSORS if 0 not in shape)

_ONE_SLICE = {"batch": "the whole tensor is one slice"}
_ONE_MATRIX = {"batch": "the whole tensor is one matrix"}


def _along(dim: Dims) -> tuple[Shape, ...]:
    """Return shapes that have the dimensions, with entries along them."""
    return {None: FILLED, -1: TENSORS}.get(dim, MATRICES)


def _except(dim: Dims) -> dict[str, str]:
    return _ONE_SLICE if dim is None else {}


DIMS = (-1, -2, (-2, -1), None)

NORMS = (
    *(
        Case(
            f"{name} {dim}",
            lambda _, kind=kind, dim=dim: [kind(2.0, dim)],
            always(sets.Sphere(2.0, dim)),
            _along(dim),
            exceptions=_except(dim),
        )
        for name, kind, dims in (
            ("normalize", maps.Normalize, DIMS),
            ("great circles", maps.SphereExp, (-2, None)),
        )
        for dim in dims
    ),
    *(
        Case(
            f"standardize {dim}",
            lambda _, dim=dim: [maps.Standardize(0.5, dim)],
            always(sets.Standardized(0.5, dim)),
            LONG if dim == -1 else tuple(shape for shape in LONG if len(shape) > 1),
        )
        for dim in (-1, (-2, -1))
    ),
    Case(
        "scaled weight standardization",
        lambda _: [maps.Standardize(1.7, fan_in=True)],
        always(sets.Standardized(1.7, fan_in=True)),
        LONG,
    ),
    *(
        Case(
            f"clip {p}-norm {dim}",
            lambda _, p=p, dim=dim: [maps.ClipNorm(1.5, p=p, dim=dim)],
            always(sets.LpBall(p, 1.5, dim)),
            _along(dim),
            exceptions=_except(dim),
        )
        for p, dim in ((1, -1), (2, -2), ("inf", (-2, -1)), (3, None))
    ),
    Case(
        "clip norms from both sides",
        lambda _: [maps.ClipNorm(2.0, low=0.1)],
        always(sets.NormInterval(0.1, 2.0)),
        TENSORS,
    ),
    *(
        Case(
            f"radial sigmoid {dim}",
            lambda _, dim=dim: [maps.RadialSigmoid(3.0, dim)],
            always(sets.LpBall(2.0, 3.0, dim)),
            _along(dim),
            exceptions=_except(dim),
        )
        for dim in (-1, (-2, -1))
    ),
    Case(
        "spectral bound",
        lambda _: [maps.SpectralBound(1.5)],
        always(sets.SpectralBall(1.5)),
    ),
    *(
        Case(
            f"exact spectral norm {dim}",
            lambda _, dim=dim: [maps.SpectralNorm(dim=dim, exact=True)],
            always(sets.SpectralSphere(axis=dim)),
            FILLED,
            exceptions=_ONE_MATRIX | {"shapes": "the norm of no entries is 0, not 1"},
        )
        for dim in (0, -1)
    ),
    *(
        Case(
            f"sigma reparam {dim}",
            lambda _, dim=dim: [maps.SigmaReparam(dim=dim)],
            always(sets.Real()),
            FILLED,
            originals=lambda shape: ((), shape),
            exceptions=_ONE_MATRIX,
        )
        for dim in (0, -1)
    ),
    *(
        Case(
            f"bounded svd {low}",
            lambda _, low=low: [maps.BoundedSVD(low, high=1.5)],
            always(sets.SingularValuesIn(low, high=1.5)),
            exceptions=ROUNDED,
        )
        for low in (0.5, 0.0, 1.5)
    ),
)


def longer(W: Tensor, eps: float) -> Tensor:
    """Return a tensor whose first slice is longer than the set allows."""
    first = torch.arange(W.shape[-2]).unsqueeze(-1) == 0
    norm = torch.linalg.vector_norm(W, dim=-1, keepdim=True)
    return torch.where(first, 2.0 * (1 + eps) * W / norm, W)


def shorter(W: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(W, dim=-1, keepdim=True)
    return 1.5 * (1 - eps) * W / norm


def larger(p: float | str) -> Callable[[Tensor, float], Tensor]:
    def miss(W: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(W, float(p), -1, keepdim=True)
        return 2.0 * (1 + eps) * W / norm

    return miss


def shifted(W: Tensor, eps: float) -> Tensor:
    return W + eps


def stretched(W: Tensor, eps: float) -> Tensor:
    return W * (1 + eps)


def beyond(W: Tensor, eps: float) -> Tensor:
    """Return a matrix whose smallest singular value is too small."""
    U, values, Vh = torch.linalg.svd(W, full_matrices=False)
    last = torch.arange(values.shape[-1]) == values.shape[-1] - 1
    values = torch.where(last, 0.5 - 1.5 * eps, values)
    return (U * values.unsqueeze(-2)) @ Vh


_SHAPES: tuple[Shape, ...] = ((4, 3), (3, 4), (1, 2), (2, 5, 2), (0, 4, 3))

NORMS_SETS = {
    "unit rows": Subject(sets.Sphere(), _SHAPES, zero=False, miss=stretched),
    "columns": Subject(sets.Sphere(2.0, -2), _SHAPES, zero=False, miss=stretched),
    "frobenius sphere": Subject(
        sets.Sphere(3.0, (-2, -1)), _SHAPES, zero=False, miss=stretched
    ),
    **{
        f"{p}-ball": Subject(sets.LpBall(p, 2.0), _SHAPES, zero=True, miss=larger(p))
        for p in (1, 2, "inf")
    },
    "3-ball": Subject(
        sets.LpBall(3, 2.0), _SHAPES, zero=True, nearest=False, miss=larger(3)
    ),
    "norms from below": Subject(
        sets.NormInterval(1.5, 2.0), _SHAPES, zero=False, miss=shorter
    ),
    "norms from above": Subject(
        sets.NormInterval(1.5, 2.0), _SHAPES, zero=False, miss=longer
    ),
    "standardized": Subject(
        sets.Standardized(), ((4, 3), (3, 4), (2, 5, 2)), zero=False, miss=shifted
    ),
    "standardized to a fan-in": Subject(
        sets.Standardized(2.0, -2, fan_in=True),
        ((4, 3), (3, 4), (0, 4, 3)),
        zero=False,
        miss=stretched,
    ),
    "bounded condition": Subject(
        sets.SingularValuesIn(0.5, high=1.5), _SHAPES, zero=False, miss=beyond
    ),
    "equal singular values": Subject(
        sets.SingularValuesIn(1.5, high=1.5), _SHAPES, zero=False, miss=stretched
    ),
}
