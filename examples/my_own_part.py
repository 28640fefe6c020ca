"""Write a prior of your own and use it in a VAE.

You learn that a part is an nn.Module whose forward returns a distribution. Here it is a mixture along a spiral.

Run: python examples/my_own_part.py (less than a minute). You should see log p(x) with its error for a standard normal
prior and for the spiral.
"""

import argparse

import pyro
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO

from pyro_vae import SVI, VAE, data, evidence, likelihoods, nn, posteriors, priors


class Spiral(torch.nn.Module):
    """p(z) on the plane: a mixture of normals along two spiral arms, with one learned width."""

    def __init__(self, components: int = 40) -> None:
        super().__init__()
        angle = torch.linspace(0.5, 6.0, components // 2)
        arm = 0.6 * angle[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
        self.register_buffer("loc", torch.cat([arm, -arm]))
        self.log_scale = torch.nn.Parameter(torch.tensor(-1.0))

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z)."""
        along = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=torch.zeros_like(self.loc[:, 0])), along)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    images = data.binarize.fixed(data.load("mnist").test)
    batches, test = data.Batches(images[:8000], 100), images[8000:8200]
    for prior in (priors.StandardNormal(2), Spiral()):
        torch.manual_seed(0)
        vae = VAE(
            prior,
            likelihoods.Bernoulli(nn.mlp(2, [200, 200], (1, 28, 28))),
            posteriors.Normal(nn.mlp((1, 28, 28), [200, 200], 4)),
        )
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 2e-3}), Trace_ELBO())
        for _ in range(5):
            svi.epoch(batches)
        result = evidence.estimate(vae.model, vae.guide, test)
        print(f"{type(prior).__name__}: log p(x) in nats per image: {result:.2f}")  # 95% error, bias included


if __name__ == "__main__":
    main()
