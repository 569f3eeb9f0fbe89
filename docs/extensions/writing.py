"""Generated sources, in docs/generated."""

from __future__ import annotations


def write_pages(folder, pages):
    """Make a folder hold these pages only; what has not changed is left alone.

    Sphinx reads again what was written, and warns of pages that nothing leads to.
    """
    for path in folder.rglob("*.*"):
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
