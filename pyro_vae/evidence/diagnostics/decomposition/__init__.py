"""The parts of the ELBO, and which latent units are active."""
