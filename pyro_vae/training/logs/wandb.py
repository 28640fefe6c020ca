"""A run in Weights & Biases while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_images
from pyro_vae.processes import Processes
from pyro_vae.training.logs.drawing import as_image, due_figures
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.logs.numbers import scalars, settings
from pyro_vae.training.logs.tracked_run import ended, read_note, write_note
from pyro_vae.training.run import Run

__all__ = ["WandB"]

NAME = "Weights & Biases"
EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}  # as Weights & Biases itself has them


class WandB:
    """Logs the settings of a run to Weights & Biases, each epoch's row of the history, and pictures every few epochs.

    A callback for :func:`~pyro_vae.fit`. Metrics have the same names as in
    :class:`~pyro_vae.training.logs.TensorBoard`, and ``step`` is the number of steps. By default, Weights & Biases
    also logs the code that calls ``fit``, and the hardware and its use; see its settings.

    Each call of ``fit`` is a run, whose exit code is 0, 1 (an exception) or 255 (Ctrl-C or SIGTERM). If ``fit``
    resumes a run, this one is resumed too: its id and last step are in ``wandb.json`` in the folder of the run. Steps
    that were logged before are not logged again. If ``wandb.run`` is active already, it is used, and not finished. If
    something cannot be written later on, there is a warning, and training continues; the next epoch writes what is
    missing. After SIGKILL, the rows that Weights & Biases had not yet written to disk or sent are not in its log; they
    are in ``history.csv``.

    Args:
        images: Test data for pictures, as for :class:`~pyro_vae.training.logs.TensorBoard`.
        every: The number of epochs between pictures.
        params: Further settings to log.
        options: Arguments of ``wandb.init``, such as ``project`` or ``mode="offline"``.

    Raises:
        ImportError: If the package ``wandb`` is missing.
        TypeError: If the images are not a tensor.
        ValueError: If they have another shape, or ``every`` is not at least 1.
    """

    def __init__(
        self,
        images: Tensor | None = None,
        every: int = 5,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        _wandb()
        self._images = None if images is None else check_images(images)
        self._every = check_count("every", every)
        self._params = dict(params or {})
        self._options = options
        self._run: Any = None
        self._is_own = False
        self._last_step = -1  # of the rows that are written

    @contextmanager
    def during(self, run: Run) -> Iterator[None]:
        """A block in which a run of Weights & Biases is open.

        Raises:
            wandb.Error: If Weights & Biases cannot open it.
        """
        if not Processes(torch.device("cpu")).is_first:
            yield
            return
        wandb = _wandb()
        note = read_note(run, "wandb")
        self._is_own = wandb.run is None
        resumed = {"id": note["id"], "resume": "allow"} if note else {}
        self._run = wandb.init(**{**resumed, **self._options}) if self._is_own else wandb.run
        self._last_step = note["step"] if note.get("id") == self._run.id else -1
        try:
            with ended(NAME, self._finish) if self._is_own else nullcontext():
                write_note(run, "wandb", {"id": self._run.id, "step": self._last_step})
                with failures_warned(NAME):
                    self._run.config.update({**settings(run), **self._params}, allow_val_change=True)
                    self._run.define_metric("train/*", step_metric="step")
                    self._run.define_metric("valid/*", step_metric="step")
                    self._write(run)
                yield
        finally:
            self._run = None

    def __call__(self, run: Run) -> None:
        """Logs the rows of the history that are new, and pictures if they are due."""
        if self._run is not None:
            with failures_warned(NAME):
                self._write(run)

    def _write(self, run: Run) -> None:
        rows = [row for row in run.history if row["step"] > self._last_step]
        for row in rows:
            logged: dict[str, Any] = {"step": row["step"], **scalars(row)}
            if row is rows[-1]:
                figures = due_figures(run, self._images, self._every, NAME)
                logged |= {name: _wandb().Image(as_image(figure)) for name, figure in figures.items()}
            # A run of the user may have a step of its own already.
            self._run.log(logged, step=row["step"] if self._is_own else None)
            self._last_step = row["step"]
        if rows:
            write_note(run, "wandb", {"id": self._run.id, "step": self._last_step})

    def _finish(self, status: str) -> None:
        self._run.finish(EXIT_CODES[status])


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("Logs in Weights & Biases need a package: pip install 'pyro-vae[wandb]'") from error
    return wandb
