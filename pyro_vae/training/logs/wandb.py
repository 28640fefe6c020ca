"""A run in Weights & Biases while it trains."""

from __future__ import annotations

from typing import Any

from pyro_vae.training.logs.numbers import scalars
from pyro_vae.training.logs.tracked_run import TrackedRun, read_note
from pyro_vae.training.run import Row, Run

EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}  # as Weights & Biases itself has them


class WandB(TrackedRun):
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

    Example:
        >>> from pyro_vae.training import logs
        >>> log = logs.WandB(images=x, project="vae", mode="offline")  # fit(..., callbacks=[log])
    """

    NAME, PACKAGE = "Weights & Biases", "wandb"

    def _open(self, run: Run) -> None:
        wandb, note = self._tracker(), read_note(run, self.PACKAGE)
        self._is_own = wandb.run is None
        resumed = {"id": note["id"], "resume": "allow"} if note else {}
        self._run = wandb.init(**{**resumed, **self._options}) if self._is_own else wandb.run
        self._last_step = note["step"] if note.get("id") == self._run.id else -1

    def _end(self, status: str) -> None:
        self._run.finish(EXIT_CODES[status])

    def _note(self) -> dict[str, Any]:
        return {"id": self._run.id, "step": self._last_step}

    def _write(self, run: Run) -> None:
        super()._write(run)
        self._write_note(run)  # with the last step

    def _log_settings(self, run: Run, params: dict[str, Any]) -> None:  # noqa: ARG002
        self._run.config.update(params, allow_val_change=True)
        self._run.define_metric("train/*", step_metric="step")
        self._run.define_metric("valid/*", step_metric="step")

    def _log_row(self, row: Row, images: dict[str, Any]) -> None:
        wandb, step = self._tracker(), row["step"]
        pictures = {name: wandb.Image(image) for name, image in images.items()}
        # A run of the user may have a step of its own already.
        self._run.log({"step": step, **scalars(row), **pictures}, step=step if self._is_own else None)
