"""Every example runs: those in docstrings, in the README and in docs/."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import holdfast

ROOT = Path(__file__).parent.parent
# Those that `make docs` generates are copies of others.
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(
        page
        for page in sorted(ROOT.glob("docs/**/*.md"))
        if "generated" not in page.parts
    ),
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


# What is for another package can only be imported where that is.
NEEDS = {
    f"holdfast.integrations.{package}": package
    for package in ("lightning", "transformers")
}


PAGE_NEEDS = {
    "training_frameworks.md": ("tensorboard", "lightning", "transformers", "accelerate")
}
# Advice about speed, and what Lightning uses of torch that torch would rather not have.
LIGHTNINGS_WARNINGS = (
    "ignore:The '.*' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",
)


def docstring_examples() -> dict[str, doctest.DocTest]:
    modules = ["holdfast"]
    modules += [
        info.name
        for info in pkgutil.walk_packages(holdfast.__path__, "holdfast.")
        if not info.name.endswith("__main__")
    ]
    finder = doctest.DocTestFinder(exclude_empty=True)
    return {
        example.name: example
        for name in modules
        if find_spec(NEEDS.get(name, "holdfast")) is not None
        for example in finder.find(importlib.import_module(name), name)
        if example.examples
    }


def run_doctest(example: doctest.DocTest, *, keep_names: bool = False) -> None:
    """Run the lines of an example; fail with what they should have printed."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(example, out=report.append, clear_globs=not keep_names)
    if report:
        pytest.fail("".join(report), pytrace=False)


def run_page(text: str, name: str) -> int:
    """Run the Python blocks of a page in order, in one module; count them."""
    page = ModuleType("__page__")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__page__", page)  # where pickle finds its classes
        return run_blocks(text, name, vars(page))


def run_blocks(text: str, name: str, names: dict[str, object]) -> int:
    count = 0
    for block in FENCE.finditer(text):
        language, code = block.groups()
        if language != "python":
            continue
        line = text.count("\n", 0, block.start(2))
        if ">>>" in code:
            example = doctest.DocTestParser().get_doctest(code, names, name, name, line)
            run_doctest(example, keep_names=True)
            names |= example.globs
        else:
            exec(compile("\n" * line + code, name, "exec"), names)
        count += 1
    return count


EXAMPLES = docstring_examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_docstring_run(name):
    run_doctest(EXAMPLES[name])


def test_an_example_that_prints_something_else_fails():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    with pytest.raises(pytest.fail.Exception, match="Expected:\n    3\nGot:\n    2"):
        run_doctest(wrong)


@pytest.mark.filterwarnings(*LIGHTNINGS_WARNINGS)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    for package in PAGE_NEEDS.get(page.name, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text("utf-8"), str(page))


def test_the_readme_has_code_and_a_wrong_block_fails():
    assert run_page((ROOT / "README.md").read_text("utf-8"), "README.md") > 0
    assert run_page("```python\nx = 1\n```\n\n```python\n>>> x\n1\n```\n", "good") == 2
    with pytest.raises(ZeroDivisionError):
        run_page("```python\n1 / 0\n```\n", "bad")
    with pytest.raises(pytest.fail.Exception, match="Expected"):
        run_page("```python\n>>> 1\n2\n```\n", "bad")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_and_commands_of_a_page_exist(page):
    text = page.read_text("utf-8")
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert missing == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [
        command
        for language, code in FENCE.findall(text)
        if language in {"sh", "console"}
        for command in re.findall(r"^(?:\$ )?make (\w+)", code, re.M)
    ]
    assert set(commands) <= targets
