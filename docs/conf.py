"""How Sphinx builds the site: ``make docs``."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

import gallery

project = "holdfast"
author = "the holdfast authors"
project_copyright = "the holdfast authors, BSD 3-Clause license"
version = release = installed("holdfast")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    # ours, in docs/extensions
    "benchmark_pages",
    "linked_names",
    "mathml",
    "reference",
]
exclude_patterns = ["gallery/*", "pictures/*"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
autodoc_default_options = {"member-order": "bysource"}
autodoc_preserve_defaults = True
maximum_signature_line_length = 72
python_use_unqualified_type_names = True

# No network is asked for the pages of others, and names that are not public have none.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|optim|collections|matplotlib|pathlib|types)\..*"),
    (r"py:.*", r"transformers\..*"),
    (r"py:.*", r"holdfast\.(core|linalg|model|reporting)\.\w+\.\w+|_\w+"),
    # What is imported for type checkers alone stands unresolved in signatures.
    (r"py:class", r"Axes|Tensor|Report|Trace|Residual|pd\.DataFrame"),
]

html_theme = "furo"
html_title = "holdfast"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style = "friendly"
pygments_dark_style = "github-dark"

sphinx_gallery_conf = gallery.CONFIGURATION
