"""The page of names leaves out none of theirs, and names none of ours that is not."""

from __future__ import annotations

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


def torchs() -> list[str]:
    functions = [
        name
        for module in (parametrize, parametrizations, prune)
        for name, thing in vars(module).items()
        if callable(thing)
        and getattr(thing, "__module__", "") == module.__name__
        and name[0].islower()
    ]
    asked = {"is_pruned", "remove", "type_before_parametrizations"}
    known = {name for name in functions if not name.startswith("_")} - asked
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
    assert torch.__version__


def ours(text: str) -> list[str]:
    return re.findall(r"`((?:maps|sets)\.\w+)", text)


def missing(names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if not hasattr(getattr(holdfast, name.split(".")[0]), name.split(".")[1])
    ]


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
