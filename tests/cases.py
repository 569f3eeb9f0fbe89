"""The table that every law of test_laws.py runs over: a new map is a new row.

A case is a chain of maps and the set that the chain lands in. What a case is known not
to do stands in `exceptions`, by the name of the law, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from holdfast import maps, sets
from holdfast.testing.case import ALL, REAL, SQUARE, TENSORS, Case, Shape

# What a law runs over that does not look at the size: square, tall and wide
PLAIN: tuple[Shape, ...] = ((4, 4), (5, 3), (3, 5))


def mask(shape: Shape) -> Tensor:
    """Return a mask that prunes every third entry."""
    return (torch.arange(torch.Size(shape).numel()) % 3 != 0).reshape(shape)


def _lengths(dim: int | None) -> Callable[[Shape], Sequence[Shape]]:
    def shapes(shape: Shape) -> Sequence[Shape]:
        kept = None if dim is None else dim % len(shape)
        length = tuple(n if i == kept else 1 for i, n in enumerate(shape))
        return (() if dim is None else length, shape)

    return shapes


def _always(constraint: sets.Constraint) -> Callable[[Shape], sets.Constraint]:
    return lambda shape: constraint


_STIEFEL = _always(sets.Stiefel())
_ROUNDED = {
    "huge": "of an angle of 1e18 rounding leaves no digit, and of I + 1e18 A no I"
}
_AS_TORCH = {
    **_ROUNDED,
    "right_inverse": "not known for an exponential of n x k coordinates; as in torch",
    "registering": "without a right inverse the weight becomes the original",
}
_ONE_SLICE = {
    "batch": "the tensor is one matrix, or slices of any number of dimensions"
}
_ESTIMATE = {
    **_ONE_SLICE,
    "image": "the norm is estimated: test_the_spectral_norm_converges_to_one",
    "right_inverse": "the same",
    "registering": "the same",
    "optimizer": "the same",
}

CASES = (
    Case(
        "symmetric",
        lambda _: [maps.Symmetric()],
        _always(sets.SymmetricMatrices()),
        SQUARE,
    ),
    Case("skew", lambda _: [maps.Skew()], _always(sets.SkewMatrices()), SQUARE),
    Case(
        "lower",
        lambda _: [maps.Triangular()],
        _always(sets.TriangularMatrices()),
    ),
    Case(
        "strictly upper",
        lambda _: [maps.Triangular(upper=True, strict=True)],
        _always(sets.TriangularMatrices(upper=True, strict=True)),
    ),
    Case(
        "mask",
        lambda shape: [maps.Mask(mask(shape))],
        lambda shape: sets.Sparse(mask(shape)),
        TENSORS,
        exceptions={"batch": "the mask is as large as the batch"},
    ),
    *(
        Case(name, make, _STIEFEL, SQUARE, exceptions=_ROUNDED)
        for name, make in (
            ("cayley", lambda _: [maps.Skew(), maps.Cayley()]),
            ("matrix_exp", lambda _: [maps.Skew(), maps.MatrixExp()]),
        )
    ),
    Case(
        "definite",
        lambda _: [maps.Symmetric(), maps.MatrixExp()],
        _always(sets.SymmetricPositiveDefinite()),
        SQUARE,
        exceptions={"huge": "exp(1e18) is larger than any number"},
    ),
    *(
        Case(
            f"thin {name}",
            lambda _, kind=kind: [maps.ThinOrthogonal(kind)],
            _STIEFEL,
            exceptions=_ROUNDED,
        )
        for name, kind in (("cayley", "cayley"), ("exponential", "matrix_exp"))
    ),
    Case("householder", lambda _: [maps.Householder()], _STIEFEL, dtypes=REAL),
    *(
        Case(
            f"orthogonal {kind}",
            lambda _, kind=kind: [maps.Orthogonal(kind)],
            _STIEFEL,
            exceptions=_ROUNDED,
        )
        for kind in ("matrix_exp", "cayley")
    ),
    Case(
        "orthogonal householder",
        lambda _: [maps.Orthogonal("householder")],
        _STIEFEL,
        dtypes=REAL,
    ),
    *(
        Case(
            f"orthogonal {kind} without base",
            lambda _, kind=kind: [maps.Orthogonal(kind, use_trivialization=False)],
            _STIEFEL,
            exceptions=_AS_TORCH,
        )
        for kind in ("matrix_exp", "cayley")
    ),
    Case(
        "orthogonal householder without base",
        lambda _: [maps.Orthogonal("householder", use_trivialization=False)],
        _STIEFEL,
        dtypes=REAL,
    ),
    *(
        Case(
            f"weight norm {dim}",
            lambda _, dim=dim: [maps.WeightNorm(dim)],
            _always(sets.Real()),
            TENSORS,
            originals=_lengths(dim),
            exceptions=_ONE_SLICE,
        )
        for dim in (0, -1, None)
    ),
    *(
        Case(
            f"spectral norm {dim}",
            lambda _, dim=dim: [maps.SpectralNorm(dim=dim)],
            _always(sets.SpectralSphere(axis=dim)),
            tuple(shape for shape in TENSORS if 0 not in shape),
            exceptions=_ESTIMATE,
        )
        for dim in (0, -1)
    ),
)


def settings(
    case: Case, dtypes: Sequence[torch.dtype], shapes: Sequence[Shape]
) -> list[tuple[Shape, torch.dtype]]:
    """Return a case's own shapes and types among the given ones."""
    return [
        (shape, dtype)
        for shape in case.shapes
        for dtype in case.dtypes
        if shape in shapes and dtype in dtypes
    ]


def over(
    law: str,
    dtypes: Sequence[torch.dtype] = ALL,
    shapes: Sequence[Shape] = TENSORS,
    only: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a test of `case`, `shape` and `dtype` into one test for each case.

    It covers those of the case's own shapes and types that are asked for, and leaves
    out the cases that except the law. `only` names the few cases of a slow law.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        def run(case: Case, **fixtures: object) -> None:
            for shape, dtype in settings(case, dtypes, shapes):
                try:
                    test(case=case, shape=shape, dtype=dtype, **fixtures)
                except Exception as error:
                    error.add_note(f"{case}, shape {shape}, {dtype}")
                    raise

        own = inspect.signature(test).parameters
        kept = [own[name] for name in own if name not in ("shape", "dtype")]
        run.__signature__ = inspect.Signature(kept)
        run.__name__ = test.__name__
        covered = [
            case
            for case in CASES
            if law not in case.exceptions and settings(case, dtypes, shapes)
            if not only or case.name in only
        ]
        assert len(covered) >= len(only), "a law must not run over nothing"
        assert covered
        return pytest.mark.parametrize("case", covered, ids=str)(run)

    return decorate
