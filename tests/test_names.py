"""The page of names leaves out none of theirs, and names none of ours that is not."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import constraints
from torch.nn.utils import parametrizations, parametrize, prune

import holdfast

PAGE = (Path(__file__).parents[1] / "docs/names.md").read_text("utf-8")
SECTIONS = dict(
    re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
)

# What GeoTorch 0.4.0, GPyTorch and Keras have: none of them is installed for the tests.
GEOTORCH = [
    "ProductManifold",
    "Grassmannian",
    "LowRank",
    "Rn",
    "Skew",
    "Symmetric",
    "SO",
    "Sphere",
    "SphereEmbedded",
    "Stiefel",
    "AlmostOrthogonal",
    "GLp",
    "SL",
    "FixedRank",
    "PSD",
    "PSSD",
    "PSSDLowRank",
    "PSSDFixedRank",
    "Hurwitz",
    "sphere",
    "skew",
    "symmetric",
    "orthogonal",
    "grassmannian",
    "almost_orthogonal",
    "low_rank",
    "fixed_rank",
    "invertible",
    "sln",
    "positive_definite",
    "positive_semidefinite",
    "update_base",
    "alpha_stable",
    "positive_semidefinite_low_rank",
    "positive_semidefinite_fixed_rank",
]
GPYTORCH = ["Positive", "GreaterThan", "LessThan", "Interval"]
KERAS = ["MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"]

# Of `constraints.__all__`: the base class, a decorator and a question
NO_CONSTRAINTS = {"Constraint", "dependent_property", "is_dependent"}


# Their names in `torch.nn.utils` are those of functions.
OLDER = [
    importlib.import_module(f"torch.nn.utils.{name}")
    for name in ("weight_norm", "spectral_norm")
]


def torchs() -> list[str]:
    functions = [
        name
        for module in (parametrize, parametrizations, prune, *OLDER)
        for name, thing in vars(module).items()
        if callable(thing)
        and getattr(thing, "__module__", "") == module.__name__
        and name[0].islower()
    ]
    known = {name for name in functions if not name.startswith("_")}
    return sorted(known | (set(constraints.__all__) - NO_CONSTRAINTS))


def named(section: str) -> set[str]:
    """Return the names in backticks, without what they are attributes of."""
    quoted = re.findall(r"`([^`]+)`", SECTIONS[section])
    return {word for text in quoted for word in re.findall(r"\w+", text)}


@pytest.mark.parametrize(
    ("section", "theirs"),
    [
        ("PyTorch", torchs()),
        ("GeoTorch", GEOTORCH),
        ("GPyTorch", GPYTORCH),
        ("Keras", KERAS),
    ],
)
def test_no_name_of_theirs_is_missing(section, theirs):
    assert theirs
    assert not set(theirs) - named(section)


def test_the_list_of_torchs_names_is_not_empty_by_chance():
    assert {"orthogonal", "cached", "l1_unstructured", "simplex"} <= set(torchs())
    assert {"remove", "is_pruned", "remove_weight_norm"} <= set(torchs())
    assert torch.__version__


def ours(text: str) -> list[str]:
    return re.findall(r"`((?:maps|sets)\.\w+)", text)


def missing(names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if not hasattr(getattr(holdfast, name.split(".")[0]), name.split(".")[1])
    ]


CONSTRAINTS = {
    "greater_than": constraints.greater_than(1.0),
    "greater_than_eq": constraints.greater_than_eq(1.0),
    "less_than": constraints.less_than(1.0),
    "interval": constraints.interval(0.0, 1.0),
    "half_open_interval": constraints.half_open_interval(0.0, 1.0),
    "integer_interval": constraints.integer_interval(0, 3),
    "multinomial": constraints.multinomial(3),
    "cat": constraints.cat([constraints.positive], 0, [2]),
    "stack": constraints.stack([constraints.positive], 0),
}


def sets_of_constraints() -> list[tuple[str, str]]:
    """Return each constraint of the table, and what is said of its set."""
    table = SECTIONS["PyTorch"].partition("`torch.distributions.constraints`")[2]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.MULTILINE)
    pairs = [(name, said) for names, said in rows for name in names.split(", ")]
    kinds = {"`independent`", "`MixtureSameFamilyConstraint`"}  # of any other one
    return [(name.strip("`"), said) for name, said in pairs if name not in kinds]


@pytest.mark.parametrize(("name", "said"), sets_of_constraints())
def test_sets_from_torch_finds_the_set_of_the_table(name, said):
    constraint = CONSTRAINTS.get(name) or getattr(constraints, name)
    if said.startswith("none"):
        with pytest.raises(ValueError, match="There is no set for"):
            holdfast.sets.from_torch(constraint)
    else:
        found = holdfast.sets.from_torch(constraint)
        assert f"`sets.{type(found).__name__}`" == said


def test_the_table_of_constraints_is_read():
    assert len(sets_of_constraints()) > 20


def test_every_map_and_set_on_the_page_exists():
    assert len(ours(PAGE)) > 60
    assert not missing(ours(PAGE))


def test_a_name_that_does_not_exist_is_noticed():
    assert missing(ours("`maps.Softplus`, `maps.Nowhere`")) == ["maps.Nowhere"]


def test_every_recipe_on_the_page_exists():
    rows = re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE)
    last = [cell for row in rows for cell in row.split("|")[-1:]]
    recipes = {name for cell in last for name in re.findall(r"`([a-z_]+)[`(]", cell)}
    assert {"spd", "low_rank", "sphere", "hurwitz", "max_norm"} <= recipes
    assert not {name for name in recipes if not hasattr(holdfast, name)} - {"low"}
