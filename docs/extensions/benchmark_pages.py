"""Pages that others write: the committed results of benchmarks, and the changelog."""

from __future__ import annotations

import re
from pathlib import Path

from writing import write_pages

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"

INDEX = """\
# Benchmarks

What `python -m benchmarks` and `python -m benchmarks.orthogonal` measured, as it was
committed: each page names the machine, the versions and the spread. Run them for
figures of your own.

:::{{toctree}}
{names}
:::
"""


def unwrapped(text):
    """Return a page whose tables of figures do not break their lines."""
    mark = ":::{rst-class} figures\n:::\n"
    return re.sub(r"(?<=\n\n)(?=\|)", mark + "\n", text)


def pages():
    """Return the text of every page by its path."""
    results = {
        path.stem: unwrapped(path.read_text("utf-8")) for path in RESULTS.glob("*.md")
    }
    found = {f"{name}.md": text for name, text in results.items()}
    return found | {"index.md": INDEX.format(names="\n".join(sorted(results)))}


def setup(app):
    generated = Path(app.srcdir) / "generated"
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    write_pages(generated / "benchmarks", pages())
    write_pages(generated / "changes", {"changelog.md": changelog})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
