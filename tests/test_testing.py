"""`check_parametrization`: what it says of right and wrong maps, and leaves alone."""

from __future__ import annotations

import copy
import random
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

import holdfast
from holdfast import maps, sets
from holdfast.errors import (
    HoldfastError,
    InvalidTensorError,
    LawError,
    NotInSetError,
    UnknownLawError,
)
from holdfast.testing import Outcome, Verdict, check_parametrization
from holdfast.testing.checker import LAWS
from wrong_maps import WRONG, Drifting, Map, Noisy, Squared

NAMES = [law.name for law in LAWS]
SLOW = {"compile": "slow"}


class Positive(sets.Constraint):
    """A user's set: positive entries."""

    def residual(self, weight):
        return sets.Real().residual(weight) + (weight <= 0).any()

    def project(self, weight):
        return weight.clamp_min(1e-3)

    def from_normal(self, normal):
        return normal.abs() + 0.1

    def dim(self, shape, dtype=torch.float32):
        return torch.Size(shape).numel()


class OwnSoftplus(holdfast.Parametrization):
    """A user's map, as one writes it after reading the documentation."""

    codomain = Positive()

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, X):
        wide = X.float() if X.dtype.itemsize == 2 else X
        return softplus(wide, self.beta).to(X.dtype)

    def right_inverse(self, weight):
        return weight + torch.log(-torch.expm1(-self.beta * weight)) / self.beta


def verdict_of(error: pytest.ExceptionInfo[LawError]) -> dict[str, str]:
    """Return the status of each law in the table of an error."""
    rows = [line.split() for line in str(error.value).splitlines()[1:]]
    return {row[0]: row[1] for row in rows}


# ---- Right maps ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "shape", "options"),
    [
        (maps.Skew(), (3, 3), {}),
        ([maps.Skew(), maps.Cayley()], (4, 4), {"exempt": {"huge": "rounding"}}),
        (maps.ThinOrthogonal(), (5, 3), {"exempt": ["huge"]}),
        (maps.ThinOrthogonal(), (3, 4), {"exempt": ["huge"], "dtype": torch.float32}),
        (maps.WeightNorm(), (4, 3), {"exempt": {"batch": "slices"}}),
        (maps.WeightNorm(None), (6,), {"exempt": {"batch": "slices"}}),
        (maps.WeightNorm(None), (), {"exempt": {"batch": "slices"}}),
        (maps.Mask(torch.tensor([[1.0, 0.0], [1.0, 1.0]])), (2, 2), {}),
        (maps.Triangular(), (2, 3, 2), {"dtype": torch.complex128}),
        (maps.Triangular(), (3, 2), {"dtype": torch.bfloat16}),
        (maps.Symmetric(), (0, 3, 3), {}),
        (maps.Symmetric(), (1, 1), {"dtype": torch.float16}),
        (
            [maps.Symmetric(), maps.MatrixExp()],
            (3, 3),
            {
                "codomain": sets.SymmetricPositiveDefinite(),
                "exempt": {"huge": "overflow"},
            },
        ),
        (maps.Orthogonal("cayley", use_trivialization=False), (4, 4), {}),
        (OwnSoftplus(beta=2.0), (4, 3), {}),
        # a start may have no slope, where it saturates or is clipped
        (
            maps.Cholesky("exp"),
            (1, 1),
            {"exempt": {"huge": "exp(1e18)", "compile": ""}},
        ),
        (maps.ClipNorm(1.0), (1, 1), {"exempt": ["compile"]}),
        # nothing to trace through
        (maps.LoRA(2), (0, 3), {"exempt": ["compile"]}),
        (maps.DoRA(2), (0, 3), {"exempt": ["compile"]}),
        (maps.OFT(), (0, 3), {"exempt": ["compile", "huge"]}),
        # one angle, in whose gradient terms cancel
        (maps.OFT(side="left"), (2, 5), {"exempt": ["compile"]}),
    ],
    ids=str,
)
def test_a_right_map_passes(chain, shape, options):
    verdict = check_parametrization(chain, shape, **options)
    assert verdict.failed == ()
    assert [outcome.law for outcome in verdict.outcomes] == NAMES
    passed = [o.law for o in verdict.outcomes if o.status == "pass"]
    assert len(passed) >= len(NAMES) - 3


# ---- Wrong maps ---------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_map_fails_its_law(wrong):
    with pytest.raises(LawError) as caught:
        check_parametrization(
            wrong.make(),
            wrong.shape,
            dtype=wrong.dtype,
            codomain=wrong.codomain,
            exempt=wrong.exempt,
        )
    table = verdict_of(caught)
    assert list(table) == NAMES
    failed = {name for name, status in table.items() if status == "FAIL"}
    assert failed == {wrong.law, *wrong.also}


class Further(Map):
    """A user's map around a base, which may forget the base on the way back."""

    def __init__(self, forgets: bool = False) -> None:
        super().__init__()
        self.forgets = forgets
        self.register_buffer("base", None)

    @property
    def codomain(self):
        rays = sets.LowRankMatrices(1)
        return rays if self.base is None else sets.Shifted(rays, self.base)

    def bind(self, weight):
        self.base = weight.detach().clone()

    def forward(self, a, b):
        return self.base + a @ b

    def right_inverse(self, weight):
        beyond = weight if self.forgets else weight - self.base
        U, S, Vh = torch.linalg.svd(beyond, full_matrices=False)
        return (U[..., :1] * S[..., None, :1]).contiguous(), Vh[..., :1, :].contiguous()


def test_a_map_around_a_base_lands_beside_the_base_that_it_is_bound_to():
    exempt = {**SLOW, "half": "torch's svd takes none", "autocast": "plain"}
    assert check_parametrization(maps.LoRA(2), (5, 4), exempt=SLOW).failed == ()
    assert check_parametrization(Further(), (4, 3), exempt=exempt).failed == ()
    with pytest.raises(LawError, match="right_inverse +FAIL"):
        check_parametrization(Further(forgets=True), (4, 3), exempt=exempt)


def test_the_table_says_what_was_expected_found_and_what_helps():
    with pytest.raises(LawError) as caught:
        check_parametrization(Squared(), (3, 3), exempt={"compile": "takes a while"})
    title, *rows = str(caught.value).splitlines()
    assert title == "Squared on (3, 3), torch.float64"
    assert "compile            exempt          takes a while" in rows
    assert "right_inverse      not applicable  `Squared` has no right inverse" in rows
    assert "image              pass" in rows
    assert (
        "autocast           FAIL            Expected the same bits under autocast. "
        "Found under autocast it is of dtype torch.bfloat16 instead of torch.float32. "
        "Turn autocast off inside `forward`."
    ) in rows


class Broken(Map):
    """Fails with an error of its own, of several lines."""

    def forward(self, X):
        raise KeyError("first line\nsecond line " + 500 * "x")


def test_an_error_of_the_map_is_told_in_one_line():
    with pytest.raises(LawError) as caught:
        check_parametrization(Broken(), (2, 2))
    rows = str(caught.value).splitlines()[1:]
    assert [row.split()[0] for row in rows] == NAMES
    assert "Found KeyError: 'first line" in rows[0]
    assert max(map(len, rows)) < 500


def test_the_error_is_an_assertion_and_one_of_the_librarys():
    assert issubclass(LawError, AssertionError)
    assert issubclass(LawError, HoldfastError)


def test_a_verdict_reads_as_a_table():
    outcomes = (Outcome("image", "pass"), Outcome("batch", "FAIL", "Found none."))
    verdict = Verdict("Mine", outcomes)
    assert verdict.failed == ("batch",)
    assert str(verdict).splitlines() == [
        "Mine",
        "image              pass",
        "batch              FAIL            Found none.",
    ]


# ---- Arguments ----------------------------------------------------------------------


@pytest.mark.parametrize("exempt", [{"imgae": "no"}, ["imgae"], "imgae"], ids=str)
def test_an_unknown_law_is_refused(exempt):
    with pytest.raises(UnknownLawError, match="law `imgae`.* Did you mean `image`"):
        check_parametrization(maps.Skew(), (3, 3), exempt=exempt)


def test_an_exempt_law_is_not_run():
    wrong = next(wrong for wrong in WRONG if wrong.law == "copies")
    failed = dict.fromkeys(("registering", "copies", "spec", "meta"), "it forgets")
    verdict = check_parametrization(wrong.make(), wrong.shape, exempt=failed)
    assert {o.law: o.note for o in verdict.outcomes if o.status == "exempt"} == failed


def test_what_is_no_parametrization_is_refused():
    with pytest.raises(InvalidTensorError, match="Got Linear"):
        check_parametrization([nn.Linear(1, 1)], (1, 1))
    with pytest.raises(InvalidTensorError, match="at least one map"):
        check_parametrization([], (1, 1))


def test_a_shape_that_the_map_refuses_is_refused():
    with pytest.raises(InvalidTensorError, match=r"square matrix .* shape \(3, 4\)"):
        check_parametrization(maps.Symmetric(), (3, 4))
    with pytest.raises(InvalidTensorError, match="does not support complex"):
        check_parametrization(maps.Householder(), (3, 3), dtype=torch.complex64)


class Outer(holdfast.Parametrization):
    """A user's map of two vectors."""

    def forward(self, u, v):
        return u.unsqueeze(-1) * v.unsqueeze(-2)


class Halves(holdfast.Parametrization):
    """A user's map of two originals, with a right inverse."""

    def forward(self, A, B):
        return A + B

    def right_inverse(self, weight):
        return weight / 2, weight / 2


class OnDiagonal(holdfast.Parametrization):
    """A user's map that changes the shape."""

    codomain = sets.DiagonalMatrices()

    def bind(self, weight):
        if weight.ndim < 2 or weight.shape[-1] != weight.shape[-2]:
            raise InvalidTensorError("Expected square matrices.")

    def forward(self, X):
        return torch.diag_embed(X)

    def right_inverse(self, weight):
        return weight.diagonal(dim1=-2, dim2=-1).contiguous()


@pytest.mark.parametrize("own", [Halves, OnDiagonal])
def test_maps_of_several_originals_and_of_other_shapes_pass(own):
    verdict = check_parametrization(own(), (3, 3))
    assert {outcome.status for outcome in verdict.outcomes} == {"pass"}


def test_several_originals_need_a_right_inverse():
    message = "`Outer` takes 2 tensors, and `Outer` has no right inverse"
    with pytest.raises(InvalidTensorError, match=message):
        check_parametrization(Outer(), (3, 4))
    with pytest.raises(TypeError, match="missing 1 required"):
        holdfast.register_parametrization(nn.Linear(4, 3), "weight", Outer())


def test_a_map_that_takes_special_tensors_has_to_follow_another():
    with pytest.raises(NotInSetError, match="`Cayley` takes SkewMatrices.* as a list"):
        check_parametrization(maps.Cayley(), (3, 3))


# ---- What is left as it was ---------------------------------------------------------


def test_the_map_is_never_changed():
    link = maps.ThinOrthogonal()
    before = copy.deepcopy(link.state_dict()), link.training, repr(link)
    check_parametrization(link, (3, 2), exempt={"huge": "rounding", **SLOW})
    assert (link.state_dict(), link.training, repr(link)) == before
    assert not dict(link.named_buffers())


def test_numbers_modes_and_types_are_as_they_were():
    states = torch.get_rng_state(), random.getstate()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            check_parametrization(maps.Skew(), (3, 3))
            assert not torch.is_grad_enabled()
            assert torch.is_autocast_enabled("cpu")
            assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, holdfast.cached],
    ids=lambda mode: mode.__name__,
)
def test_the_verdict_is_the_same_in_every_mode(mode):
    alone = check_parametrization(maps.Symmetric(), (3, 3))
    torch.manual_seed(7)
    with mode():
        assert check_parametrization(maps.Symmetric(), (3, 3)) == alone


def test_filters_of_warnings_are_as_they_were():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        check_parametrization(maps.Skew(), (3, 3))
        assert warnings.filters == filters


def test_what_was_compiled_stays_compiled():
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    layer = nn.Linear(2, 2)
    compiled = torch.compile(layer, backend=backend)
    x = torch.ones(1, 2)
    compiled(x)
    for _ in range(10):  # more often than torch compiles one piece of code again
        check_parametrization(Map(), (2, 2), exempt=set(NAMES) - {"compile"})
    compiled(x)
    assert len(traced) == 1
    torch._dynamo.reset()
    compiled(x)
    assert len(traced) == 2, "a reset would be seen"


@pytest.mark.parametrize("wrong", [Drifting, Noisy])
def test_a_failure_leaves_everything_as_it_was(wrong):
    state = torch.get_rng_state()
    with pytest.raises(LawError):
        check_parametrization(wrong(), (2, 2), exempt=SLOW)
    assert torch.equal(torch.get_rng_state(), state)
