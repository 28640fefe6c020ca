"""The methods of ``estimate``, in the order in which they are tried."""

from __future__ import annotations

METHODS = ("guide", "guide and prior", "Laplace", "annealed from Laplace", "annealed from prior")
GUIDE, WITH_PRIOR, LAPLACE, ANNEALED, FROM_PRIOR = range(len(METHODS))
