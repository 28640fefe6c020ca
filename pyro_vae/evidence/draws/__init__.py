"""Draws from the posterior, and missing values."""
