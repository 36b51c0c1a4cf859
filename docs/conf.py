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
# `--flag` has two dashes.
smartquotes = False
# csi-wire.md has a heading a message below the name of its service.
suppress_warnings = ["myst.header"]
html_theme = "alabaster"
html_theme_options = {"page_width": "80rem", "body_max_width": "none", "fixed_sidebar": True}
html_copy_source = False
html_show_copyright = False

# What the sidebar shows. Directives in index.md would be noise for whoever reads it as it is.
MENU = "".join(
    f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{pages}\n```\n"
    for caption, pages in {
        "Tutorial": "tutorial/*",
        "How to": "how-to/*\nhow-to/observability/*",
        "Reference": "reference/*\nspec/*\nchangelog",
        "Explanation": "explanation/*\ndesign",
    }.items()
)
# Files beside docs/ are read where they lie: the site has no page of them.
OUTSIDE = re.compile(r"\[([^]]*)\]\((?:\.\./)+[A-Z]+\.md\)")


def setup(app: Sphinx) -> None:
    app.connect("source-read", lambda _, page, source: source.append(site(page, source.pop())))


def site(page: str, text: str) -> str:
    return OUTSIDE.sub(r"`\1`", text) + MENU * (page == root_doc)
