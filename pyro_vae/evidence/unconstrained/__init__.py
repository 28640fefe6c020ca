"""log p(x, z) as a function of real vectors: its modes, normals there, and annealing. Internal."""
