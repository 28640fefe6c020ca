"""Rows of the literature's tables of log p(x), trained and evaluated with this library."""
