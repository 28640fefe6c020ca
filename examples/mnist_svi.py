"""Train a variational autoencoder on MNIST with SVI, and say how good it is.

Trains on dynamically binarized images; then, on a fixed binarization of the 10000 test images, prints the ELBO by four
estimators and log p(x) by importance sampling. Writes metrics.json, weights.pt and pictures to the folder --out.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

from pyro_vae import SVI, VAE, data, evidence, likelihoods, nn, plots, posteriors, priors
from pyro_vae.devices import choose_device
from pyro_vae.folders import writable_folder

LOSSES = {"trace": Trace_ELBO, "meanfield": TraceMeanField_ELBO}


def build(latent_dim: int, hidden: list[int]) -> VAE:
    """To swap a part is to pass another module that returns a distribution."""
    image = (1, 28, 28)
    return VAE(
        prior=priors.StandardNormal(latent_dim),
        likelihood=likelihoods.Bernoulli(nn.mlp(latent_dim, hidden[::-1], image)),
        posterior=posteriors.Normal(nn.mlp(image, hidden, 2 * latent_dim)),
    )


def train(vae: VAE, images: torch.Tensor, valid: torch.Tensor, args: argparse.Namespace) -> dict[str, list[float]]:
    """Minimizes the negative ELBO. Returns its mean over the images, in nats, for every epoch."""
    batches = data.Batches(images, args.batch_size, transform=data.binarize.dynamic)
    optimizer = torch.optim.Adam(vae.parameters(), lr=args.lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / args.epochs, total_iters=args.epochs - 1)
    svi = SVI(vae.model, vae.guide, optimizer, LOSSES[args.elbo](), precision=args.precision)
    history = {"train": [], "valid": []}
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=args.epochs)
        for epoch in range(1, args.epochs + 1):
            start = time.perf_counter()
            loss = svi.epoch(batches) / len(images)
            speed = len(images) / (time.perf_counter() - start)
            decay.step()
            history["train"].append(loss)
            history["valid"].append(svi.evaluate_loss(valid) / len(valid))
            status = f"epoch {epoch}/{args.epochs}  loss {loss:.2f}  {speed:,.0f} images/s"
            progress.update(task, advance=1, description=status)
    return history


def evaluate(vae: VAE, test: torch.Tensor, num_samples: int) -> dict[str, float]:
    """Prints what there is to know of p(x) on test images, and returns it."""
    vae.eval()
    programs = vae.model, vae.guide
    elbo = evidence.check_elbo(*programs, test, progress=lambda blocks: track(blocks, "ELBO, by four estimators"))
    log_px = evidence.importance(
        *programs, test, num_samples=num_samples, progress=lambda blocks: track(blocks, "importance sampling")
    )
    table = Table("on the test images", "nats per image", "standard error")
    rows = {f"ELBO, {name}": estimate for name, estimate in elbo.estimates.items()}
    rows["log p(x), importance sampling"] = log_px.mean, log_px.mean_std_error
    for name, (value, std_error) in rows.items():
        table.add_row(name, f"{value:.3f}", f"{std_error:.3f}")
    Console().print(table)
    k_max = log_px.pareto_k.max().item()
    print(elbo.verdict, log_px.summary(), sep="\n")
    return {
        "test_elbo_trace": elbo.trace.value,
        "test_elbo_trace_se": elbo.trace.std_error,
        "test_elbo_log_weights": elbo.log_weights.value,
        "test_elbo_log_weights_se": elbo.log_weights.std_error,
        "test_elbo_meanfield": elbo.mean_field.value,
        "test_elbo_meanfield_se": elbo.mean_field.std_error,
        "test_elbo_analytic": elbo.analytic.value,
        "test_elbo_analytic_se": elbo.analytic.std_error,
        "test_elbos_agree": elbo.agree,
        "test_log_px": log_px.mean,
        "test_log_px_se": log_px.mean_std_error,
        "test_log_px_bias": log_px.mean_bias,
        "pareto_k_max": k_max if math.isfinite(k_max) else None,  # infinite where there are too few samples to tell
        "pareto_k_above_0.7": (log_px.pareto_k > 0.7).double().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=positive(int), default=15, help="passes over the 50000 training images")
    parser.add_argument("--batch-size", type=positive(int), default=128, help="images in a step")
    parser.add_argument("--lr", type=positive(float), default=4e-3, help="learning rate of Adam, falling linearly to 0")
    parser.add_argument("--latent-dim", type=positive(int), default=50, help="with 2, also draws the latent manifold")
    parser.add_argument("--hidden", type=positive(int), nargs="+", default=[400], help="widths of the hidden layers")
    parser.add_argument(
        "--elbo", choices=LOSSES, default="meanfield", help="sampled (trace) or analytic KL (meanfield)"
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of matrix products")
    parser.add_argument("--num-samples", type=positive(int), default=500, help="importance samples for each test image")
    parser.add_argument("--seed", type=int, default=0, help="on a CPU, repeats a run to the last bit")
    parser.add_argument("--device", help="such as cpu or cuda:1; if not given, the GPU if there is one")
    parser.add_argument("--out", default="results/mnist_svi", help="folder to write to")
    args = parser.parse_args()
    try:  # before any work that could be lost
        device, out = choose_device(args.device), writable_folder(args.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))

    torch.manual_seed(args.seed)
    mnist = data.load("mnist")
    images = mnist.train.to(device)
    valid, test = (data.binarize.fixed(x).to(device) for x in (mnist.valid, mnist.test))
    vae = build(args.latent_dim, args.hidden).to(device)
    vae.check(test)
    start = time.perf_counter()
    history = train(vae, images, valid, args)
    seconds_train = time.perf_counter() - start
    torch.save(vae.state_dict(), out / "weights.pt")
    results = {"seconds_train": seconds_train, **evaluate(vae, test, args.num_samples)}
    metrics = {**results, "settings": vars(args), "history": history}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    figures = {
        "loss": plots.curves(history),
        "reconstructions": plots.reconstructions(test[:50], vae.reconstruct(test[:50])),
        "samples": plots.image_grid(vae.likelihood(vae.prior().sample((100,))).mean),
    }
    if args.latent_dim == 2:
        figures["manifold"] = plots.manifold(vae.likelihood)
        figures["codes"] = plots.codes(vae.encode(test), mnist.test_labels)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    print(f"wrote metrics.json, weights.pt and {', '.join(f'{name}.png' for name in figures)} to {out}/")


def positive(kind: type) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return parse


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
