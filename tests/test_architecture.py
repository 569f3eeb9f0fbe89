"""The layout that docs/architecture.md draws is the layout of the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import holdfast

PACKAGE = Path(holdfast.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports from its own layer and from those before it. "holdfast" is the
# package's own __init__, which gathers the public names: only what comes after it may
# import from there.
LAYERS = (
    "lazily",
    "errors",
    "linalg",
    "sets",
    "core",
    "maps",
    "recipes",
    "model",
    "testing",
    "reporting",
    "plot",
    "holdfast",
    "integrations",
    "demo",
    "commands",
    "cli",
)
SUBPACKAGES = {name for name in LAYERS if name != "holdfast"}

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 400

# What `import torch` does not load by itself, and takes a second or more to load.
SLOW_PARTS_OF_TORCH = {
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torch.onnx",
}

# Packages that load a file when one of its names is asked for
LAZY = ("linalg", "sets", "maps", "recipes")

# What times torch's own beside ours
COMPARED = {"commands/comparison.py", "demo/stiefel/race.py"}

PUBLIC = (
    "holdfast",
    "holdfast.maps",
    "holdfast.plot",
    "holdfast.sets",
    "holdfast.recipes",
    "holdfast.linalg",
    "holdfast.testing",
)
SECTIONS = ("Args:", "Attributes:", "Shape:", "Example:", "References:")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in SUBPACKAGES else "holdfast"


def imported_modules(source: str, package: str) -> set[str]:
    """Return the absolute dotted names that a source in `package` imports."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def upward_imports(source: str, package: str, layer: str) -> set[str]:
    """Return what a source imports from layers after its own."""
    return {
        name
        for name in imported_modules(source, package)
        if name.split(".")[0] == "holdfast"
        and LAYERS.index(layer_of(name)) > LAYERS.index(layer)
    }


def package_of(path: Path) -> str:
    name = module_name(path)
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def described(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=described)
def test_imports_go_one_way(path):
    layer = layer_of(module_name(path))
    upward = upward_imports(path.read_text("utf-8"), package_of(path), layer)
    assert not upward, f"`{layer}` must not import {sorted(upward)}"


@pytest.mark.parametrize(
    "line",
    [
        "from ..maps import Cayley",
        "from ..maps.orthogonal import Cayley",
        "from .. import maps",
        "from .. import orthogonal",
        "import holdfast",
        "import holdfast.maps.orthogonal",
        "from holdfast import cached",
        "from holdfast.recipes import orthogonal",
        "def late():\n    from ..cli import main",
    ],
)
def test_an_upward_import_is_seen(line):
    assert upward_imports(line, "holdfast.core", "core")


@pytest.mark.parametrize(
    "line",
    [
        "from .chain import ParametrizationList",
        "from . import chain",
        "from ..sets import Stiefel",
        "from .. import errors",
        "from holdfast.linalg import expm",
        "import torch.nn.utils.parametrize",
    ],
)
def test_a_downward_import_is_no_upward_one(line):
    assert not upward_imports(line, "holdfast.core", "core")


def test_every_part_of_the_package_has_its_place():
    parts = {path.stem for path in PACKAGE.glob("[!_]*.py")}
    parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts <= SUBPACKAGES, f"add {sorted(parts - SUBPACKAGES)} to LAYERS"


@pytest.mark.parametrize(
    "path", [path for path in FILES if described(path) not in COMPARED], ids=described
)
def test_nothing_builds_on_torchs_own_parametrizations(path):
    found = imported_modules(path.read_text("utf-8"), package_of(path))
    assert not {name for name in found if "torch.nn.utils.parametri" in name}
    attributes = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute | ast.Name)
        and ast.unparse(node.value).endswith("nn.utils")
    }
    assert not attributes & {"parametrize", "parametrizations"}


@pytest.mark.parametrize("path", FILES, ids=described)
def test_a_file_has_a_telling_name_and_a_readable_length(path):
    assert path.stem not in VAGUE
    assert path.stem not in sys.stdlib_module_names
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LONGEST, f"{lines} lines: split it by what its parts are for"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py"], ids=described
)
def test_no_module_is_hidden_by_a_name_of_its_package(path):
    siblings = {file.stem for file in path.parent.glob("*.py")}
    siblings |= {file.parent.name for file in path.parent.glob("*/__init__.py")}
    package = importlib.import_module(module_name(path))
    bound = {
        name for name in dir(package) if not inspect.ismodule(getattr(package, name))
    }
    assert not bound & siblings


def newly_loaded(statement: str, folder: Path) -> set[str]:
    """Return the modules that a statement loads in a process that has torch already."""
    code = (
        "import sys, torch\nbefore = set(sys.modules)\n"
        f"{statement}\nprint(*sorted(set(sys.modules) - before))"
    )
    done = in_another_process(code, folder)
    done.check_returncode()
    return set(done.stdout.split())


def in_another_process(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code where nothing is imported yet."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def heavy(loaded: set[str]) -> set[str]:
    foreign = {name.partition(".")[0] for name in loaded} - {"holdfast", "torch"}
    return (foreign - sys.stdlib_module_names) | (loaded & SLOW_PARTS_OF_TORCH)


def test_importing_holdfast_loads_nothing_heavy(tmp_path):
    loaded = newly_loaded("import holdfast", tmp_path)
    assert "holdfast" in loaded
    assert not heavy(loaded)


def test_the_whole_catalogue_loads_nothing_heavy(tmp_path):
    every = "from holdfast import *; from holdfast.{0} import *"
    loaded = newly_loaded("\n".join(map(every.format, LAZY)), tmp_path)
    files = {module_name(path) for path in FILES}
    catalogue = tuple(f"holdfast.{name}." for name in LAZY)
    assert not {name for name in files if name.startswith(catalogue)} - loaded
    assert not heavy(loaded)


WITHOUT_VALUES = {
    "meta": "torch.device('meta')",
    "fake": "torch._subclasses.FakeTensorMode()",
}


@pytest.mark.parametrize("mode", WITHOUT_VALUES)
def test_what_is_loaded_where_tensors_lack_values_is_of_use_elsewhere(mode, tmp_path):
    code = (
        "import torch, torch._subclasses\n"
        f"with {WITHOUT_VALUES[mode]}:\n"
        "    import holdfast\n"
        "    holdfast.weight_norm(torch.nn.Linear(2, 2))\n"
        "layer, same = torch.nn.Linear(2, 2), torch.nn.Identity()\n"
        "holdfast.register_parametrization(layer, 'weight', same)\n"
        "print(layer.parametrizations.weight.moved)"
    )
    done = in_another_process(code, tmp_path)
    assert (done.stdout, done.stderr) == ("0.0\n", "")


def test_the_laws_are_loaded_by_those_who_ask(tmp_path):
    assert "holdfast.testing" not in newly_loaded("import holdfast", tmp_path)
    loaded = newly_loaded("import holdfast.testing", tmp_path)
    assert "holdfast.testing" in loaded
    assert not heavy(loaded)


def test_a_heavy_import_is_seen(tmp_path):
    assert "scipy" in heavy(newly_loaded("import scipy", tmp_path))
    assert heavy({"torch._dynamo", "torch._dynamo.config"}) == {"torch._dynamo"}


def documentation_faults(thing: object) -> list[str]:
    """Return what is missing from the docstring of a public name."""
    is_class = isinstance(thing, type)
    text = vars(thing).get("__doc__") if is_class else thing.__doc__
    if not text:
        return ["has no docstring"]
    found = [match.group(1) for match in re.finditer(r"^\s*([A-Z]\w+:)$", text, re.M)]
    known = [section for section in found if section in SECTIONS]
    faults = []
    if ">>>" not in text:
        faults.append("has no example")
    if known != sorted(known, key=SECTIONS.index):
        faults.append(f"has its sections in the order {known}")
    return faults


def public_names() -> dict[str, object]:
    spaces = map(importlib.import_module, PUBLIC)
    found = {
        f"{space.__name__}.{name}": getattr(space, name)
        for space in spaces
        for name in space.__all__
        if not inspect.ismodule(getattr(space, name))
    }
    raised = inspect.getmembers(holdfast.errors, inspect.isclass)
    return found | {
        f"holdfast.errors.{name}": error
        for name, error in raised
        if issubclass(error, holdfast.errors.HoldfastError)
    }


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_is_documented_with_an_example(name):
    assert documentation_faults(public_names()[name]) == []


class Documented:
    """A name as it should be.

    Args:
        x: something.

    Example:
        >>> 1 + 1
        2
    """


class WithoutExample:
    """A name that shows nothing."""


class OutOfOrder:
    """A name with its parts turned round.

    Example:
        >>> 1 + 1
        2

    Args:
        x: something.
    """


class Inherited(Documented):
    pass


def test_a_faulty_docstring_is_seen():
    assert documentation_faults(Documented) == []
    assert documentation_faults(WithoutExample) == ["has no example"]
    assert "order" in documentation_faults(OutOfOrder)[0]
    assert documentation_faults(Inherited) == ["has no docstring"]
