"""Generated sources, in docs/generated."""

from __future__ import annotations


def write_pages(folder, pages):
    """Write pages, and only those that changed: Sphinx reads these again."""
    for name, text in pages.items():
        path = folder / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
