"""Checks of guides, bounds and estimates."""
