"""The ELBO computed in four ways, which must agree."""
