"""What a run needs to be resumed, besides weights, progress and history: how it is saved, and loaded again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.infer.optimizers import fuse
from pyro_vae.processes import Processes
from pyro_vae.saving.checkpoint import pack
from pyro_vae.system.randomness import get_generators, load_generators, reseed
from pyro_vae.training.optimization import check_scheduler, make_optimizer
from pyro_vae.training.optimizer_state import load_optimizer, load_scheduler
from pyro_vae.training.settings import Settings
from pyro_vae.training.sharding import gathered, shard, sharded_state
from pyro_vae.training.weight_average import WeightAverage


@dataclass
class TrainState:
    """Everything that changes during a run, besides weights, progress and history.

    Attributes:
        optimizer: The optimizer.
        scheduler: The scheduler of its learning rate, or None.
        average: The average of the weights, or None.
        seed: The order of the data follows from it and the epoch.
        compile: How steps are compiled, as far as that is decided.
        kind: The kind of batches whose step is recorded.
        patience_from: The epoch in which patience begins.
        best: The weights of the epoch with the lowest validation loss.
    """

    optimizer: torch.optim.Optimizer
    scheduler: Any
    average: WeightAverage | None
    seed: int
    compile: bool | str
    kind: list[Any] | None = None
    patience_from: int = 0
    best: dict[str, Tensor] | None = None

    @classmethod
    def new(cls, vae: nn.Module, settings: Settings, seed: int, is_sharded: bool) -> TrainState:
        """The state at the beginning of a run."""
        average = None if settings.average is None else WeightAverage(vae, settings.average)
        return cls(*_optimization(vae, settings, is_sharded), average, seed, settings.compile)

    def check_can_be_saved(self) -> None:
        """Finds out what cannot be saved before the first step, rather than after it.

        Raises:
            TypeError: If something cannot.
        """
        pack("optimizer", self.optimizer.state_dict(), {})
        if self.scheduler is not None:
            pack("scheduler", self.scheduler.state_dict(), {})

    def shard(self, vae: nn.Module, settings: Settings, processes: Processes) -> None:
        """Spreads the parameters over the processes, and the state of the optimizer with them."""
        whole, scheduler = self.optimizer.state_dict(), self.scheduler
        shard(vae, processes)
        self.optimizer, self.scheduler = _optimization(vae, settings, is_sharded=True)
        self.optimizer.load_state_dict(sharded_state(self.optimizer, whole))
        if scheduler is not None:
            self.scheduler.load_state_dict(scheduler.state_dict())
        if self.average is not None:
            self.average.shard(vae)

    def content(self, processes: Processes) -> dict[str, Any]:
        """What is saved, except for the best weights. All processes must ask."""
        mine = {"generators": get_generators(processes.device), "kind": self.kind}
        return {
            "optimizer": gathered(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "average": None if self.average is None else self.average.content(),
            "processes": processes.gather(mine),
            "seed": self.seed,
            "compile": self.compile,
            "waits_from": self.patience_from,
        }

    def load(self, content: dict[str, Any], step: int, processes: Processes) -> None:
        """Loads what :meth:`content` has returned, and sets the generators.

        Args:
            content: What was saved.
            step: The number of steps until then.
            processes: Those of now.

        Raises:
            Exception: If the content is invalid.
        """
        load_optimizer(self.optimizer, content["optimizer"])
        if self.scheduler is not None:
            load_scheduler(self.scheduler, content["scheduler"])
        if self.average is not None:
            self.average.load(content["average"])
        self.seed, self.compile = content["seed"], content["compile"]
        self.patience_from = int(content.get("waits_from", 0))
        if type(self.seed) is not int or self.compile not in (False, True, "graph", "auto"):
            raise ValueError(f"it has seed {self.seed!r} and compile {self.compile!r}")
        if len(content["processes"]) == processes.size:
            mine = content["processes"][processes.rank]
            self.kind = mine["kind"]
            load_generators(mine["generators"], processes.device)
        else:  # the same bits are impossible then; the noise is as good
            reseed(self.seed + step + processes.rank, processes.device)


def _optimization(vae: nn.Module, settings: Settings, is_sharded: bool) -> tuple[torch.optim.Optimizer, Any]:
    """A new optimizer and its scheduler."""
    parameters = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(settings.optimizer, vae, parameters, settings.lr)
    if not is_sharded:
        fuse(optimizer)
    scheduler = None if settings.scheduler is None else settings.scheduler(optimizer)
    if scheduler is not None:
        check_scheduler(scheduler, settings.scheduler_every)
    return optimizer, scheduler
