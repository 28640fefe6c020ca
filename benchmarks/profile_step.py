"""Where the time of one training step goes, by torch's profiler, for a 784-400-50-400-784 VAE on batches of 128."""

import argparse
from collections import Counter

import torch
from pyro.infer import TraceMeanField_ELBO
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from pyro_vae import SVI, VAE, data, likelihoods, nn, posteriors, priors

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "mkldnn"),
    "Adam": ("aten::_fused_adam_", "aten::_foreach_add_"),
    "random numbers": ("aten::normal_", "aten::uniform_", "aten::rand", "aten::bernoulli", "aten::randperm"),
    "gathering the batch": ("aten::index",),
    "compiled code between the products, and what calls it": ("## Call CompiledFxGraph",),
}
REST = "other operations"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--compile", choices=["graph", "inductor"], default="inductor")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(50),
        likelihoods.Bernoulli(nn.mlp(50, [400], 784)),
        posteriors.Normal(nn.mlp(784, [400], 100)),
    )
    x = data.load("mnist").train[: 128 * args.steps].reshape(-1, 784)
    batches = data.Batches(data.binarize.fixed(x), 128)
    optimizer = torch.optim.Adam(vae.parameters(), fused=True)
    compile_ = True if args.compile == "inductor" else args.compile
    svi = SVI(vae.model, vae.guide, optimizer, TraceMeanField_ELBO(), compile=compile_, precision=args.precision)
    svi.epoch(batches)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        svi.epoch(batches)
    microseconds: Counter[str] = Counter()
    for event in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), REST)
        microseconds[kind] += event.self_cpu_time_total / len(batches)
    table = Table("self time of one step", "ms", "part", title=f"{args.compile}, {args.precision}")
    for kind, value in microseconds.most_common():
        table.add_row(kind, f"{1e-3 * value:.3f}", f"{value / microseconds.total():.0%}")
    Console().print(table)
    print("The profiler slows all of it down, short operations most.")


if __name__ == "__main__":
    main()
