"""The reference: an entry for every public name, by package and file."""

from __future__ import annotations

import importlib
import inspect
import re
from itertools import groupby
from pathlib import Path

from writing import write_pages

PACKAGES = (
    "holdfast",
    "holdfast.maps",
    "holdfast.sets",
    "holdfast.recipes",
    "holdfast.linalg",
    "holdfast.plot",
    "holdfast.testing",
    "holdfast.errors",
)
# The files of these packages are no families: one page shows all names.
ON_ONE_PAGE = ("holdfast.recipes", "holdfast.testing", "holdfast.errors")
# What is shown of classes that also have methods for the library itself.
MEMBERS = {
    "AverageWeights": "update_parameters",
    "Parametrization": (
        "forward, right_inverse, bind, refine_, rebase_, translate, spec"
    ),
    "Discovery": "holding, records, to_json, to_pandas",
    "ParametrizationList": "right_inverse, rebase_, originals",
    "Report": "holds, violations, records, to_json, to_pandas",
    "Trace": "records, to_json, to_pandas",
}
# The pages of `holdfast` itself, by the package that the names are from.
TITLES = {
    "core": "One tensor",
    "model": "A whole model",
    "reporting": "Reports and traces",
}
ABOUT = {
    "core": "What registers, reads, assigns, changes and removes the maps of a tensor.",
    "model": "What works on all parametrized tensors below a module.",
    "reporting": "What shows whether parametrizations hold, and changes nothing by it.",
}


def public_names(package):
    """Return what a package exports, by name."""
    space = importlib.import_module(package)
    names = getattr(space, "__all__", None) or [
        name
        for name, value in vars(space).items()
        if getattr(value, "__module__", None) == package and isinstance(value, type)
    ]
    values = {name: getattr(space, name) for name in names}
    return {
        name: value for name, value in values.items() if not inspect.ismodule(value)
    }


def first_line(thing):
    return inspect.getdoc(thing).partition("\n\n")[0].replace("\n", " ")


def page_of(package, value):
    """Return the name of the page of a thing that a package exports."""
    if package in ON_ONE_PAGE:
        return "index"
    layer, _, file = value.__module__.removeprefix("holdfast.").partition(".")
    return layer if package == "holdfast" else file


def heading(title, mark):
    return f"{title}\n{mark * len(title)}\n"


def entry(package, name, value):
    """Return the directive of one name; only noun-like classes show their methods."""
    if not isinstance(value, type):
        return f".. autofunction:: {package}.{name}\n"
    if issubclass(value, Exception):
        return f".. autoexception:: {package}.{name}\n   :show-inheritance:\n"
    catalogued = package in {"holdfast.maps", "holdfast.sets"} and name != "Constraint"
    members = "" if catalogued else f"   :members: {MEMBERS.get(name, '')}\n"
    return f".. autoclass:: {package}.{name}\n{members}"


def table(lines):
    """Return a table of two columns."""
    rows = [f"   * - {left}\n     - {right}" for left, right in lines]
    return "\n".join([".. list-table::", "   :class: names", "", *rows, ""])


def rows(package, names):
    """Return a table of names, each with the first line of its docstring."""
    lines = []
    for name, value in sorted(names.items(), key=lambda item: item[0].lower()):
        home = "holdfast.recipes" if ".recipes." in value.__module__ else package
        lines.append((f":py:obj:`{name} <{home}.{name}>`", first_line(value)))
    return table(lines)


def title_of(package, page):
    return TITLES.get(page) or page.replace("_", " ").capitalize()


def file_page(package, page, names):
    """Return the page of one file of a package."""
    source = f"holdfast.{page}" if package == "holdfast" else f"{package}.{page}"
    about = ABOUT.get(page) or first_line(importlib.import_module(source))
    return "\n".join(
        [
            heading(title_of(package, page), "="),
            about,
            "",
            *(entry(package, name, value) for name, value in names.items()),
        ]
    )


def by_page(package):
    """Return the names of each page of a package."""

    def page(item):
        return page_of(package, item[1])

    items = sorted(public_names(package).items(), key=lambda item: (page(item), item))
    return {key: dict(group) for key, group in groupby(items, page)}


def package_pages(package):
    """Return the pages of a package by their paths."""
    folder = package.removeprefix("holdfast").lstrip(".") or "holdfast"
    found = by_page(package)
    about = importlib.import_module(package)
    parts = [heading(package, "="), first_line(about), ""]
    if package in ON_ONE_PAGE:
        names = found["index"]
        parts += [rows(package, names)]
        parts += [entry(package, name, value) for name, value in names.items()]
        return {f"{folder}/index.rst": "\n".join(parts)}
    parts += [rows(package, public_names(package))]
    own = [page for page in found if page != "recipes"]
    parts += [".. toctree::", "   :hidden:", "", *(f"   {page}" for page in own), ""]
    pages = {f"{folder}/index.rst": "\n".join(parts)}
    for page in own:
        text = file_page(package, page, found[page])
        pages[f"{folder}/{page}.rst"] = text
    return pages


def pages():
    """Return the text of every page of the reference by its path."""
    folders = [name.removeprefix("holdfast").lstrip(".") for name in PACKAGES]
    pages = [f"{folder or 'holdfast'}/index" for folder in folders]
    lines = [
        (f":doc:`{package} <{page}>`", first_line(importlib.import_module(package)))
        for package, page in zip(PACKAGES, pages, strict=True)
    ]
    parts = [
        heading("Reference", "="),
        "Every public name, with an example that the tests run.",
        "",
        table(lines),
        ".. toctree::",
        "   :hidden:",
        "",
        *(f"   {page}" for page in pages),
        "",
    ]
    found = {"index.rst": "\n".join(parts)}
    for package in PACKAGES:
        found |= package_pages(package)
    return found


def escape_symbols(_app, _what, _name, _value, _options, lines):
    """Keep "rank: r." a sentence: to napoleon and docutils it begins a list at r."""
    text = re.sub(r"(:param \w+:)\n +(\w)\.(?=\n|$)", r"\1 \\\2.", "\n".join(lines))
    lines[:] = text.split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", escape_symbols, priority=900)
    write_pages(Path(app.srcdir) / "generated" / "reference", pages())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
