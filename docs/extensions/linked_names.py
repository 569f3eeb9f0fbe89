"""Names in pages and docstrings become links to the reference.

Pages write `maps.Cayley`, docstrings `Cayley`, and both read well where no site is
built. Here every such literal that names something in the reference becomes a link.
"""

from __future__ import annotations

import re

from docutils import nodes
from meanings import resolve
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

CALL = re.compile(r"^([A-Za-z_][\w.]*)(\(.*\))?$", re.DOTALL)


class Backticks(SphinxTransform):
    """Single backticks in docstrings are code."""

    default_priority = 400

    def apply(self, **_):
        for node in list(self.document.findall(nodes.title_reference)):
            node.replace_self(nodes.literal("", node.astext()))


class TrimmedCode(SphinxTransform):
    """Examples end where their output does, not in the empty line that doctest asks."""

    default_priority = 400

    def apply(self, **_):
        for node in self.document.findall(nodes.literal_block):
            # what differs from its source is taken for markup, and is not colored
            node.rawsource = node.astext().rstrip()
            node.replace(node[0], nodes.Text(node.rawsource))


class LinkedNames(SphinxPostTransform):
    """A literal that names an object of the reference becomes a link."""

    default_priority = 5

    def run(self, **_):
        here = self.env.current_document.docname
        objects = self.env.get_domain("py").objects
        for node in list(self.document.findall(nodes.literal)):
            if isinstance(node.parent, nodes.reference):
                continue
            found = CALL.match(node.astext())
            target = found and resolve(found.group(1), here, objects)
            if target and objects[target].node_id:
                at = objects[target]
                link = make_refnode(
                    self.app.builder, here, at.docname, at.node_id, node.deepcopy()
                )
                node.replace_self(link)


def setup(app):
    app.add_transform(Backticks)
    app.add_transform(TrimmedCode)
    app.add_post_transform(LinkedNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
