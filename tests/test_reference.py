"""The reference of the documentation has an entry for every public name."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

import holdfast

EXTENSIONS = Path(__file__).parent.parent / "docs" / "extensions"
ENTRY = re.compile(r"^\.\. auto(?:class|function|exception):: (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXTENSIONS)
        yield importlib.import_module("reference")
    for name in ("reference", "writing", "meanings"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def entries(reference):
    return [name for page in reference.pages().values() for name in ENTRY.findall(page)]


def missing(package, entries):
    """Return the names that a package exports and the reference lacks.

    A recipe is exported twice, and documented once.
    """
    space = importlib.import_module(package)
    names = {
        name for name in space.__all__ if not inspect.ismodule(vars(space).get(name))
    }
    there = {entry.rpartition(".")[2] for entry in entries if home(entry) == package}
    if package == "holdfast":
        there |= set(holdfast.recipes.__all__)
    return names - there


def home(entry):
    return entry.rpartition(".")[0]


@pytest.mark.parametrize(
    "part", ["", ".maps", ".sets", ".recipes", ".linalg", ".testing"]
)
def test_every_public_name_has_an_entry(part, entries):
    assert missing(f"holdfast{part}", entries) == set()


def test_every_error_has_an_entry(entries):
    classes = {name for name, _ in inspect.getmembers(holdfast.errors, inspect.isclass)}
    there = {entry.rpartition(".")[2] for entry in entries}
    assert {name for name in classes if name.endswith("Error")} <= there


def test_no_name_has_two(entries):
    assert len(entries) == len(set(entries)) > 300


def test_a_name_without_an_entry_is_found(entries):
    rest = [entry for entry in entries if entry != "holdfast.maps.Cayley"]
    assert missing("holdfast.maps", rest) == {"Cayley"}


def test_a_page_is_written_when_it_changes_only(tmp_path, reference):
    pages = {"a/one.rst": "one", "two.rst": "two"}
    reference.write_pages(tmp_path, pages)
    before = (tmp_path / "a/one.rst").stat().st_mtime_ns
    reference.write_pages(tmp_path, pages | {"two.rst": "other"})
    assert (tmp_path / "a/one.rst").stat().st_mtime_ns == before
    assert (tmp_path / "two.rst").read_text() == "other"
    reference.write_pages(tmp_path, {"two.rst": "other"})
    assert [path.name for path in tmp_path.rglob("*.rst")] == ["two.rst"]


@pytest.mark.parametrize(
    ("name", "page", "meant"),
    [
        ("maps.Cayley", "names", "holdfast.maps.Cayley"),
        ("Cayley", "guides/own_maps", "holdfast.maps.Cayley"),
        ("cached", "concepts/caching", "holdfast.cached"),
        ("Orthogonal", "families/orthogonal", None),  # a set and a map
        ("Orthogonal", "generated/reference/sets/groups", "holdfast.sets.Orthogonal"),
        ("Orthogonal", "generated/reference/maps/cayley", "holdfast.maps.Orthogonal"),
        ("Cayley", "names", None),  # in a table it may be anybody's
        ("positive", "coming_from/torch", None),
        ("simplex", "families/combinators", None),  # a constraint of torch's
        ("conv_norm_bound", "families/norms", "holdfast.linalg.conv_norm_bound"),
        ("holdfast.spd", "coming_from/geotorch", "holdfast.recipes.spd"),
        ("torch.cached", "guides/caching", None),
    ],
)
def test_a_name_in_a_page_means_ours_only_where_it_can(reference, name, page, meant):
    meanings = importlib.import_module("meanings")
    public = {
        f"{package}.{each}"
        for package in reference.PACKAGES
        for each, value in reference.public_names(package).items()
        if package != "holdfast" or ".recipes." not in value.__module__
    }
    assert meanings.resolve(name, page, public) == meant
