"""Sphinx configuration of the documentation site."""

project = "ccop-hub"
html_title = "ccop-hub"
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
smartquotes = False  # "--flag" must not become a dash
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
exclude_patterns = [".doctrees"]
