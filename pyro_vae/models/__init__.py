"""Pairs of Pyro programs made of parts: model and guide."""
