"""pythae's own trainer, on its VAE with the networks of the others: what its users get, its DataLoader included."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

from frameworks import torch_networks
from frameworks.work import Work

__all__ = ["Training"]


class Encoder(BaseEncoder):
    """To the mean and the logarithm of the variance."""

    def __init__(self, network: nn.Module, work: Work) -> None:
        super().__init__()
        self.network, self.work = network, work

    def forward(self, x: Tensor) -> ModelOutput:
        loc, raw_scale = self.network(x).chunk(2, dim=-1)
        log_variance = 2 * (
            raw_scale if self.work.scale == "exp" else torch_networks.positive(self.work, raw_scale).log()
        )
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """To probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z).sigmoid())


class Binarized(BaseDataset):
    """Images that are binarized anew at every visit."""

    def __getitem__(self, index: int) -> DatasetOutput:
        return DatasetOutput(data=torch.bernoulli(self.data[index]), labels=self.labels[index])


class First:
    """The first batches of a loader."""

    def __init__(self, loader: torch.utils.data.DataLoader, count: int) -> None:
        self.loader, self.dataset, self.count = loader, loader.dataset, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        left = self.count
        while left:
            left -= (taken := min(left, len(self.loader)))
            yield from islice(self.loader, taken)


class Training:
    """Steps are those of ``BaseTrainer.train_step``, which makes one pass through its loader."""

    def __init__(self, work: Work, images: np.ndarray) -> None:
        logging.disable(logging.INFO)
        torch.manual_seed(work.seed)
        self.encoder, self.decoder = torch_networks.networks(work)
        data = torch_networks.as_images(work, images).cpu()
        shape = tuple(data.shape[1:])
        vae = VAE(
            VAEConfig(input_dim=shape, latent_dim=work.latent, reconstruction_loss="bce"),
            Encoder(self.encoder, work),
            Decoder(self.decoder),
        )
        decay = {"start_factor": 1.0, "end_factor": 1 / work.epochs, "total_iters": work.epochs - 1}
        settings = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=work.batch_size,
            num_epochs=work.epochs,
            learning_rate=work.lr,
            scheduler_cls="LinearLR" if work.decay else None,
            scheduler_params=decay if work.decay else None,
            seed=work.seed,
            no_cuda=work.device == "cpu",
        )
        dataset = (Binarized if work.dynamic else BaseDataset)(data, torch.zeros(len(data)))
        self.trainer = BaseTrainer(vae, dataset, training_config=settings)
        self.loader = self.trainer.train_loader
        self.prepared = False

    def run(self, steps: int) -> float:
        if not self.prepared:
            self.trainer.prepare_training()
            self.prepared = True
        self.trainer.train_loader = First(self.loader, steps)
        return self.trainer.train_step(epoch=1)

    def train(self) -> None:
        self.trainer.train()

    def weights(self) -> list[np.ndarray]:
        """Those of the epoch with the best loss, which is what the trainer saves."""
        best = self.trainer._best_model
        return torch_networks.weights(best.encoder.network, best.decoder.network)
