"""Packages whose names are loaded when somebody asks for them.

The catalogue has more files than a program uses. What a package exports, and from which
of its files, is written once, in its stub ``__init__.pyi``: type checkers read it, and
so does the package when it is imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def attach(
    package: str, file: str
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package, by its stub.

    Example:
        >>> import holdfast.maps
        >>> get, names = attach("holdfast.maps", holdfast.maps.__file__)
        >>> get("Cayley").__name__, "Cayley" in names()
        ('Cayley', True)
    """
    folder = Path(file).parent
    table = _exports(folder / "__init__.pyi")

    def get(name: str) -> object:
        if name == "__all__":
            return sorted(table)
        if name in table:
            value = getattr(import_module(f"{package}.{table[name]}"), name)
        elif (folder / f"{name}.py").is_file():
            return import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        setattr(sys.modules[package], name, value)  # the next time it is there
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *table})

    return get, names


def _exports(stub: Path) -> dict[str, str]:
    """Return the file of each name that a stub imports."""
    return {
        alias.name: str(node.module)
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
