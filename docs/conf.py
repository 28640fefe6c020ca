"""How Sphinx builds the site: ``python -m sphinx -W --keep-going -n docs docs/_build/html``, without network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "_ext")]

import results_pages  # noqa: E402

import pyro_vae  # noqa: E402

results_pages.write(HERE)

project = "pyro_vae"
author = "The pyro_vae developers"
release = version = pyro_vae.__version__

extensions = [
    "myst_nb",  # Markdown pages, and notebooks that are executed
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",  # one page for each public name
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "sphinx.ext.viewcode",  # links to the source
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",  # cards of the front page
    "line_breaks",
    "mathml",
    "public_names",
    "repository_links",
    "whole_streams",
]
exclude_patterns = ["_build", "inventories"]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [
    # Types that occur in signatures, but that nobody imports.
    ("py:class", r"pyro_vae\.(processes\.Result|nn\.kind\.Kind|distributions\.supports\..*)"),
    ("py:class", r"Progress|pyro\.distributions\.torch_distribution\.ExpandedDistribution"),
    # Parts of a signature that has a default value <factory>, which Sphinx splits at commas.
    ("py:class", r".*\[.*"),
    # Packages that are optional, and have no inventory.
    ("py:(class|exc)", r"(pl|polars|wandb|mlflow|optuna)\..*|MlflowException"),
]

# Markdown and notebooks
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_inline", "attrs_block", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True  # $$...$$ may follow a line of text
nb_execution_mode = "cache"  # a notebook is executed again only if its code has changed
nb_execution_timeout = 600  # seconds, for one cell
nb_execution_show_tb = True  # an error is a warning, which -W turns into a failure of the build
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# API reference
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

# Links to other libraries. The inventories here have the names that docstrings use, so the build needs no network.
# With network, PYRO_VAE_DOCS_ONLINE=1 takes the inventories of these sites, which shows if a link is out of date.
SITES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "pyro": "https://docs.pyro.ai/en/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "matplotlib": "https://matplotlib.org/stable/",
}
ONLINE = os.environ.get("PYRO_VAE_DOCS_ONLINE") == "1"
intersphinx_mapping = {
    name: (url, None if ONLINE else str(HERE / "inventories" / f"{name}.txt")) for name, url in SITES.items()
}

# Pages
html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"pyro_vae {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
suppress_warnings = ["mystnb.unknown_mime_type"]
linkcheck_timeout = 30
linkcheck_retries = 2
