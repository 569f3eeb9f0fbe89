"""The laws: what every map of the library must do, over the table of cases.py."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import holdfast
from case import PLAIN
from cases import CASES, over, settings
from holdfast.errors import LawError, NotInSetError, SpecError
from holdfast.testing.case import TENSORS, Case, Shape
from holdfast.testing.checker import LAWS
from holdfast.testing.law import NotApplicable
from wrong_maps import WRONG, Map

BY_NAME = {law.name: law for law in LAWS}
EXACT = (torch.float64, torch.complex128)
SINGLE = (torch.float32,)
MARKS = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@over("image")
def test_the_image_lies_in_the_codomain(case, shape, dtype):
    BY_NAME["image"](case, shape, dtype)


@over("right_inverse")
def test_the_right_inverse_is_one_on_the_codomain(case, shape, dtype):
    BY_NAME["right_inverse"](case, shape, dtype)


@over("projection")
def test_projection_is_idempotent_and_lands_in_the_set(case, shape, dtype):
    BY_NAME["projection"](case, shape, dtype)


@over("shapes", (torch.float32, *EXACT), ((4, 4), (5, 3), (2, 3, 3), (6,)))
def test_other_shapes_work_or_are_refused(case, shape, dtype):
    BY_NAME["shapes"](case, shape, dtype)


@over("degenerate", (torch.float32, *EXACT))
def test_values_and_gradients_are_finite_where_formulas_divide_by_zero(
    case, shape, dtype
):
    BY_NAME["degenerate"](case, shape, dtype)


@over("huge", (torch.float32, *EXACT))
def test_values_and_gradients_are_finite_for_huge_entries(case, shape, dtype):
    BY_NAME["huge"](case, shape, dtype)


@over("tiny", (torch.float32, *EXACT))
def test_values_and_gradients_are_finite_for_tiny_entries(case, shape, dtype):
    BY_NAME["tiny"](case, shape, dtype)


@over("gradient", EXACT, ((2, 3, 3), (5, 3), (3, 5), (1, 1), (6,)))
def test_the_gradient_is_that_of_finite_differences(case, shape, dtype):
    BY_NAME["gradient"](case, shape, dtype)


@over("second_derivative", EXACT, ((4, 4), (5, 3), (6,)))
def test_the_second_derivative_is_that_of_finite_differences(case, shape, dtype):
    BY_NAME["second_derivative"](case, shape, dtype)


@over("batch", (torch.float32, *EXACT), ((1, 1), *PLAIN))
def test_a_batch_is_a_loop(case, shape, dtype):
    BY_NAME["batch"](case, shape, dtype)


@over("dtype", shapes=PLAIN)
def test_N1_the_dtype_is_kept(case, shape, dtype):
    BY_NAME["dtype"](case, shape, dtype)


@over("half", SINGLE, (*PLAIN, (2, 3, 3), (6,)))
def test_N1_half_types_are_computed_in_single_precision(case, shape, dtype):
    BY_NAME["half"](case, shape, dtype)


@over("autocast", (torch.float32, torch.complex64), PLAIN)
def test_N1_autocast_changes_nothing(case, shape, dtype):
    BY_NAME["autocast"](case, shape, dtype)


@over("autocast_backward", SINGLE, PLAIN)
def test_N1_a_backward_pass_may_run_inside_autocast(case, shape, dtype):
    BY_NAME["autocast_backward"](case, shape, dtype)


@over("registering", (torch.float32, *EXACT))
def test_registering_and_removing_keep_the_value(case, shape, dtype):
    BY_NAME["registering"](case, shape, dtype)


@over("optimizer", SINGLE)
def test_N4_optimizer_steps_keep_the_constraint(case, shape, dtype):
    BY_NAME["optimizer"](case, shape, dtype)


@over("copies", SINGLE, (*PLAIN, (0, 3, 3), (6,), (4, 2, 3, 3)))
def test_a_state_dict_a_copy_and_a_pickle_give_the_same_weight(case, shape, dtype):
    BY_NAME["copies"](case, shape, dtype)


@over("spec", (*SINGLE, torch.complex128), (*PLAIN, (0, 3, 3), (6,)))
def test_a_spec_and_a_state_dict_give_the_same_weight(case, shape, dtype):
    BY_NAME["spec"](case, shape, dtype)


@over("meta", SINGLE, (*PLAIN, (2, 3, 3), (6,), (4, 2, 3, 3)))
def test_L1_a_case_registers_on_the_meta_device(case, shape, dtype):
    BY_NAME["meta"](case, shape, dtype)


@MARKS
@over("transforms", (torch.float64,), (*PLAIN, (2, 3, 3), (6,)))
def test_F1_function_transforms_go_through(case, shape, dtype):
    BY_NAME["transforms"](case, shape, dtype)


COMPILED = (
    "cayley",
    "thin cayley",
    "definite",
    "orthogonal matrix_exp",
    "orthogonal cayley",
    "orthogonal householder",
    "polar",
    "RKO",
    "horizontal matrix_exp",
    "matricized thin cayley -1",
    "scaled orthogonal",
    "weight norm 0",
    "spectral norm 0",
    "toeplitz",
    "plu one",
    "invertible svd positive",
    "cholesky of rank 2",
    "spectral softplus",
    "softplus with signs",
    "sine of an interval",
    "fake quantize",
    "log ratios -1",
    "stick breaking -2",
    "zero sums",
    "increasing",
    "northwest corner of a coupling",
    "normalize -1",
    "great circles -2",
    "standardize -1",
    "clip 2-norm -2",
    "radial sigmoid -1",
    "spectral bound",
    "sigma reparam 0",
    "bounded svd 0.5",
)


@over("compile", SINGLE, ((4, 4), (5, 3)), COMPILED)
def test_compiled_values_and_gradients_are_the_same(case, shape, dtype):
    BY_NAME["compile"](case, shape, dtype)


# ---- Negative controls --------------------------------------------------------------


@MARKS
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_law_rejects_its_wrong_map(wrong):
    with pytest.raises((LawError, RuntimeError), match=wrong.found):
        BY_NAME[wrong.law](wrong.case(), wrong.shape, wrong.dtype)


@MARKS
@pytest.mark.parametrize("name", BY_NAME)
def test_a_law_accepts_the_identity(name):
    """What it rejects in the wrong maps is not what they have in common."""
    right = Case("right", lambda _: [Map()], lambda _: holdfast.sets.Real())
    BY_NAME[name](right, (4, 4), torch.float64)


def test_every_law_has_a_wrong_map():
    assert {wrong.law for wrong in WRONG} == set(BY_NAME)


def test_the_table_excepts_laws_that_exist():
    known = {*BY_NAME, *(f"{name} in single" for name in BY_NAME), "safetensors"}
    assert not {name for case in CASES for name in case.exceptions} - known


@MARKS
@pytest.mark.parametrize(
    ("case", "name"),
    [
        (case, name)
        for case in CASES
        for name in case.exceptions
        if name != "safetensors"
    ],
    ids=str,
)
def test_an_exception_is_needed(case, name):
    law, in_single, _ = name.partition(" in single")

    def everywhere():
        dtypes = SINGLE if in_single else (*SINGLE, *EXACT)
        for shape, dtype in settings(case, dtypes, TENSORS):
            BY_NAME[law](case, shape, dtype)

    refused = (LawError, NotApplicable, NotInSetError, SpecError)
    with pytest.raises((*refused, RuntimeError, IndexError)):
        everywhere()


# ---- What only tests can ask, as it takes another package ---------------------------


def law_safetensors(case: Case, shape: Shape, path) -> None:
    host = case.registered(torch.randn(shape)).eval()
    if case.invertible:
        host.weight = case.sample(shape, torch.float32)
    save_file(host.state_dict(), path)
    loaded = case.registered(torch.randn(shape)).eval()
    loaded.load_state_dict(load_file(path))
    assert_close(loaded.weight, host.weight, rtol=0, atol=0)
    holdfast.remove_parametrizations(host, "weight")
    save_file(host.state_dict(), path)


@over("safetensors", SINGLE, PLAIN)
def test_X3_safetensors_saves_every_state_dict(case, shape, dtype, tmp_path):
    law_safetensors(case, shape, tmp_path / "layer.safetensors")


class Strided(Map):
    def right_inverse(self, weight):
        self.register_buffer("base", weight.mT.contiguous().mT)
        return weight


def test_X3_the_safetensors_law_rejects_a_strided_buffer(tmp_path):
    wrong = Case("strided", lambda _: [Strided()], lambda _: holdfast.sets.Stiefel())
    with pytest.raises(ValueError, match="non contiguous"):
        law_safetensors(wrong, (4, 4), tmp_path / "layer.safetensors")
