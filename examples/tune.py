"""Tune a VAE with Optuna: bad trials are stopped early, and the best ones are ranked by log p(x).

You learn that a callback of three lines prunes trials by the ELBO of validation data. The final ranking is by
evidence.estimate, as the ELBO also depends on how well q(z | x) fits. evidence.compare tells which differences are
larger than their errors.

Run: pip install 'pyro-vae[optuna]' && python examples/tune.py (a minute). With --storage sqlite:///tune.db, the same
command continues the study after Ctrl-C, or with more --trials.

You should see one line for each trial, most of them pruned, then log p(x) of the best ones with its error, and what can
be said about their differences.
"""

import argparse
import logging
from functools import partial

import optuna
import torch

from pyro_vae import VAE, data, evidence, fit, likelihoods, nn, posteriors, priors
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.training import Run

IMAGE = (1, 28, 28)
CONTEXT = 20


def suggest(trial: optuna.Trial) -> None:
    """Chooses the parameters of a trial."""
    trial.suggest_int("latent_dim", 2, 32, log=True)
    trial.suggest_categorical("width", [50, 100, 200])
    trial.suggest_float("lr", 3e-4, 1e-2, log=True)
    trial.suggest_categorical("posterior", ["normal", "full-normal", "iaf"])


def build(latent_dim: int, width: int, posterior: str) -> VAE:
    encoder = partial(nn.mlp, IMAGE, [width])
    if posterior == "normal":
        q = posteriors.Normal(encoder(2 * latent_dim))
    elif posterior == "full-normal":
        q = posteriors.FullNormal(encoder(latent_dim * (latent_dim + 3) // 2))
    else:
        q = posteriors.InverseAutoregressive(encoder(2 * latent_dim + CONTEXT), latent_dim, CONTEXT)
    return VAE(priors.StandardNormal(latent_dim), likelihoods.Bernoulli(nn.mlp(latent_dim, [width], IMAGE)), q)


def train(trial: optuna.Trial | optuna.trial.FrozenTrial, images: data.Splits, args: argparse.Namespace) -> Run:
    """Trains the VAE of a trial, with the same result each time. A trial that is running may be stopped early."""

    def prune(run: Run) -> bool:
        trial.report(run.history[-1]["valid_loss"], run.progress.epoch)
        return trial.should_prune()

    torch.manual_seed(args.seed)
    parameters = dict(trial.params)
    lr = parameters.pop("lr")
    return fit(
        build(**parameters),
        images.train,
        images.valid,
        epochs=args.epochs,
        lr=lr,
        transform=data.binarize.dynamic,
        compile=False,
        callbacks=[prune],
        progress=False,
    )


def objective(trial: optuna.Trial, images: data.Splits, args: argparse.Namespace) -> float:
    """The negative ELBO of the validation images, in nats per image."""
    suggest(trial)
    run = train(trial, images, args)
    is_pruned = run.progress.epoch < args.epochs
    loss = run.history[-1]["valid_loss"]
    epochs = f"{run.progress.epoch} epochs" + (", pruned" if is_pruned else "")
    print(f"trial {trial.number}: ELBO {-loss:.2f} after {epochs}, {trial.params}", flush=True)
    if is_pruned:
        raise optuna.TrialPruned
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=count(), default=12, help="number of trials, in total (default: 12)")
    parser.add_argument("--epochs", type=count(), default=4, help="epochs of a trial (default: 4)")
    parser.add_argument("--images", type=count(), default=4000, help="number of training images (default: 4000)")
    parser.add_argument("--test-images", type=count(2), default=100, help="test images for the ranking (default: 100)")
    parser.add_argument("--best", type=count(), default=3, help="number of trials in the ranking (default: 3)")
    parser.add_argument("--storage", help="database of Optuna, such as sqlite:///tune.db (default: in memory)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    args = parser.parse_args()
    optuna.logging.set_verbosity(logging.WARNING)
    mnist = data.load("mnist")
    valid, test = (data.binarize.fixed(part) for part in (mnist.valid[:500], mnist.test[: args.test_images]))
    images = data.Splits(mnist.train[: args.images], valid, test)

    study = optuna.create_study(
        storage=args.storage,
        study_name=f"mnist, {args.images} images, {args.epochs} epochs, seed {args.seed}",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    done = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]))
    # Another seed than that of the trials before.
    study.sampler = optuna.samplers.TPESampler(seed=args.seed + len(study.trials))
    study.optimize(partial(objective, images=images, args=args), n_trials=max(0, args.trials - done))

    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    results = {}
    for trial in sorted(complete, key=lambda trial: trial.value)[: args.best]:
        vae = train(trial, images, args).vae.eval()
        torch.manual_seed(args.seed)
        results[trial.number] = evidence.estimate(vae.model, vae.guide, images.test, progress=False)
    ranking = sorted(results, key=lambda number: results[number].settled_mean, reverse=True)
    print(f"log p(x) in nats per image, mean over {len(images.test)} test images, with its 95% error, bias included:")
    for number in ranking:
        print(f"trial {number}: {results[number]:.2f}")
    for number in ranking[1:]:
        print(f"trial {ranking[0]} (first) and trial {number} (second):")
        print(evidence.compare(results[ranking[0]], results[number]))


if __name__ == "__main__":
    exit_at_interrupt(main)
