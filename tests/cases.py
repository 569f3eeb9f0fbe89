"""The table that every law of test_laws.py runs over: a new map is a new row.

A case is a chain of maps and the set that the chain lands in. What a case is known not
to do stands in `exceptions`, by the name of the law, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

import holdfast
from holdfast import Parametrization, linalg, maps, sets

Shape = tuple[int, ...]
Chain = list[Parametrization]

SQUARE: tuple[Shape, ...] = ((4, 4), (1, 1), (2, 3, 3), (0, 3, 3))
MATRICES: tuple[Shape, ...] = (*SQUARE, (5, 3), (3, 5), (4, 1), (2, 2, 4))
TENSORS: tuple[Shape, ...] = (*MATRICES, (6,), (4, 2, 3, 3))

# What a law runs over that does not look at the size: square, tall and wide
PLAIN: tuple[Shape, ...] = ((4, 4), (5, 3), (3, 5))

REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex64, torch.complex128)
ALL = (*REAL, *COMPLEX)

# How far the value of a chain may be from the one asked for, entry by entry, and how
# far from its set. Single precision: the issue's own threshold.
CLOSE = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.bfloat16: 4e-2,
    torch.float16: 5e-3,
    torch.complex64: 1e-5,
    torch.complex128: 1e-12,
}


@dataclass(frozen=True)
class Case:
    """A chain of maps, and what is claimed of it."""

    name: str
    make: Callable[[Shape], Chain]
    codomain: Callable[[Shape], sets.Constraint]
    shapes: tuple[Shape, ...] = MATRICES
    dtypes: tuple[torch.dtype, ...] = ALL
    originals: Callable[[Shape], Sequence[Shape]] = lambda shape: (shape,)
    exceptions: Mapping[str, str] = field(default_factory=dict)
    real: Sequence[int] | None = None  # originals that are; all but the last, if None

    def __str__(self) -> str:
        return self.name

    def settings(
        self, dtypes: Sequence[torch.dtype], shapes: Sequence[Shape]
    ) -> list[tuple[Shape, torch.dtype]]:
        """Return the case's own shapes and types among the given ones."""
        return [
            (shape, dtype)
            for shape in self.shapes
            for dtype in self.dtypes
            if shape in shapes and dtype in dtypes
        ]

    def draw(
        self, shape: Shape, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """Return random originals, those that are lengths or scales real."""
        shapes = self.originals(shape)
        real = range(len(shapes) - 1) if self.real is None else self.real
        return tuple(
            torch.randn(s, dtype=dtype.to_real() if i in real else dtype)
            for i, s in enumerate(shapes)
        )

    def bound(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Chain:
        """Return the maps, bound to a random tensor as a registration would."""
        chain, value = self.make(shape), torch.randn(shape, dtype=dtype)
        for link in chain:
            link.bind(value)
            link.eval()
        return chain

    def registered(self, weight: Tensor) -> Host:
        """Return a module with the chain on its weight."""
        host = Host(weight)
        for link in self.make(tuple(weight.shape)):
            holdfast.register_parametrization(host, "weight", link)
        return host


class Host(nn.Module):
    """A module with one weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).sum()


def forward(chain: Chain, *tensors: Tensor) -> Tensor:
    """Run maps in order."""
    for link in chain:
        tensors = (link(*tensors),)
    return tensors[0]


def right_inverse(chain: Chain, value: Tensor) -> tuple[Tensor, ...]:
    """Run right inverses in reverse order."""
    tensors: Tensor | tuple[Tensor, ...] = value
    for link in reversed(chain):
        assert isinstance(tensors, Tensor)
        tensors = link.right_inverse(tensors)
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def mask(shape: Shape) -> Tensor:
    """Return a mask that prunes every third entry."""
    return (torch.arange(torch.Size(shape).numel()) % 3 != 0).reshape(shape)


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


def _always(constraint: sets.Constraint) -> Callable[[Shape], sets.Constraint]:
    return lambda shape: constraint


_STIEFEL = _always(sets.Stiefel())
_AS_TORCH = {
    "right_inverse": "not known for an exponential of n x k coordinates; as in torch",
    "registering": "without a right inverse the weight becomes the original",
}
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
    Case("cayley", lambda _: [maps.Skew(), maps.Cayley()], _STIEFEL, SQUARE),
    Case("matrix_exp", lambda _: [maps.Skew(), maps.MatrixExp()], _STIEFEL, SQUARE),
    Case(
        "definite",
        lambda _: [maps.Symmetric(), maps.MatrixExp()],
        _always(sets.SymmetricPositiveDefinite()),
        SQUARE,
    ),
    Case("thin cayley", lambda _: [maps.ThinOrthogonal("cayley")], _STIEFEL),
    Case("thin exponential", lambda _: [maps.ThinOrthogonal("matrix_exp")], _STIEFEL),
    Case("householder", lambda _: [maps.Householder()], _STIEFEL, dtypes=REAL),
    *(
        Case(
            f"orthogonal {kind}", lambda _, kind=kind: [maps.Orthogonal(kind)], _STIEFEL
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
            _always(sets.SpecialOrthogonal()),
            SQUARE,
            REAL,
        )
        for kind in ("matrix_exp", "cayley", "householder")
    ),
    *(
        Case(
            f"special {kind} without base",
            lambda _, kind=kind: [
                maps.Orthogonal(kind, use_trivialization=False, special=True)
            ],
            _always(sets.SpecialOrthogonal()),
            SQUARE,
            REAL,
            exceptions={} if kind == "householder" else _AS_TORCH,
        )
        for kind in ("matrix_exp", "cayley", "householder")
    ),
    Case(
        "special unitary",
        lambda _: [maps.Orthogonal(special=True)],
        _always(sets.SpecialUnitary()),
        SQUARE,
        COMPLEX,
    ),
    Case(
        "special unitary without base",
        lambda _: [maps.Orthogonal(use_trivialization=False, special=True)],
        _always(sets.SpecialUnitary()),
        SQUARE,
        COMPLEX,
        exceptions=_AS_TORCH,
    ),
    Case("polar", lambda _: [maps.Polar()], _STIEFEL),
    *(
        Case(
            f"matricized thin cayley {dim}",
            lambda _, dim=dim: [maps.Matricized(maps.ThinOrthogonal(), dim)],
            _always(sets.Matricized(sets.Stiefel(), dim)),
            TENSORS,
            originals=_matrix(dim),
            exceptions=_ONE_MATRIX,
        )
        for dim in (0, -1)
    ),
    Case(
        "matricized householder without base",
        lambda _: [
            maps.Matricized(maps.Orthogonal("householder", use_trivialization=False))
        ],
        _always(sets.Matricized(sets.Stiefel())),
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
        _always(sets.Matricized(sets.Stiefel(), -1)),
        TENSORS,
        originals=_matrix(-1),
        exceptions={**_AS_TORCH, **_ONE_MATRIX},
    ),
    Case(
        "matricized weight norm",
        lambda _: [maps.Matricized(maps.WeightNorm(), -1)],
        _always(sets.Real()),
        TENSORS,
        originals=lambda shape: _lengths(0)(_matrix(-1)(shape)[0]),
        exceptions=_ONE_MATRIX,
    ),
    Case(
        "scaled orthogonal",
        lambda _: [maps.Scaled(maps.Orthogonal("cayley"))],
        _always(sets.ScaledOrthogonal()),
        originals=_with_scale,
    ),
    Case(
        "scaled polar",
        lambda _: [maps.Scaled(maps.Polar())],
        _always(sets.ScaledOrthogonal()),
        originals=_with_scale,
    ),
    Case(
        "scaled skew",
        lambda _: [maps.Scaled(maps.Skew())],
        _always(sets.SkewMatrices()),
        SQUARE,
        originals=_with_scale,
    ),
    Case(
        "scaled matricized",
        lambda _: [maps.Scaled(maps.Matricized(maps.ThinOrthogonal()))],
        _always(sets.Matricized(sets.ScaledOrthogonal())),
        TENSORS,
        originals=lambda shape: ((), *_matrix(0)(shape)),
        exceptions=_ONE_MATRIX,
    ),
    Case(
        "tripled",
        lambda _: [maps.Scaled(maps.ThinOrthogonal("matrix_exp"), -3.0)],
        _always(sets.Scaled(sets.Stiefel(), -3.0)),
    ),
    Case(
        "doubled rotation",
        lambda _: [maps.Scaled(maps.Orthogonal(special=True), 2.0)],
        _always(sets.Scaled(sets.SpecialOrthogonal(), 2.0)),
        SQUARE,
        REAL,
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

# The families have their rows in files of their own, which import from this one.
from cases_entrywise import ENTRYWISE  # noqa: E402
from cases_simplex import SIMPLEX  # noqa: E402
from cases_stochastic import STOCHASTIC  # noqa: E402

CASES += (*ENTRYWISE, *SIMPLEX, *STOCHASTIC)


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
            for shape, dtype in case.settings(dtypes, shapes):
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
            if law not in case.exceptions and case.settings(dtypes, shapes)
            if not only or case.name in only
        ]
        assert len(covered) >= len(only), "a law must not run over nothing"
        assert covered
        return pytest.mark.parametrize("case", covered, ids=str)(run)

    return decorate


# The rows of each family stand in a file of their own, which takes `Case` from here.
from cases_convolutions import CONVOLUTIONS  # noqa: E402
from cases_dynamics import DYNAMICS  # noqa: E402
from cases_sparse import SPARSE  # noqa: E402

CASES = (*CASES, *CONVOLUTIONS, *DYNAMICS, *SPARSE)
# ---- The rows of the families, each in a file of its own ----------------------------

from cases_definite import DEFINITE  # noqa: E402
from cases_invertible import INVERTIBLE  # noqa: E402
from cases_linear import LINEAR  # noqa: E402

CASES += (*LINEAR, *INVERTIBLE, *DEFINITE)
