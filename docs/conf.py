"""Configuration of Sphinx; the pages are in Diátaxis order."""

from importlib.metadata import version as _version

project = "ndstream"
author = "The ndstream developers"
copyright = "2026, The ndstream developers"  # noqa: A001  Sphinx wants this name
version = release = _version("ndstream")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False
# Attributes that are properties too would be described twice otherwise.
napoleon_use_ivar = True

html_theme = "pydata_sphinx_theme"
html_title = "ndstream"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    # Nothing is fetched from elsewhere when the pages are read.
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
