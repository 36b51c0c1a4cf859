"""How Sphinx builds these pages (`nox -s docs`); they are Markdown, and read as well where they lie."""

import re

from sphinx.application import Sphinx

project = "csi-provisioner"
extensions = ["myst_parser"]
root_doc = "index"
# Fragments of the change log are read by towncrier.
exclude_patterns = ["changes"]
highlight_language = "text"
myst_heading_anchors = 4
nitpicky = True
# csi-wire.md has a heading a message below the name of its service.
suppress_warnings = ["myst.header", "toc.empty_glob"]
html_theme = "alabaster"
html_theme_options = {"page_width": "80rem", "body_max_width": "none", "fixed_sidebar": True}
html_copy_source = False
html_show_copyright = False

# What the sidebar shows. A directive in index.md would be noise for whoever reads it as it is.
MENU = """
```{toctree}
:hidden:
:glob:
tutorial/*
how-to/*
how-to/observability/*
reference/*
explanation/*
design
spec/*
changelog
```
"""


# Files beside docs/ are read where they lie: the site has no page of them.
OUTSIDE = re.compile(r"\[([^]]*)\]\((?:\.\./)+[A-Z]+\.md\)")


def setup(app: Sphinx) -> None:
    app.connect("source-read", lambda _, page, source: source.append(site(page, source.pop())))


def site(page: str, text: str) -> str:
    return OUTSIDE.sub(r"`\1`", text) + MENU * (page == root_doc)
