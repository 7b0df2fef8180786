"""What Sphinx does not bring: equations as MathML, docstrings as written here, and pages made from the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

from docs.site import docstrings, made
from gdsl.editor.colours import GdslLexer

MATH = "mathml"


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = docstrings.to_rest(lines)


def _make_pages(app: Sphinx) -> None:
    made.write(Path(app.srcdir) / "made")


def _for_the_site(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links that are right without a site lead to the pages that are made for it, and blocks show what they are."""
    up = "../" * docname.count("/")
    if docname == "layers":
        there = {path.stem for path in (Path(app.srcdir) / made.LAYERS).glob("*.md")} - {"index"}
        names = "|".join(sorted(there))
        source[0] = re.sub(rf"^\| ({names}) \|", rf"| [\1]({made.LAYERS}/\1.md) |", source[0], flags=re.MULTILINE)
    # What stands behind the language of a block is a class of it, so that a style can show it.
    source[0] = re.sub(
        r"^```gdsl (refused|warned)\n", r"```{code-block} gdsl\n:class: \1\n\n", source[0], flags=re.MULTILINE
    )
    if not docname.startswith("made/"):
        for page, instead in made.INSTEAD.items():
            source[0] = source[0].replace(f"]({up}../{page}", f"]({up}made/{instead}")
        source[0] = source[0].replace(f"]({up}../README.md", f"]({up}index.md")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer(MATH, (_inline, None), (_block, None))
    app.connect("builder-inited", _make_pages)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("source-read", _for_the_site)
    app.add_lexer("gdsl", GdslLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
