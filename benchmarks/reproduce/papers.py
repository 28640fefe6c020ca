"""What papers report: log p(x) of the test images of a data set. This module imports neither torch nor pyro_vae."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """A row of a table in a paper.

    Attributes:
        model: What it is, in words.
        test: The test images: ``"dynamic"``, in a binarization of their own (training draws pixels anew in every
            epoch), or ``"fixed"``, the binarization of MNIST of Larochelle & Murray 2011.
        log_prob: The mean log p(x), in nats.
        source: Where it is reported.
        data: The name of the data set.
        num_samples: The number of samples from the guide for each image, with which it was estimated.
    """

    model: str
    test: str
    log_prob: float
    source: str
    data: str = "mnist"
    num_samples: int = 5000


BURDA = "Burda et al. 2015, table 1"
TOMCZAK = "Tomczak & Welling 2018, table 1"
RAINFORTH = "Rainforth et al. 2018"
NOROUZI = "Norouzi et al. 2020"
ONE, TWO, GATED = "784-200-200-50", "784-200-200-100-100-100-50", "784-300-300-40, gated"

PAPERS = {
    "vae-1-short": Paper(f"VAE, {ONE}, 120 epochs", "dynamic", -86.76, BURDA),
    "vae-1": Paper(f"VAE, {ONE}", "dynamic", -86.76, BURDA),
    "vae-5": Paper(f"VAE, k = 5, {ONE}", "dynamic", -86.47, BURDA),
    "vae-50": Paper(f"VAE, k = 50, {ONE}", "dynamic", -86.35, BURDA),
    "iwae-5": Paper(f"IWAE, k = 5, {ONE}", "dynamic", -85.54, BURDA),
    "iwae-50": Paper(f"IWAE, k = 50, {ONE}", "dynamic", -84.78, BURDA),
    "vae-2-layers-1": Paper(f"VAE, {TWO}", "dynamic", -85.33, BURDA),
    "vae-2-layers-5": Paper(f"VAE, k = 5, {TWO}", "dynamic", -85.01, BURDA),
    "vae-2-layers-50": Paper(f"VAE, k = 50, {TWO}", "dynamic", -84.78, BURDA),
    "iwae-2-layers-5": Paper(f"IWAE, k = 5, {TWO}", "dynamic", -83.89, BURDA),
    "iwae-2-layers-50": Paper(f"IWAE, k = 50, {TWO}", "dynamic", -82.90, BURDA),
    "miwae": Paper(f"MIWAE, 8 bounds of 8, {ONE}", "dynamic", -84.97, RAINFORTH),
    "piwae": Paper(f"PIWAE, 8 bounds of 8, {ONE}", "dynamic", -84.46, RAINFORTH),
    "ciwae": Paper(f"CIWAE, 0.05 ELBO, k = 64, {ONE}", "dynamic", -84.57, RAINFORTH),
    "ladder": Paper("ladder VAE, latents 64-32-16-8-4", "dynamic", -81.74, "Sonderby et al. 2016"),
    "omniglot-vae-1": Paper(f"VAE, {ONE}", "dynamic", -108.11, BURDA, "omniglot"),
    "omniglot-iwae-50": Paper(f"IWAE, k = 50, {ONE}", "dynamic", -104.67, BURDA, "omniglot"),
    "fashion-vae": Paper(f"VAE, {GATED}", "dynamic", -228.70, NOROUZI, "fashion_mnist"),
    "fashion-vamp": Paper(f"VampPrior of 500, {GATED}", "dynamic", -227.35, NOROUZI, "fashion_mnist"),
    "vae-1-fixed": Paper(f"VAE, {ONE}", "fixed", -88.71, "Burda et al. 2015, fixed binarization"),
    "iwae-50-fixed": Paper(f"IWAE, k = 50, {ONE}", "fixed", -87.10, "Burda et al. 2015, fixed binarization"),
    "gated-vae": Paper(f"VAE, {GATED}", "fixed", -88.56, TOMCZAK),
    "gated-vamp": Paper(f"VampPrior of 500, {GATED}", "fixed", -85.57, TOMCZAK),
    "hvae": Paper("HVAE, two layers of 40, gated", "fixed", -86.05, TOMCZAK),
    "hvae-vamp": Paper("HVAE with a VampPrior of 500, two layers of 40, gated", "fixed", -83.19, TOMCZAK),
}
