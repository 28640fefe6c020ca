"""log p(x) - ELBO, split into approximation gap and amortization gap."""
