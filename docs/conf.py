"""Says how the site of these pages is built: `nox -s site` writes it to build/site, and fails at any warning.

Its source is the whole project, so that links between pages, the README and examples lead to the same files everywhere.
"""

from __future__ import annotations

from typing import Any

import latex2mathml.converter
from docutils import nodes
from pygments.lexers.special import TextLexer

import lopsided
from lopsided.report import loss_page

project = "lopsided"
author = "the developers of lopsided"
release = lopsided.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**.md"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
default_role = "code"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = "lopsided"
html_copy_source = False
html_show_copyright = False

# `nox -s links`: no page is asked for its headings, which GitHub makes by a script; a moved page is no fault
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 4  # sites refuse those who ask for much at once


def escape_bars(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace("|", r"\|") for line in lines]  # they stand for absolute values, not for substitutions


def as_mathml(page: Any, node: nodes.Element) -> None:
    """Writes a formula as browsers read it by themselves, without a script from elsewhere."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = latex2mathml.converter.convert(node.astext(), display=display)
    page.body.append(f'<p style="overflow: auto hidden">{formula}</p>' if display == "block" else formula)
    raise nodes.SkipNode


def insert_page(app: Any, name: str, source: list[str]) -> None:
    if name == "docs/draw":
        source[0] = source[0].replace("<!-- the interactive page -->", f"```{{raw}} html\n{loss_page.body()}\n```")


def setup(app: Any) -> None:
    app.connect("source-read", insert_page)
    app.add_html_math_renderer("mathml", inline_renderers=(as_mathml, None), block_renderers=(as_mathml, None))
    app.connect("autodoc-process-docstring", escape_bars)
    for name in ("csv", "tsv"):
        app.add_lexer(name, TextLexer)
