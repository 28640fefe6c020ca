"""Checks of guides, bounds and estimates.

Each has a folder: ``computation.py`` computes, ``result.py`` is what is returned, ``plot.py`` draws it.
"""
