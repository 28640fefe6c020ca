"""The decoder z -> mean of p(x | z) as a list of operations that the page's JavaScript runs (internal)."""
