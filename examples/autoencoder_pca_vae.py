"""Compare PCA, an autoencoder and a VAE on the same images.

You learn what the prior of a VAE is good for: all three models reconstruct images, but only some can generate them.

Run: python examples/autoencoder_pca_vae.py (less than a minute; needs scikit-learn).

You should see that random codes of the VAE decode to images that cover more of the data than those of the autoencoder,
which may place its codes anywhere, while a VAE is trained to fill its prior (Kingma & Welling 2013). PCA is a model of
the data too (Tipping & Bishop 1999), and a VAE with linear networks becomes PCA (Dai et al. 2018; Lucas et al. 2019).

log p(x) is a density of grey images. All models with a density have normal noise with one learned scale, so their
values can be compared with each other, but not with probabilities of binary images. A deterministic autoencoder has no
density.

With --latent-dim 10 the learned noise becomes so small that the KL divergence has little weight, and the prior of the
VAE has holes as well.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal
from torch.optim.lr_scheduler import LinearLR

from pyro_vae import VAE, data, evidence, fit, likelihoods, nn, plots, posteriors, priors, representation
from pyro_vae.representation import Score
from pyro_vae.scripts import count, exit_at_interrupt, positive
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder

IMAGE = (1, 28, 28)
LINEAR_LR = 1e-2
FEATURES = 50  # samples and data are compared in the first principal components of the data
SHOWN = 15  # images per row of a picture

Map = Callable[[Tensor], Tensor]


class PCA:
    """Principal components of images ``[n, *event]`` with mean 0, and the normal distribution of probabilistic PCA.

    Attributes:
        variances: The eigenvalues of the covariance, largest first, ``[pixels]``.
        directions: The eigenvectors, ``[pixels, pixels]``.
    """

    def __init__(self, images: Tensor) -> None:
        x = images.flatten(1).double()
        variances, directions = torch.linalg.eigh(x.T @ x / len(x))
        self.variances, self.directions = variances.flip(0), directions.flip(1)

    def encode(self, images: Tensor, size: int) -> Tensor:
        """The first coordinates of images, ``[n, size]``."""
        return images.flatten(1).double() @ self.directions[:, :size]

    def decode(self, codes: Tensor) -> Tensor:
        """The images that codes ``[n, size]`` decode to."""
        return (codes.double() @ self.directions[:, : codes.shape[1]].T).unflatten(-1, IMAGE)

    def marginal(self, size: int) -> LowRankMultivariateNormal:
        """p(x) of the linear model with the largest likelihood (Tipping & Bishop 1999, equations 7 and 8)."""
        noise = self.variances[size:].mean()
        weight = self.directions[:, :size] * (self.variances[:size] - noise).sqrt()
        return LowRankMultivariateNormal(torch.zeros_like(self.variances), weight, noise.expand_as(self.variances))


def linear_marginal(vae: VAE) -> LowRankMultivariateNormal:
    """p(x) of a VAE with a linear decoder, computed from its outputs at the origin and at the unit vectors."""
    unit = torch.eye(*vae.latent_shape, device=next(vae.parameters()).device)
    p_x = vae.likelihood(torch.cat([torch.zeros_like(unit[:1]), unit]))
    points = p_x.mean.flatten(1).double()
    return LowRankMultivariateNormal(points[0], (points[1:] - points[0]).T, p_x.variance[0].flatten().double())


def largest_angle(a: Tensor, b: Tensor) -> float:
    """The largest principal angle between the columns of two matrices ``[n, columns]``, in degrees."""
    a, b = torch.linalg.qr(a).Q, torch.linalg.qr(b).Q
    sine = torch.linalg.matrix_norm(a - b @ (b.T @ a), ord=2)
    return sine.clamp(max=1).asin().rad2deg().item()


def build_vae(latent_dim: int, hidden: list[int]) -> VAE:
    return VAE(
        priors.StandardNormal(latent_dim),
        likelihoods.Normal(nn.mlp(latent_dim, hidden[::-1], IMAGE), likelihoods.PositiveParameter(0.3)),
        posteriors.Normal(nn.mlp(IMAGE, hidden, 2 * latent_dim)),
    )


def build_linear_vae(latent_dim: int) -> VAE:
    vae = build_vae(latent_dim, [])
    torch.nn.init.normal_(vae.likelihood.network[0].weight, std=0.01)  # PyTorch's default is large for few inputs
    return vae


def train_vae(vae: VAE, lr: float, images: Tensor, args: argparse.Namespace) -> VAE:
    """Minimizes the negative ELBO."""
    steps = args.epochs * -(-len(images) // args.batch_size)
    fit(
        vae.to(images.device),
        images,
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=lr,
        scheduler=partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=steps),
        scheduler_every="step",
        seed=args.seed,
    )
    return vae.eval()


def train_autoencoder(images: Tensor, args: argparse.Namespace) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Minimizes the squared error, with the same networks, optimizer and number of steps as the VAE."""
    encoder = nn.mlp(IMAGE, args.hidden, args.latent_dim).to(images.device)
    decoder = nn.mlp(args.latent_dim, args.hidden[::-1], IMAGE).to(images.device)
    batches = data.Batches(images, args.batch_size)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=args.lr)
    decay = LinearLR(optimizer, 1.0, 0.0, args.epochs * len(batches))
    for _ in range(args.epochs):
        for x in batches:
            optimizer.zero_grad()
            (decoder(encoder(x)) - x).square().mean().backward()
            optimizer.step()
            decay.step()
    return encoder, decoder


def normal_of(codes: Tensor) -> MultivariateNormal:
    """The normal distribution with the mean and covariance of codes ``[n, latent]``."""
    return MultivariateNormal(codes.mean(0), codes.T.cov())


def mean_image(vae: VAE) -> Map:
    return lambda codes: vae.likelihood(codes).mean


def know_labels(encode: Map, mnist: data.Splits, train: Tensor, test: Tensor) -> dict[str, Score]:
    """Accuracy of classifiers on codes ``[n, latent]``, trained on the codes of the training images."""
    codes = encode(train), mnist.train_labels[: len(train)], encode(test), mnist.test_labels
    return {
        "linear_probe": representation.linear_probe(*codes),
        "nearest_neighbours": representation.nearest_neighbours(*codes),
    }


def draw(models: dict[str, tuple[Map, Map]], train: Tensor, n: int) -> dict[str, Tensor]:
    """Images decoded from n random codes, by model and distribution of the codes."""
    fitted = {name: normal_of(encode(train)) for name, (encode, _) in models.items()}
    standard = priors.StandardNormal(len(fitted["VAE"].loc)).to(train.device)()
    sources = {
        "PCA, fitted normal": ("PCA", fitted["PCA"]),
        "linear VAE, prior": ("linear VAE", standard),
        "autoencoder, N(0, I)": ("autoencoder", standard),
        "autoencoder, fitted normal": ("autoencoder", fitted["autoencoder"]),
        "VAE, prior": ("VAE", standard),
    }
    return {source: models[name][1](codes.sample((n,))) for source, (name, codes) in sources.items()}


def show(rows: dict[str, dict[str, Score]], log_px: dict[str, str], samples: dict[str, dict[str, float]]) -> None:
    formats = {
        "reconstruction_error": "{:.4f} +- {:.4f}",
        "linear_probe": "{:.1%} +- {:.1%}",
        "nearest_neighbours": "{:.1%} +- {:.1%}",
    }
    table = Table("model", "squared error per pixel", "log p(x)", "linear probe", "5 nearest neighbours")
    for name, row in rows.items():
        error, *known = (form.format(*row[key]) for key, form in formats.items())
        table.add_row(name, error, log_px.get(name, "none"), *known)
    Console(width=120).print(table)
    table = Table("decoded random codes", "precision", "recall", "density", "coverage", "Fréchet distance")
    for name, numbers in samples.items():
        table.add_row(name, *(f"{value:.3f}" if value < 10 else f"{value:.1f}" for value in numbers.values()))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=count(50), default=50_000, help="number of training images")
    parser.add_argument("--epochs", type=count(), default=6, help="passes over the training images")
    parser.add_argument("--batch-size", type=count(), default=200, help="images per step")
    parser.add_argument("--latent-dim", type=count(), default=4, help="number of latent dimensions")
    parser.add_argument("--hidden", type=count(), nargs="+", default=[256], help="widths of the hidden layers")
    parser.add_argument("--lr", type=positive, default=3e-3, help="learning rate of Adam; decays linearly to 0")
    parser.add_argument(
        "--labels", type=count(50), default=10_000, help="number of labelled training images for the probes"
    )
    parser.add_argument(
        "--draws",
        type=count(6),
        default=2000,
        help="number of decoded random codes, and of test images to compare with",
    )
    parser.add_argument("--test-images", type=count(), default=500, help="number of test images for log p(x)")
    parser.add_argument("--seed", type=int, default=0, help="random seed, the same for all models")
    parser.add_argument("--device", help="for example cpu or cuda:1; by default the GPU if there is one")
    parser.add_argument(
        "--out", default="results/autoencoder_pca_vae", help="output folder; files in it are overwritten"
    )
    args = parser.parse_args()
    try:  # fail before the long part
        import_module("sklearn")
        device, out = choose_device(args.device), writable_folder(args.out)
    except ImportError:
        parser.error("this example needs scikit-learn: pip install 'pyro-vae[representation]'")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    mnist = data.load("mnist")
    mean = mnist.train[: args.images].mean(0)  # a shift does not change densities
    train, test = ((images - mean).to(device) for images in (mnist.train[: args.images], mnist.test))
    size, x = args.latent_dim, test[: args.test_images]
    torch.manual_seed(args.seed)
    pca = PCA(train)
    linear = train_vae(build_linear_vae(size), LINEAR_LR, train, args)
    encoder, decoder = train_autoencoder(train, args)
    vae = train_vae(build_vae(size, args.hidden), args.lr, train, args)

    log_px = {
        name: evidence.estimate(trained.model, trained.guide, x)
        for name, trained in {"linear VAE": linear, "VAE": vae}.items()
    }
    with torch.no_grad():
        models: dict[str, tuple[Map, Map]] = {
            "PCA": (partial(pca.encode, size=size), pca.decode),
            "linear VAE": (linear.encode, mean_image(linear)),
            "autoencoder": (encoder, decoder),
            "VAE": (vae.encode, mean_image(vae)),
        }
        exact = pca.marginal(size).log_prob(x.flatten(1).double()).mean().item()
        rows = {
            name: {
                "reconstruction_error": representation.reconstruction_error(test, decode(encode(test))),
                **know_labels(encode, mnist, train[: args.labels], test),
            }
            for name, (encode, decode) in models.items()
        }
        draws = {"training images": train[: args.draws]} | draw(models, train, args.draws)
        held_out, features = test[: args.draws], partial(pca.encode, size=FEATURES)
        samples = {
            name: representation.fidelity_and_diversity(features(held_out), features(images))._asdict()
            | {"frechet_distance": representation.frechet_distance(features(held_out), features(images))}
            for name, images in draws.items()
        }
        linear_case = {
            "largest_angle": largest_angle(linear_marginal(linear).cov_factor, pca.directions[:, :size]),
            "train_log_px": linear_marginal(linear).log_prob(train.flatten(1).double()).mean().item(),
            "train_log_px_ppca": pca.marginal(size).log_prob(train.flatten(1).double()).mean().item(),
        }
        reconstructed = {"test images": test[:SHOWN]} | {
            name: decode(encode(test[:SHOWN])) for name, (encode, decode) in models.items()
        }

    show(rows, {"PCA": f"{exact:.2f}"} | {name: f"{result:.2f}" for name, result in log_px.items()}, samples)
    print(
        f"log p(x) is the mean over {len(x)} test images, in nats: exact for PCA, estimated for the VAEs with 95% "
        "errors, bias included. The other errors are standard errors."
    )
    print(
        "The linear VAE becomes PCA: log p(x) of the training images is {train_log_px:.2f}; the best linear model "
        "has {train_log_px_ppca:.2f}. The largest angle between its decoder and the principal components is "
        "{largest_angle:.1f} degrees.".format(**linear_case)
    )
    evidences = {"PCA": (exact, 0.0)} | {
        name: (result.settled_mean, result.settled_mean_error if result.settled.any() else None)
        for name, result in log_px.items()
    }
    models_and_evidence = {name: row | {"log_px": evidences.get(name)} for name, row in rows.items()}
    metrics = {"models": models_and_evidence, "samples": samples, "linear": linear_case, "settings": vars(args)}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    covered = {f"{name}: {samples[name]['coverage']:.2f}": images for name, images in draws.items()}
    pictures = {
        "samples": (covered, "Decoded random codes, and their coverage of the test images"),
        "reconstructions": (reconstructed, f"Reconstructions from {size} numbers"),
    }
    for name, (versions, title) in pictures.items():
        shown = {version: images[:SHOWN].cpu() + mean for version, images in versions.items()}
        plots.comparison(shown, SHOWN, title).savefig(out / f"{name}.png", dpi=120)
    print(f"wrote metrics.json, {' and '.join(f'{name}.png' for name in pictures)} to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
