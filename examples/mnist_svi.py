"""Train a variational autoencoder on MNIST with SVI, and measure how good it is.

You learn how to build a VAE from parts, train it with fit, and report log p(x) with an error instead of a bound.

Run: python examples/mnist_svi.py (a minute and a half on two cores), or on several GPUs or CPU processes torchrun
--nproc-per-node 2 examples/mnist_svi.py.

You should see four estimates of the ELBO that agree, at about -97.5 nats per image, and log p(x) at about -91.4 nats,
with an error of about 0.02. metrics.json, checkpoints and pictures are in the folder --out. Training uses dynamic
binarization; the test images have a fixed one.
"""

import argparse
import json
import math
import time
from functools import partial
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.optim.lr_scheduler import LinearLR

from pyro_vae import VAE, CheckpointError, data, evidence, fit, likelihoods, nn, plots, posteriors, priors
from pyro_vae.processes import Processes, join
from pyro_vae.scripts import count, exit_at_interrupt, positive
from pyro_vae.system.files import writable_folder
from pyro_vae.training import BEST, LAST, Run

LOSSES = {"trace": Trace_ELBO, "meanfield": TraceMeanField_ELBO}


def build(latent_dim: int, hidden: list[int]) -> VAE:
    """Builds the VAE. To swap a part, pass another module that returns a distribution."""
    image = (1, 28, 28)
    return VAE(
        prior=priors.StandardNormal(latent_dim),
        likelihood=likelihoods.Bernoulli(nn.mlp(latent_dim, hidden[::-1], image)),
        posterior=posteriors.Normal(nn.mlp(image, hidden, 2 * latent_dim)),
    )


def train(vae: VAE, images: torch.Tensor, valid: torch.Tensor, args: argparse.Namespace) -> Run:
    """Minimizes the negative ELBO."""
    return fit(
        vae,
        images,
        valid,
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        loss=LOSSES[args.elbo](),
        transform=data.binarize.dynamic,
        scheduler=partial(LinearLR, start_factor=1.0, end_factor=1 / args.epochs, total_iters=args.epochs - 1),
        precision=args.precision,
        seed=args.seed,
        out=args.out,
        resume=args.resume,
    )


def evaluate(vae: VAE, test: torch.Tensor, certify: int, processes: Processes) -> dict[str, Any] | None:
    """Prints the ELBO and log p(x) of test images. All processes share the work; the first one returns the numbers."""
    vae.eval()
    start = time.perf_counter()
    programs = vae.model, vae.guide
    log_px = evidence.estimate(
        *programs, test, certify=certify, progress=lambda blocks: track(blocks, "log p(x)"), processes=processes
    )
    if not processes.is_first:
        return None
    elbo = evidence.check_elbo(*programs, test, progress=lambda blocks: track(blocks, "ELBO, four estimators"))
    seconds = time.perf_counter() - start
    table = Table(
        f"on {len(test)} test images",
        "nats per image",
        "error of the estimate, 95%",
        "standard error of the finite test set",
    )
    for name, (value, std_error) in elbo.estimates.items():
        table.add_row(f"ELBO, {name}", f"{value:.3f}", f"{1.96 * std_error:.3f}", "")
    number, _, error = f"{log_px:.3f}".partition(" +- ")
    table.add_row("log p(x)", number, error or "a lower bound", f"{log_px.population_std_error:.3f}")
    Console(width=120).print(table)
    print(elbo.verdict, log_px.summary(), sep="\n")
    numbers = {
        "test_elbo_trace": elbo.trace.value,
        "test_elbo_trace_se": elbo.trace.std_error,
        "test_elbo_log_weights": elbo.log_weights.value,
        "test_elbo_log_weights_se": elbo.log_weights.std_error,
        "test_elbo_meanfield": elbo.mean_field.value,
        "test_elbo_meanfield_se": elbo.mean_field.std_error,
        "test_elbo_analytic": elbo.analytic.value,
        "test_elbo_analytic_se": elbo.analytic.std_error,
        "test_elbos_agree": elbo.passed,
        "test_log_px": log_px.mean,
        "test_log_px_se": log_px.mean_std_error,
        "test_log_px_error": log_px.mean_error,  # 95%, bias included
        "test_log_px_population_se": log_px.population_std_error,
        "test_log_px_settled": log_px.settled.double().mean().item(),  # the fraction of images whose error is known
        "test_log_px_settled_mean": log_px.settled_mean,
        "test_log_px_settled_error": log_px.settled_mean_error,
        "pareto_k_max": log_px.pareto_k.max().item(),
        "seconds_evaluate": seconds,
    }
    if log_px.certificate is not None:
        numbers |= {"certificate_gap": log_px.certificate.gap, "certificate_gap_se": log_px.certificate.gap_std_error}
    # JSON has no infinity: an unknown error is null, and so is a k-hat from too few samples.
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=count(), default=15, help="passes over the 50000 training images")
    parser.add_argument("--batch-size", type=count(), default=128, help="images per step")
    parser.add_argument("--lr", type=positive, default=4e-3, help="learning rate of Adam; decays linearly to 0")
    parser.add_argument(
        "--latent-dim", type=count(), default=50, help="number of latent dimensions; 2 also draws the latent manifold"
    )
    parser.add_argument("--hidden", type=count(), nargs="+", default=[400], help="widths of the hidden layers")
    parser.add_argument(
        "--elbo",
        choices=LOSSES,
        default="meanfield",
        help="training loss: with sampled (trace) or analytic (meanfield) KL divergence",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="precision of matrix products in training",
    )
    parser.add_argument(
        "--test-images", type=count(), default=2000, help="number of test images to evaluate, at most 10000"
    )
    parser.add_argument(
        "--certify", type=count(0), default=0, help="test log p(x) on this many generated images; 0: do not"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed; on a CPU, the same seed gives the same bits")
    parser.add_argument("--device", help="for example cpu or cuda:1; by default the GPU if there is one")
    parser.add_argument("--out", default="results/mnist_svi", help="output folder; files in it are overwritten")
    parser.add_argument("--resume", action="store_true", help="resume the run in the folder --out")
    args = parser.parse_args()
    try:  # fail before the long part
        processes, out = join(args.device), writable_folder(args.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))

    if processes.is_first and not args.resume:
        for name in (LAST, BEST):
            (out / name).unlink(missing_ok=True)
    torch.manual_seed(args.seed)
    device = processes.device
    mnist = data.load("mnist")
    images = mnist.train.to(device)
    valid, test = (data.binarize.fixed(x).to(device) for x in (mnist.valid, mnist.test))
    judged = test[: args.test_images]
    vae = build(args.latent_dim, args.hidden).to(device)
    vae.check(test)
    try:
        run = train(vae, images, valid, args)
    except (CheckpointError, OSError) as error:
        parser.error(str(error))
    results = evaluate(vae, judged, args.certify, processes)
    if results is None:  # only the first process writes
        return
    history = {name: [row[f"{name}_loss"] for row in run.history] for name in ("train", "valid")}
    metrics = {"seconds_train": run.seconds, **results, "settings": vars(args), "history": history}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    _, p_x = vae.draw_prior(50)
    figures = {
        "loss": plots.curves(history),
        "reconstructions": plots.reconstructions(test[:50], vae.reconstruct(test[:50])),
        "samples": plots.samples(p_x.sample(), p_x.mean, columns=5),
    }
    if args.latent_dim == 2:
        figures["manifold"] = plots.manifold(vae.likelihood)
        figures["codes"] = plots.codes(vae.encode(test), mnist.test_labels)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    print(f"wrote metrics.json, last.safetensors and {', '.join(f'{name}.png' for name in figures)} to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
