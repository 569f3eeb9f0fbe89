"""The sets: what is inside, where they project, what they draw, how large they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cases_combinators import COMBINATOR_SETS
from cases_definite import DEFINITE_SETS
from cases_invertible import INVERTIBLE_SETS
from cases_linear import LINEAR_SETS
from cases_low_rank import LOW_RANK_SETS
from cases_norms import NORMS_SETS
from holdfast import errors, linalg, sets
from subjects import Subject

MASK = torch.arange(12).reshape(4, 3) % 3 != 0

SETS = {
    "real": sets.Real(),
    "square": sets.SquareMatrices(),
    "symmetric": sets.SymmetricMatrices(),
    "skew": sets.SkewMatrices(),
    "lower": sets.TriangularMatrices(),
    "upper": sets.TriangularMatrices(upper=True),
    "strictly lower": sets.TriangularMatrices(strict=True),
    "strictly upper": sets.TriangularMatrices(upper=True, strict=True),
    "sparse": sets.Sparse(MASK),
    "stiefel": sets.Stiefel(),
    "grassmann": sets.Grassmann(),
    "multiples": sets.ScaledOrthogonal(),
    "O": sets.Orthogonal(),
    "SO": sets.SpecialOrthogonal(),
    "U": sets.Unitary(),
    "SU": sets.SpecialUnitary(),
    "matricized": sets.Matricized(sets.Stiefel(), (-1, 0)),
    "matricized multiples": sets.Matricized(sets.ScaledOrthogonal()),
    "scaled": sets.Scaled(sets.Stiefel(), -2.0),
    "definite": sets.SymmetricPositiveDefinite(),
    "invertible": sets.GeneralLinear(),
    "ball": sets.SpectralBall(2.0),
    "ball of a kernel": sets.SpectralBall(axis=1),
    "sphere": sets.SpectralSphere(3.0),
    "sphere of a kernel": sets.SpectralSphere(axis=1),
}
MORE: dict[str, Subject] = {
    **LINEAR_SETS,
    **INVERTIBLE_SETS,
    **DEFINITE_SETS,
    **COMBINATOR_SETS,
    **LOW_RANK_SETS,
    **NORMS_SETS,
}
SETS |= {name: subject.constraint for name, subject in MORE.items()}
GROUPS = ("O", "SO", "U", "SU")
ONLY_SQUARE = ("square", "symmetric", "skew", "definite", "invertible", *GROUPS)
ONLY_SQUARE += tuple(name for name, subject in MORE.items() if subject.square)
ORTHONORMAL = ("stiefel", "grassmann", "matricized", "scaled", *GROUPS)
MULTIPLES = ("multiples", "matricized multiples")
# nothing next to a point is outside
OPEN = ("real", "square", "invertible")
OPEN += tuple(name for name, subject in MORE.items() if subject.open)
CONES = tuple(name for name, subject in MORE.items() if subject.cone)
WITHOUT_ZERO = tuple(name for name, subject in MORE.items() if subject.zero is False)
ONLY_REAL = tuple(name for name, subject in MORE.items() if subject.real)
KERNELS = (
    "ball of a kernel",
    "sphere of a kernel",
    "matricized",
    "matricized multiples",
)
CHEAP = ("SU",)  # does not project to the nearest point
REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex64, torch.complex128)

ALL = pytest.mark.parametrize("name", SETS)
CLOSED = pytest.mark.parametrize("name", [name for name in SETS if name not in OPEN])
EXACT = (torch.float64, torch.complex128)


def kinds(name: str, dtypes: Sequence[torch.dtype]) -> list[torch.dtype]:
    """Return those of the types that the set has tensors of."""
    if name in GROUPS:
        return [dtype for dtype in dtypes if dtype.is_complex == ("U" in name)]
    return list(dtypes)


def over(
    dtypes: Sequence[torch.dtype], without: Sequence[str] = ()
) -> pytest.MarkDecorator:
    """Return what makes a test of every set and every type, but for some sets."""
    names = [name for name in SETS if name not in without]
    pairs = [(name, dtype) for name in names for dtype in kinds(name, dtypes)]
    ids = [f"{name}-{dtype}" for name, dtype in pairs]
    return pytest.mark.parametrize(("name", "dtype"), pairs, ids=ids)


def shapes(name: str) -> Sequence[tuple[int, ...]]:
    if name in MORE:
        return MORE[name].shapes
    if name in ONLY_SQUARE:
        return [(4, 4), (1, 1), (2, 3, 3), (0, 3, 3)]
    if name == "sparse":
        return [(4, 3), (2, 4, 3), (0, 4, 3)]
    if name == "matricized":
        return [(4, 3, 2), (2, 3, 4), (1, 1), (2, 0, 3)]
    if name in KERNELS:
        return [(4, 3), (4, 3, 2), (1, 1), (5,)]
    return [(4, 3), (3, 4), (4, 4), (1, 1), (2, 5, 2), (0, 4, 3)]


def some(name: str) -> tuple[int, ...]:
    return shapes(name)[0]


def usual(name: str) -> torch.dtype:
    return kinds(name, EXACT)[0]


def normal(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def norm(W: Tensor) -> float:
    return float(torch.linalg.vector_norm(W))


# ---- Membership ---------------------------------------------------------------------


@over(REAL + COMPLEX)
def test_samples_and_projections_are_inside(name, dtype):
    if dtype.is_complex and name in ONLY_REAL:
        return
    for shape in shapes(name):
        sample = SETS[name].sample(shape, dtype=dtype)
        point = SETS[name].project(normal(shape, dtype))
        for tensor in (sample, point):
            assert tensor.shape == shape
            assert tensor.dtype == dtype
            assert SETS[name].contains(tensor)


@ALL
def test_there_is_one_residual_for_each_matrix(name):
    for shape in shapes(name):
        for dtype in kinds(name, (torch.float32, torch.complex64)):
            residual = SETS[name].residual(normal(shape, dtype))
            assert residual.shape == (() if name in KERNELS else shape[:-2])
            assert not residual.is_complex()
            assert bool((residual >= 0).all())


def off_by(name: str, eps: float, dtype: torch.dtype) -> Tensor:
    """Return a matrix that misses the set by ``eps``, relative to its size."""
    W = SETS[name].sample(some(name), dtype=dtype)
    if name in MORE and MORE[name].miss is not None:
        return MORE[name].miss(W, eps)
    if "ball" in name:
        W = W * SETS[name].radius / torch.linalg.matrix_norm(W, 2)
    if "ball" in name or "sphere" in name or name in ORTHONORMAL:
        return W * (1 + eps)
    if name in MULTIPLES:  # two singular values apart, the sum of squares as it was
        stretch = torch.ones(3, dtype=W.dtype)
        stretch[:2] += torch.tensor([eps, -eps])
        return W * stretch if W.ndim == 2 else W
    if name == "definite":
        values, V = torch.linalg.eigh(W)
        v = V[:, :1]
        return W - (values[0] + eps * values[-1]) * v @ v.mH
    Z = normal(W.shape, dtype)
    N = Z - SETS[name].project(Z)
    return W + eps * norm(W) * N / torch.linalg.vector_norm(N)


@over(EXACT, without=OPEN)
def test_the_residual_measures_how_far_outside_a_matrix_is(name, dtype):
    for eps in (1e-1, 1e-5, 1e-9):
        residual = float(SETS[name].residual(off_by(name, eps, dtype)))
        assert 0.5 * eps < residual < 3 * eps


@over(EXACT, without=OPEN)
def test_membership_is_decided_at_the_tolerance(name, dtype):
    assert SETS[name].contains(off_by(name, 1e-7, dtype), tol=1e-6)
    assert not SETS[name].contains(off_by(name, 1e-5, dtype), tol=1e-6)
    limit = linalg.tolerance(off_by(name, 0.0, dtype))
    assert SETS[name].contains(off_by(name, limit / 4, dtype))
    assert not SETS[name].contains(off_by(name, 4 * limit, dtype))


@CLOSED
def test_one_matrix_outside_puts_the_batch_outside(name):
    if name in (*KERNELS, "sparse"):
        return
    inside = SETS[name].sample((3, *some(name)), dtype=usual(name))
    assert SETS[name].contains(inside)
    inside[1] = off_by(name, 1e-3, usual(name))
    assert not SETS[name].contains(inside)
    assert (SETS[name].residual(inside) > 1e-6).tolist() == [False, True, False]


LINEAR = ("symmetric", "skew", "lower", "upper", "strictly lower", "sparse", "definite")
LINEAR = (*CONES, *LINEAR)


@pytest.mark.parametrize("name", [*LINEAR, *MULTIPLES])
def test_residuals_of_cones_do_not_depend_on_the_scale(name):
    W = normal(some(name))
    for factor in (1e-30, 1e30):
        residual = SETS[name].residual(W * factor)
        assert_close(residual, SETS[name].residual(W))


def test_nan_is_in_no_set_that_asks():
    for name in SETS:
        if name not in ("real", "square"):
            W = torch.full(some(name), torch.nan, dtype=usual(name))
            try:
                inside = SETS[name].contains(W)
            except torch.linalg.LinAlgError:
                inside = False
            assert not inside, name


def test_zero_is_in_the_cones_but_not_definite_or_invertible():
    for name in (*LINEAR[:-1], *MULTIPLES):
        assert SETS[name].contains(torch.zeros(some(name)))
    for name in ("definite", "invertible", "sphere", *ORTHONORMAL, *WITHOUT_ZERO):
        zero = torch.zeros(some(name), dtype=usual(name))
        assert not SETS[name].contains(zero)
        assert SETS[name].contains(SETS[name].project(zero))


def test_invertible_matrices_are_all_but_the_singular_ones():
    general = sets.GeneralLinear()
    assert general.contains(torch.diag(torch.tensor([1.0, 1e-5])))
    assert not general.contains(torch.diag(torch.tensor([1.0, 0.0])))
    assert not general.contains(torch.ones(3, 3))
    assert general.contains(general.project(torch.ones(3, 3)))
    assert general.residual(torch.ones(2, 2)) == 1


def test_semidefinite_matrices_count_as_definite_and_indefinite_ones_do_not():
    definite = sets.SymmetricPositiveDefinite()
    assert definite.contains(torch.ones(2, 2))
    assert not definite.contains(torch.diag(torch.tensor([1.0, -1e-3])))
    assert not definite.contains(torch.tensor([[1.0, 0.1], [0.0, 1.0]]))


def test_a_meta_tensor_is_in_every_set():
    for name in SETS:
        W = torch.empty(some(name), dtype=usual(name), device="meta")
        assert SETS[name].contains(W)
        if name != "sparse":  # whose mask is on another device
            kept = 0 if name in KERNELS else -2
            assert SETS[name].residual(W).shape == W.shape[:kept]


def test_require_says_what_was_expected_and_found():
    with pytest.raises(
        errors.NotInSetError,
        match=r"in Stiefel\(\)\. Got a \(2, 2\) tensor of torch.float32 on cpu of "
        r"residual 3\.0e\+00, tolerance 7\.6e-06",
    ):
        sets.Stiefel().require(2 * torch.eye(2))
    sets.Stiefel().require(torch.eye(2))


# ---- Shapes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONLY_SQUARE)
def test_what_is_not_square_is_outside_and_cannot_be_projected(name):
    for shape in ((2, 3), (3, 2, 4), (4,)):
        W = torch.ones(shape, dtype=usual(name))
        assert not SETS[name].contains(W)
        assert bool((SETS[name].residual(W) == math.inf).all())
        with pytest.raises(errors.InvalidTensorError, match="Expected a square matrix"):
            SETS[name].project(W)
        with pytest.raises(errors.InvalidTensorError, match="Expected a square matrix"):
            SETS[name].sample(shape, dtype=usual(name))


@pytest.mark.parametrize("name", GROUPS)
def test_numbers_of_the_other_kind_are_outside_and_cannot_be_projected(name):
    dtype = torch.complex64 if usual(name) == torch.float64 else torch.float32
    W = torch.eye(3, dtype=dtype)
    assert not SETS[name].contains(W)
    assert SETS[name].residual(W.expand(2, 3, 3)).tolist() == [math.inf, math.inf]
    kind = "complex" if "U" in name else "real"
    with pytest.raises(errors.InvalidTensorError, match=f"of {kind} numbers"):
        SETS[name].project(W)
    with pytest.raises(errors.InvalidTensorError, match=f"of {kind} numbers"):
        SETS[name].sample((3, 3), dtype=dtype)
    with pytest.raises(errors.InvalidTensorError, match=f"of {kind} numbers"):
        SETS[name].dim((3, 3), dtype)


@pytest.mark.parametrize(
    "name", ["stiefel", "grassmann", "multiples", "lower", "upper"]
)
def test_a_vector_is_no_matrix(name):
    assert not SETS[name].contains(torch.ones(3))
    with pytest.raises(errors.InvalidTensorError, match="Expected a matrix"):
        SETS[name].project(torch.ones(3))
    with pytest.raises(errors.InvalidTensorError, match="Expected a matrix"):
        SETS[name].dim((3,))


# ---- Projection ---------------------------------------------------------------------


@over(EXACT, without=(*OPEN, *CHEAP))
def test_the_projection_is_the_nearest_point(name, dtype):
    if name in MORE and not MORE[name].nearest:
        return
    for shape in shapes(name):
        if 0 in shape or len(shape) > 2:
            continue
        W = normal(shape, dtype)
        P = SETS[name].project(W)
        rivals = [SETS[name].sample(shape, dtype=dtype) for _ in range(20)]
        for size in (1e-1, 1e-3):
            steps = [P + size * normal(shape, dtype) for _ in range(20)]
            rivals += [SETS[name].project(step) for step in steps]
        assert norm(W - P) <= min(norm(W - S) for S in rivals) + 1e-9


@over(EXACT, without=OPEN)
def test_the_projection_keeps_what_is_inside(name, dtype):
    for shape in shapes(name):
        W = SETS[name].sample(shape, dtype=dtype)
        assert_close(SETS[name].project(W), W, rtol=1e-12, atol=1e-12)


def test_the_nearest_rotation_turns_the_smallest_direction_round():
    W = torch.diag(torch.tensor([3.0, -0.5, 2.0]))
    assert_close(sets.SpecialOrthogonal().project(W), torch.eye(3))
    turned = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    nearest = sets.SpecialOrthogonal().project(turned)
    assert_close(torch.linalg.det(nearest), torch.tensor(1.0))
    angles = torch.linspace(0, 2 * torch.pi, 1001).double()
    rows = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1)
    others = torch.linalg.matrix_norm(rows.reshape(-1, 2, 2) - turned)
    assert norm(nearest.double() - turned) < float(others.min()) + 1e-5


@pytest.mark.parametrize("name", [*ORTHONORMAL, *MULTIPLES, "definite"])
def test_what_has_lost_rank_can_be_projected(name):
    for W in (torch.ones(some(name)), torch.zeros(some(name))):
        assert SETS[name].contains(SETS[name].project(W.to(usual(name))))


def test_a_determinant_other_than_one_is_outside():
    """By any phase, not only the opposite one, and at any size."""
    phase = torch.polar(torch.tensor(1.0).double(), torch.tensor(1e-5).double())
    Q = sets.SpecialUnitary().sample((4, 4), dtype=torch.complex128)
    Q[:, 0] *= phase
    assert sets.Unitary().contains(Q)
    assert not sets.SpecialUnitary().contains(Q, tol=0.9e-5)
    assert sets.SpecialUnitary().contains(Q, tol=1.1e-5)
    R = sets.SpecialOrthogonal().sample((65, 65))
    assert sets.SpecialOrthogonal().contains(R)
    assert sets.Orthogonal().contains(-R)
    assert not sets.SpecialOrthogonal().contains(-R, tol=1.9)


def test_a_subspace_of_wide_shape_is_spanned_by_rows():
    W = torch.randn(2, 5, dtype=torch.float64)
    Q = sets.Grassmann().project(W)
    assert_close(Q @ Q.mT, torch.eye(2).double())
    assert_close(W @ Q.mT @ Q, W)  # the span is that of the rows of W


def test_axes_of_a_matricized_set_say_what_is_wrong_with_them():
    W = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match=r"once among the rows\. Got \(1, -2\) for"):
        sets.Matricized(sets.Stiefel(), (1, -2)).contains(W)
    with pytest.raises(IndexError, match=r"range of \[-3, 2\], but got 3"):
        sets.Matricized(sets.Stiefel(), 3).contains(W)


# ---- Dimension ----------------------------------------------------------------------


def point(name: str, W: Tensor) -> Tensor:
    """Return what stands for the nearest point: of a subspace, its projector."""
    P = SETS[name].project(W)
    if name != "grassmann":
        return P
    Q = P if P.shape[-2] >= P.shape[-1] else P.mH
    return Q @ Q.mH


def rank_of_projection(name: str, W: Tensor) -> int:
    """Return the rank of the derivative of the projection at a point of the set."""
    columns, h = [], 1e-5
    units = [1.0, 1.0j] if W.is_complex() else [1.0]
    for i in range(W.numel()):
        for unit in units:
            E = torch.zeros_like(W)
            E.view(-1)[i] = h * unit
            column = (point(name, W + E) - point(name, W - E)) / (2 * h)
            parts = torch.view_as_real(column) if W.is_complex() else column
            columns.append(parts.flatten())
    return int(torch.linalg.matrix_rank(torch.stack(columns), atol=1e-4))


@over(EXACT)
def test_the_dimension_is_that_of_the_tangent_space(name, dtype):
    if dtype.is_complex and name in ONLY_REAL:
        return
    for shape in shapes(name):
        W = SETS[name].sample(shape, dtype=dtype)
        W = W / 2 if "ball" in name else W
        dim = SETS[name].dim(shape, dtype)
        if 0 in shape:
            assert dim == 0
        else:
            assert dim == rank_of_projection(name, W), shape


def test_dimensions_of_textbooks():
    assert sets.Stiefel().dim((5, 3)) == sets.Stiefel().dim((3, 5)) == 9
    assert sets.Stiefel().dim((4, 4)) == sets.SkewMatrices().dim((4, 4)) == 6
    assert sets.Stiefel().dim((3, 3), torch.complex64) == 9
    assert sets.SymmetricPositiveDefinite().dim((2, 3, 3)) == 12
    assert sets.Orthogonal().dim((4, 4)) == sets.SpecialOrthogonal().dim((4, 4)) == 6
    assert sets.Unitary().dim((3, 3)) == 9
    assert sets.SpecialUnitary().dim((2, 3, 3)) == 16
    assert sets.Grassmann().dim((5, 3)) == sets.Grassmann().dim((3, 5)) == 6
    assert sets.Grassmann().dim((5, 3), torch.complex64) == 12
    assert sets.ScaledOrthogonal().dim((2, 4, 4)) == 14


# ---- Samples ------------------------------------------------------------------------


@ALL
def test_samples_follow_the_generator(name):
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return SETS[name].sample(some(name), dtype=usual(name), generator=generator)

    state = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_orthogonal_samples_are_uniform():
    """The entries of a Haar matrix have mean 0 and variance 1/n; both signs of det."""
    Q = sets.Stiefel().sample((4000, 4, 4), dtype=torch.float64)
    assert float(Q.mean(0).abs().max()) < 0.05
    assert_close(
        Q.square().mean(0), torch.full((4, 4), 0.25).double(), rtol=0, atol=0.02
    )
    share = float((torch.linalg.det(Q) > 0).double().mean())
    assert 0.45 < share < 0.55


def test_samples_of_the_special_groups_are_uniform():
    """The moments of traces under the Haar measure.

    For SO(3) the trace has mean 0 and mean square 1, and that of the square mean 1. For
    SU(2), the unit quaternions, they are 0, 1 and -1.
    """
    R = sets.SpecialOrthogonal().sample((20000, 3, 3), dtype=torch.float64)
    Q = sets.SpecialUnitary().sample((20000, 2, 2), dtype=torch.complex128)
    assert bool((torch.linalg.det(R) > 0).all())
    assert_close(torch.linalg.det(Q), torch.ones(20000).to(Q), rtol=0, atol=1e-12)
    assert_close(moments(R), torch.tensor([0.0, 1, 1]).double(), rtol=0, atol=0.05)
    assert_close(moments(Q), torch.tensor([0.0, 1, -1]).double(), rtol=0, atol=0.05)


def moments(Q: Tensor) -> Tensor:
    trace = Q.diagonal(dim1=-2, dim2=-1).sum(-1).real
    of_square = (Q @ Q).diagonal(dim1=-2, dim2=-1).sum(-1).real
    return torch.stack([trace.mean(), trace.square().mean(), of_square.mean()])


def test_the_moments_reject_a_sign_on_a_column_that_depends_on_the_matrix():
    Q = sets.Orthogonal().sample((20000, 3, 3), dtype=torch.float64)
    largest = Q.diagonal(dim1=-2, dim2=-1).argmax(-1, keepdim=True)
    signs = torch.ones(20000, 3).double()
    signs = signs.scatter(1, largest, torch.linalg.det(Q).sign()[:, None])
    assert float(moments(Q * signs[:, None, :])[0]) < -0.1


def test_definite_samples_are_well_conditioned():
    W = sets.SymmetricPositiveDefinite().sample((50, 8, 8), dtype=torch.float64)
    assert float(torch.linalg.cond(W).max()) < 1e3


def test_arguments_show_in_the_name():
    assert repr(sets.Stiefel()) == "Stiefel()"
    assert repr(sets.SpectralBall(2.0, axis=1)) == "SpectralBall(radius=2.0, axis=1)"
    assert repr(sets.TriangularMatrices()) == "TriangularMatrices()"
    assert repr(sets.TriangularMatrices(upper=True)) == "TriangularMatrices(upper=True)"
    assert repr(sets.Sparse(MASK)) == "Sparse(mask=<(4, 3) tensor>)"
