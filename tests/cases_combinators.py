"""Maps of maps: the rows of the table of cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import transforms

from case import ROUNDED, always
from holdfast import maps, sets
from holdfast.testing.case import REAL, SQUARE, TENSORS, Case, Chain, Shape
from subjects import Subject

_INFINITE = {"huge": "exp(1e18) is larger than any number"}

LENGTH = {"batch": "one length for the whole tensor"}
NO_INVERSE = {
    **ROUNDED,
    "right_inverse": "the map inside has none",
    "registering": "without a right inverse the weight becomes the original",
}
STRAIGHT = {
    "gradient": "it is the identity's, on purpose: tests/test_islands.py has it"
}
FROZEN = {
    "gradient": "there is none of the frozen factor: tests/test_products.py has it",
    "second_derivative": "the same",
    "transforms": "the same",
    "autocast_backward": "the same",
    **ROUNDED,
}
OF_TORCH = {
    "spec": "a transform of torch's is no plain data",
    "half": "torch's transforms compute in the type that they are given",
}
DOUBLE = (torch.float32, torch.float64)
WIDE: tuple[Shape, ...] = ((4, 4), (5, 3), (3, 5), (2, 3, 3), (0, 3, 3), (2, 2, 4))
TALL: tuple[Shape, ...] = ((4, 4), (5, 3), (1, 1), (2, 4, 3), (0, 3, 3))
FLAT: tuple[Shape, ...] = ((4, 4), (3, 5), (1, 1), (2, 3, 4), (0, 3, 3))
SINGLE = (torch.float32, torch.bfloat16, torch.float16, torch.complex64)


def turned(shape: Shape) -> Sequence[Shape]:
    return ((*shape[:-2], shape[-1], shape[-2]),)


def shortest(shape: Shape) -> Sequence[Shape]:
    return ((*shape[:-2], min(shape[-2:])),)


def several(size: int) -> int:
    """Return a number of blocks that divides a size, more than one if there is."""
    return 2 if size % 2 == 0 else size


def blocks(
    inner: Callable[[], maps.Parametrization], dim: int
) -> Callable[[Shape], Chain]:
    return lambda shape: [maps.PerBlock(inner(), several(shape[dim]), dim)]


def of_blocks(inner: sets.Constraint, dim: int) -> Callable[[Shape], sets.Constraint]:
    return lambda shape: sets.PerBlock(inner, several(shape[dim]), dim)


def stacked(dim: int) -> Callable[[Shape], Sequence[Shape]]:
    def shapes(shape: Shape) -> Sequence[Shape]:
        matrix, count = [*shape[-2:]], several(shape[dim])
        matrix[dim] //= count
        return ((*shape[:-2], count, *matrix),)

    return shapes


def scaled(shape: Shape) -> Sequence[Shape]:
    ((*batch, _, _),) = stacked(-2)(shape)
    return ((*batch, 1, 1), *stacked(-2)(shape))


def svd() -> maps.Product:
    return maps.Product(maps.ThinOrthogonal(), maps.Diagonal(), maps.ThinOrthogonal())


def two_factors(shape: Shape) -> Sequence[Shape]:
    left, _, right = factors(shape)
    return left, right


def beside_diagonal(shape: Shape) -> Sequence[Shape]:
    left, middle, _ = factors(shape)
    return left, middle


def factors(shape: Shape) -> Sequence[Shape]:
    *batch, n, k = shape
    r = min(n, k)
    return ((*batch, n, r), (*batch, r), (*batch, r, k))


def cut(shape: Shape) -> tuple[int, int]:
    return 1, shape[-1] - 1


def halves(shape: Shape) -> maps.Concatenated:
    parts = maps.Orthogonal("cayley"), maps.Triangular()
    return maps.Concatenated(*parts, sizes=cut(shape), dim=-1)


def scales() -> maps.Chain:
    return maps.Chain(maps.Softplus(), maps.Diagonal())


COMBINATORS = (
    Case("empty chain", lambda _: [maps.Chain()], always(sets.Real()), TENSORS),
    Case(
        "chain of skew and cayley",
        lambda _: [maps.Chain(maps.Skew(), maps.Cayley())],
        always(sets.Stiefel()),
        SQUARE,
        exceptions=ROUNDED,
    ),
    Case(
        "chain of softplus and diagonal",
        lambda _: [scales()],
        always(scales().codomain),
        dtypes=REAL,
        originals=shortest,
    ),
    Case(
        "chain of weight norm and skew",
        lambda _: [maps.Chain(maps.WeightNorm(None), maps.Skew())],
        always(sets.SkewMatrices()),
        SQUARE,
        originals=lambda shape: ((), shape),
        exceptions=LENGTH,
    ),
    Case(
        "scaled chain",
        lambda _: [maps.Scaled(maps.Chain(maps.Skew(), maps.MatrixExp()), 0.5)],
        always(sets.Scaled(sets.Stiefel(), 0.5)),
        SQUARE,
        exceptions=ROUNDED,
    ),
    Case(
        "transposed lower",
        lambda _: [maps.Transposed(maps.Triangular())],
        always(sets.TriangularMatrices(upper=True)),
        originals=turned,
    ),
    Case(
        "transposed softmax",
        lambda _: [maps.Transposed(maps.Softmax())],
        always(sets.Transposed(sets.Simplex())),
        dtypes=REAL,
        originals=turned,
    ),
    Case(
        "transposed exponential without base",
        lambda _: [maps.Transposed(maps.Orthogonal(use_trivialization=False))],
        always(sets.Stiefel()),
        originals=turned,
        exceptions=NO_INVERSE,
    ),
    Case(
        "cast orthogonal",
        lambda _: [maps.Cast(maps.Orthogonal("cayley"))],
        always(sets.Stiefel()),
        exceptions=ROUNDED,
    ),
    Case(
        "cast definite",
        lambda _: [maps.Cast(maps.Chain(maps.Symmetric(), maps.MatrixExp()))],
        always(sets.SymmetricPositiveDefinite()),
        SQUARE,
        exceptions=_INFINITE,
    ),
    Case(
        "cast to single",
        lambda _: [maps.Cast(maps.ThinOrthogonal(), torch.float32)],
        always(sets.Stiefel()),
        dtypes=SINGLE,
        exceptions=ROUNDED,
    ),
    Case(
        "cast scaled",
        lambda _: [maps.Cast(maps.Scaled(maps.ThinOrthogonal()))],
        always(sets.ScaledOrthogonal()),
        originals=lambda shape: (
            (*shape[:-2], 1, 1) if len(shape) > 2 else (),
            shape,
        ),
        exceptions=ROUNDED,
    ),
    Case(
        "straight through polar",
        lambda _: [maps.StraightThrough(maps.Polar())],
        always(sets.Stiefel()),
        exceptions=STRAIGHT,
    ),
    *(
        Case(
            f"orthogonal blocks {dim}",
            blocks(lambda: maps.Orthogonal("cayley"), dim),
            of_blocks(sets.Stiefel(), dim),
            originals=stacked(dim),
            exceptions=ROUNDED,
        )
        for dim in (-2, -1)
    ),
    Case(
        "scaled blocks",
        blocks(lambda: maps.Scaled(maps.ThinOrthogonal()), -2),
        of_blocks(sets.ScaledOrthogonal(), -2),
        originals=scaled,
        exceptions=ROUNDED,
    ),
    Case(
        "softmax blocks",
        blocks(maps.Softmax, -1),
        of_blocks(sets.Simplex(), -1),
        dtypes=REAL,
        originals=stacked(-1),
    ),
    Case(
        "concatenated",
        lambda shape: [halves(shape)],
        lambda shape: sets.Concatenations(
            (sets.Stiefel(), sets.TriangularMatrices()), cut(shape), -1
        ),
        WIDE,
        originals=lambda shape: tuple((*shape[:-1], k) for k in cut(shape)),
        real=(),
    ),
    Case(
        "product of rank 1",
        lambda _: [maps.Product(maps.Chain(), maps.Chain(), sizes=1)],
        always(sets.MatrixProducts((sets.Real(), sets.Real()), 1)),
        originals=lambda shape: (
            (*shape[:-1], 1),
            (*shape[:-2], 1, shape[-1]),
        ),
        real=(),
    ),
    Case(
        "product of singular factors",
        lambda _: [svd()],
        always(svd().codomain),
        originals=factors,
        real=(),
        exceptions=ROUNDED,
    ),
    *(
        Case(
            f"product of orthonormal and {name}",
            lambda _, beside=beside: [
                maps.Product(maps.Orthogonal("cayley"), beside())
            ],
            always(sets.MatrixProducts((sets.Stiefel(), beside().codomain))),
            shapes,
            originals=originals,
            real=(),
            exceptions=ROUNDED,
        )
        for name, beside, shapes, originals in (
            ("diagonal", maps.Diagonal, TALL, beside_diagonal),
            ("triangular", maps.Triangular, TALL, two_factors),
            ("definite", maps.Cholesky, TALL, two_factors),
        )
    ),
    Case(
        "product of triangular and orthonormal",
        lambda _: [maps.Product(maps.Triangular(), maps.Orthogonal("cayley"))],
        always(sets.MatrixProducts((sets.TriangularMatrices(), sets.Stiefel()))),
        FLAT,
        originals=two_factors,
        real=(),
        exceptions=ROUNDED,
    ),
    Case(
        "product beside the identity",
        lambda _: [maps.Product(maps.Orthogonal("cayley"), maps.Chain())],
        always(sets.Real()),
        originals=two_factors,
        real=(),
        exceptions=ROUNDED,
    ),
    Case(
        "frozen factor",
        lambda _: [maps.Product(maps.Frozen(maps.Orthogonal("cayley")), maps.Chain())],
        always(sets.Real()),
        originals=two_factors,
        exceptions=FROZEN,
        real=(),
    ),
    *(
        Case(
            f"from {type(transform).__name__}",
            lambda _, transform=transform: [maps.FromTransform(transform)],
            always(constraint),
            TENSORS,
            dtypes=DOUBLE,
            exceptions={**OF_TORCH, **more},
        )
        for transform, constraint, more in (
            (transforms.ExpTransform(), sets.Interval(0.0), _INFINITE),
            (transforms.SigmoidTransform(), sets.Interval(0.0, 1.0), {}),
            (transforms.AffineTransform(1.0, 2.0), sets.Real(), {}),
        )
    ),
)


def stretched(W: Tensor, eps: float) -> Tensor:
    return W * (1 + eps)


_RECTANGLES = ((4, 3), (3, 4), (4, 4), (1, 1), (2, 5, 2), (0, 4, 3))
_BLOCKS = ((4, 3), (2, 5), (6, 2), (3, 4, 2), (0, 4, 3))

COMBINATOR_SETS = {
    "transposed": Subject(
        sets.Transposed(sets.TriangularMatrices(strict=True)), _RECTANGLES, cone=True
    ),
    "transposed orthonormal": Subject(
        sets.Transposed(sets.Stiefel()), _RECTANGLES, zero=False, miss=stretched
    ),
    "blocks": Subject(
        sets.PerBlock(sets.Stiefel(), 2, -2), _BLOCKS, zero=False, miss=stretched
    ),
    "triangular blocks": Subject(
        sets.PerBlock(sets.TriangularMatrices(), 2, -2), _BLOCKS, cone=True
    ),
    "parts": Subject(
        sets.Concatenations((sets.Stiefel(), sets.TriangularMatrices()), axis=-2),
        _BLOCKS,
        zero=False,
        miss=stretched,
    ),
}
