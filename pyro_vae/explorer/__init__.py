"""A page to explore a trained VAE in the browser: one HTML file that needs no server and no network.

``explorer.write(vae, x, "explorer.html")`` writes it; ``pyro-vae explore RUN`` does so for a run. The page has a map of
the codes of data, decodes latents while they are dragged, has a slider for each latent, interpolates between two
datapoints, and shows the datapoints with the lowest log p(x). ``docs/explorer.md`` describes it.
"""

from pyro_vae.explorer.writing import write

__all__ = ["write"]
