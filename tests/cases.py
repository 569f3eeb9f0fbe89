"""The table that every law of test_laws.py runs over: a new map is a new row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import pytest
import torch

from case import ROUNDED, always, mask
from cases_combinators import COMBINATORS
from cases_convolutions import CONVOLUTIONS
from cases_definite import DEFINITE
from cases_dynamics import DYNAMICS
from cases_entrywise import ENTRYWISE
from cases_grassmann import GRASSMANN
from cases_invertible import INVERTIBLE
from cases_linear import LINEAR
from cases_low_rank import LOW_RANK
from cases_norms import NORMS
from cases_simplex import SIMPLEX
from cases_sparse import SPARSE
from cases_stochastic import STOCHASTIC
from holdfast import linalg, maps, sets
from holdfast.testing.case import ALL, COMPLEX, REAL, SQUARE, TENSORS, Case, Shape


def _lengths(dim: int | None) -> Callable[[Shape], Sequence[Shape]]:
    def shapes(shape: Shape) -> Sequence[Shape]:
        kept = None if dim is None else dim % len(shape)
        length = tuple(n if i == kept else 1 for i, n in enumerate(shape))
        return (() if dim is None else length, shape)

    return shapes


def _matrix(dim: int) -> Callable[[Shape], Sequence[Shape]]:
    """Return the shape of a tensor as one matrix with the given dimension as rows."""
    return lambda shape: (linalg.matricized_shape(shape, dim),)


def _with_scale(shape: Shape) -> Sequence[Shape]:
    batch = shape[:-2]
    return ((*batch, 1, 1) if batch else (), shape)


_STIEFEL = always(sets.Stiefel())
_NO_INVERSE = {
    "right_inverse": "not known for an exponential of n x k coordinates; as in torch",
    "registering": "without a right inverse the weight becomes the original",
}
_AS_TORCH = {**ROUNDED, **_NO_INVERSE}
_ONE_SLICE = {
    "batch": "the tensor is one matrix, or slices of any number of dimensions"
}
_ONE_MATRIX = {"batch": "the whole tensor is one matrix"}
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
        always(sets.SymmetricMatrices()),
        SQUARE,
    ),
    Case("skew", lambda _: [maps.Skew()], always(sets.SkewMatrices()), SQUARE),
    Case(
        "lower",
        lambda _: [maps.Triangular()],
        always(sets.TriangularMatrices()),
    ),
    Case(
        "strictly upper",
        lambda _: [maps.Triangular(upper=True, strict=True)],
        always(sets.TriangularMatrices(upper=True, strict=True)),
    ),
    Case(
        "mask",
        lambda shape: [maps.Mask(mask(shape))],
        lambda shape: sets.Sparse(mask(shape)),
        TENSORS,
        exceptions={"batch": "the mask is as large as the batch"},
    ),
    *(
        Case(name, make, _STIEFEL, SQUARE, exceptions=ROUNDED)
        for name, make in (
            ("cayley", lambda _: [maps.Skew(), maps.Cayley()]),
            ("matrix_exp", lambda _: [maps.Skew(), maps.MatrixExp()]),
        )
    ),
    Case(
        "definite",
        lambda _: [maps.Symmetric(), maps.MatrixExp()],
        always(sets.SymmetricPositiveDefinite()),
        SQUARE,
        exceptions={"huge": "exp(1e18) is larger than any number"},
    ),
    *(
        Case(
            f"thin {name}",
            lambda _, kind=kind: [maps.ThinOrthogonal(kind)],
            _STIEFEL,
            exceptions=ROUNDED,
        )
        for name, kind in (("cayley", "cayley"), ("exponential", "matrix_exp"))
    ),
    Case("householder", lambda _: [maps.Householder()], _STIEFEL, dtypes=REAL),
    *(
        Case(
            f"orthogonal {kind}",
            lambda _, kind=kind: [maps.Orthogonal(kind)],
            _STIEFEL,
            exceptions=ROUNDED,
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
            f"special {kind}",
            lambda _, kind=kind: [maps.Orthogonal(kind, special=True)],
            always(sets.SpecialOrthogonal()),
            SQUARE,
            REAL,
            exceptions={} if kind == "householder" else ROUNDED,
        )
        for kind in ("matrix_exp", "cayley", "householder")
    ),
    *(
        Case(
            f"special {kind} without base",
            lambda _, kind=kind: [
                maps.Orthogonal(kind, use_trivialization=False, special=True)
            ],
            always(sets.SpecialOrthogonal()),
            SQUARE,
            REAL,
            exceptions={} if kind == "householder" else _AS_TORCH,
        )
        for kind in ("matrix_exp", "cayley", "householder")
    ),
    Case(
        "special unitary",
        lambda _: [maps.Orthogonal(special=True)],
        always(sets.SpecialUnitary()),
        SQUARE,
        COMPLEX,
    ),
    Case(
        "special unitary without base",
        lambda _: [maps.Orthogonal(use_trivialization=False, special=True)],
        always(sets.SpecialUnitary()),
        SQUARE,
        COMPLEX,
        exceptions=_NO_INVERSE,
    ),
    Case("polar", lambda _: [maps.Polar()], _STIEFEL),
    *(
        Case(
            f"matricized thin cayley {dim}",
            lambda _, dim=dim: [maps.Matricized(maps.ThinOrthogonal(), dim)],
            always(sets.Matricized(sets.Stiefel(), dim)),
            TENSORS,
            originals=_matrix(dim),
            exceptions={**ROUNDED, **_ONE_MATRIX},
        )
        for dim in (0, -1)
    ),
    Case(
        "matricized householder without base",
        lambda _: [
            maps.Matricized(maps.Orthogonal("householder", use_trivialization=False))
        ],
        always(sets.Matricized(sets.Stiefel())),
        TENSORS,
        REAL,
        originals=_matrix(0),
        exceptions=_ONE_MATRIX,
    ),
    Case(
        "matricized without right inverse",
        lambda _: [
            maps.Matricized(maps.Orthogonal("cayley", use_trivialization=False), -1)
        ],
        always(sets.Matricized(sets.Stiefel(), -1)),
        TENSORS,
        originals=_matrix(-1),
        exceptions={**_AS_TORCH, **_ONE_MATRIX},
    ),
    Case(
        "matricized weight norm",
        lambda _: [maps.Matricized(maps.WeightNorm(), -1)],
        always(sets.Real()),
        TENSORS,
        originals=lambda shape: _lengths(0)(_matrix(-1)(shape)[0]),
        exceptions=_ONE_MATRIX,
    ),
    Case(
        "scaled orthogonal",
        lambda _: [maps.Scaled(maps.Orthogonal("cayley"))],
        always(sets.ScaledOrthogonal()),
        originals=_with_scale,
        exceptions=ROUNDED,
    ),
    Case(
        "scaled polar",
        lambda _: [maps.Scaled(maps.Polar())],
        always(sets.ScaledOrthogonal()),
        originals=_with_scale,
    ),
    Case(
        "scaled skew",
        lambda _: [maps.Scaled(maps.Skew())],
        always(sets.SkewMatrices()),
        SQUARE,
        originals=_with_scale,
    ),
    Case(
        "scaled matricized",
        lambda _: [maps.Scaled(maps.Matricized(maps.ThinOrthogonal()))],
        always(sets.Matricized(sets.ScaledOrthogonal())),
        TENSORS,
        originals=lambda shape: ((), *_matrix(0)(shape)),
        exceptions={**ROUNDED, **_ONE_MATRIX},
    ),
    Case(
        "tripled",
        lambda _: [maps.Scaled(maps.ThinOrthogonal("matrix_exp"), -3.0)],
        always(sets.Scaled(sets.Stiefel(), -3.0)),
        exceptions=ROUNDED,
    ),
    Case(
        "doubled rotation",
        lambda _: [maps.Scaled(maps.Orthogonal(special=True), 2.0)],
        always(sets.Scaled(sets.SpecialOrthogonal(), 2.0)),
        SQUARE,
        REAL,
        exceptions=ROUNDED,
    ),
    *(
        Case(
            f"weight norm {dim}",
            lambda _, dim=dim: [maps.WeightNorm(dim)],
            always(sets.Real()),
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
            always(sets.SpectralSphere(axis=dim)),
            tuple(shape for shape in TENSORS if 0 not in shape),
            exceptions=_ESTIMATE,
        )
        for dim in (0, -1)
    ),
    # the families, each in a file of its own
    *COMBINATORS,
    *CONVOLUTIONS,
    *DEFINITE,
    *DYNAMICS,
    *ENTRYWISE,
    *GRASSMANN,
    *INVERTIBLE,
    *LINEAR,
    *LOW_RANK,
    *NORMS,
    *SIMPLEX,
    *SPARSE,
    *STOCHASTIC,
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
