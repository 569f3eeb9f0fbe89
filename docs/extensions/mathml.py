"""Formulas as MathML, which browsers draw by themselves: no script, no network."""

from __future__ import annotations

from docutils import nodes
from latex2mathml.converter import convert


def aligned(latex):
    """Return a formula, its lines under each other if it has several."""
    latex = " ".join(latex.split())  # a backslash at the end of a line is a space
    several = "\\\\" in latex or "&" in latex
    return rf"\begin{{aligned}}{latex}\end{{aligned}}" if several else latex


def visit_inline(writer, node):
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_block(writer, node):
    parts = [part.strip() for part in node.astext().split("\n\n") if part.strip()]
    formulas = [convert(aligned(part), display="block") for part in parts]
    writer.body.append(f'<div class="math">{"".join(formulas)}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
