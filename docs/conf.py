"""The documentation as a site: ``make docs``. Sphinx reads this file.

Pages are the Markdown files of this folder, which can be read without a site too. What can be made from the code is
made at build time, into ``docs/made/``, by the modules of ``docs/site/``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import gdsl  # noqa: E402
from docs.site import extension  # noqa: E402

warnings.filterwarnings("ignore", module="torch")

project = "gdsl"
author = "The gdsl authors"
version = release = gdsl.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "docs.site.extension"]
exclude_patterns = ["site", "_build"]
nitpicky = False  # types of signatures are torch's, whose pages are on another site
html_math_renderer = extension.MATH  # MathML, which browsers set without a script
default_role = "code"  # `name` in a docstring

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"

highlight_language = "none"  # of a block that says nothing
toc_object_entries = False  # of two thousand methods

html_theme = "furo"
html_title = f"gdsl {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
