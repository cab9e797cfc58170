"""The site: `sphinx-build -W --keep-going docs docs/_build/html` builds it, and needs no network."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

import sparseopt

project = "sparseopt"
author = copyright = "The sparseopt developers"
version = release = sparseopt.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"
toc_object_entries_show_parents = "hide"

myst_heading_anchors = 4                # links between pages name headings as a code host does
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"              # the docstrings name types and shapes
numpydoc_show_class_members = False     # the template of a class shows its members

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"sparseopt {release}"
html_sidebars = {"**": ["pages.html"]}
html_theme_options = {"navbar_center": [], "navbar_persistent": [], "navbar_end": ["search-field", "theme-switcher"],
                      "show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"           # browsers draw MathML themselves: MathJax would come from the network


def mathml(writer, node):
    block, code = isinstance(node, nodes.math_block), node.astext()
    aligned = "&" in latex2mathml.toplevel_code(code)
    parts = [code] if aligned else re.split(r"\\q?quad", code)      # on a narrow screen, each part has a line
    try:
        formulas = "".join(latex2mathml.tex2mathml(part, as_block=block) for part in parts)
    except MathError as error:
        logging.getLogger("sphinx.mathml").warning("%s", error, location=node)
        formulas = ""
    writer.body.append(f'<div class="formulas">{formulas}</div>' if block else formulas)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
