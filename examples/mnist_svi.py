"""Train a variational autoencoder on MNIST with SVI, and say how good it is.

Trains on dynamically binarized images; then, on a fixed binarization of the 10000 test images, prints the ELBO by four
estimators and log p(x), each image by the method that it needs. Writes metrics.json, checkpoints and pictures to the
folder --out.

On several GPUs or CPU processes: torchrun --nproc-per-node 2 examples/mnist_svi.py
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
    """To swap a part is to pass another module that returns a distribution."""
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
    """Prints what there is to know of p(x) on test images, and returns it, in the first process; all share the work."""
    vae.eval()
    start = time.perf_counter()
    programs = vae.model, vae.guide
    log_px = evidence.estimate(
        *programs, test, certify=certify, progress=lambda blocks: track(blocks, "log p(x)"), processes=processes
    )
    if not processes.is_first:
        return None
    elbo = evidence.check_elbo(*programs, test, progress=lambda blocks: track(blocks, "ELBO, by four estimators"))
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
        "test_log_px_settled": log_px.settled.double().mean().item(),  # the share of images whose error is known
        "test_log_px_settled_mean": log_px.settled_mean,
        "test_log_px_settled_error": log_px.settled_mean_error,
        "pareto_k_max": log_px.pareto_k.max().item(),
        "seconds_evaluate": seconds,
    }
    if log_px.certificate is not None:
        numbers |= {"certificate_gap": log_px.certificate.gap, "certificate_gap_se": log_px.certificate.gap_std_error}
    # JSON has no infinity: an error that is not known is null, and a k-hat of too few samples to tell.
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=count(), default=15, help="passes over the 50000 training images")
    parser.add_argument("--batch-size", type=count(), default=128, help="images in a step")
    parser.add_argument("--lr", type=positive, default=4e-3, help="learning rate of Adam, falling linearly to 0")
    parser.add_argument("--latent-dim", type=count(), default=50, help="with 2, also draws the latent manifold")
    parser.add_argument("--hidden", type=count(), nargs="+", default=[400], help="widths of the hidden layers")
    parser.add_argument(
        "--elbo", choices=LOSSES, default="meanfield", help="sampled (trace) or analytic KL (meanfield)"
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of matrix products")
    parser.add_argument(
        "--test-images", type=count(), default=2000, help="how many to evaluate, of 10000: the first ones"
    )
    parser.add_argument("--certify", type=count(0), default=0, help="images of the model to try log p(x) on; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="on a CPU, repeats a run to the last bit")
    parser.add_argument("--device", help="such as cpu or cuda:1; if not given, the GPU if there is one")
    parser.add_argument("--out", default="results/mnist_svi", help="folder to write to, over what is there")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder --out")
    args = parser.parse_args()
    try:  # before any work that could be lost
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
    if results is None:  # the first process writes
        return
    history = {name: [row[f"{name}_loss"] for row in run.history] for name in ("train", "valid")}
    metrics = {"seconds_train": run.seconds, **results, "settings": vars(args), "history": history}
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
    print(f"wrote metrics.json, last.safetensors and {', '.join(f'{name}.png' for name in figures)} to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
