"""A run in MLflow while it trains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_images
from pyro_vae.processes import Processes
from pyro_vae.system.warning import warn
from pyro_vae.training.logs.drawing import as_image, due_figures
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.logs.numbers import LOSS, scalars, settings
from pyro_vae.training.logs.tracked_run import ended, read_note, write_note
from pyro_vae.training.run import Run

__all__ = ["MLflow"]

NAME = "MLflow"


class MLflow:
    """Logs the settings of a run to MLflow, each epoch's row of the history, and pictures every few epochs.

    A callback for :func:`~pyro_vae.fit`. Metrics have the same names and steps as in
    :class:`~pyro_vae.training.logs.TensorBoard`. Where they are stored is MLflow's setting
    (``mlflow.set_tracking_uri``, ``mlflow.set_experiment``, or its environment variables).

    Each call of ``fit`` is a run of MLflow, with the status FINISHED, FAILED (an exception) or KILLED (Ctrl-C or
    SIGTERM). If ``fit`` resumes a run, its run of MLflow is resumed too; the id is in ``mlflow.json`` in the folder
    of the run. Steps that were logged before are not logged again, and params keep their first values. If a run of
    MLflow is active already, it is used, and not ended. If something cannot be written later on, there is a warning,
    and training continues; the next epoch writes what is missing.

    Args:
        images: Test data for pictures, as for :class:`~pyro_vae.training.logs.TensorBoard`.
        every: The number of epochs between pictures.
        params: Further settings to log.
        options: Arguments of ``mlflow.start_run`` for new runs, such as ``run_name``.

    Raises:
        ImportError: If the package ``mlflow`` is missing.
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
        _mlflow()
        self._images = None if images is None else check_images(images)
        self._every = check_count("every", every)
        self._params = dict(params or {})
        self._options = options
        self._run_id: str | None = None
        self._last_step = -1  # of the rows that are written

    @contextmanager
    def during(self, run: Run) -> Iterator[None]:
        """A block in which a run of MLflow is open.

        Raises:
            MlflowException: If MLflow cannot open it.
        """
        if not Processes(torch.device("cpu")).is_first:
            yield
            return
        mlflow = _mlflow()
        active = mlflow.active_run()
        info = (active or self._start(read_note(run, "mlflow").get("run_id"))).info
        try:
            self._run_id = info.run_id
            with nullcontext() if active else ended(NAME, mlflow.end_run):
                write_note(run, "mlflow", {"run_id": info.run_id})
                with failures_warned(NAME):
                    self._log_params(run)
                    self._last_step = self._find_last_step() if run.progress.step > 0 else -1
                    self._write(run)
                yield
        finally:
            self._run_id = None

    def __call__(self, run: Run) -> None:
        """Logs the rows of the history that are new, and pictures if they are due."""
        if self._run_id is not None:
            with failures_warned(NAME):
                self._write(run)

    def _start(self, run_id: str | None) -> Any:
        """Starts a new run of MLflow, or resumes one."""
        mlflow = _mlflow()
        if run_id is not None:
            try:
                return mlflow.start_run(run_id=run_id)
            except mlflow.MlflowException as error:
                warn(f"cannot resume the MLflow run {run_id!r}: {error}; a new one is started")
        return mlflow.start_run(**self._options)

    def _log_params(self, run: Run) -> None:
        mlflow = _mlflow()
        there = mlflow.MlflowClient().get_run(self._run_id).data.params
        params = {**settings(run), **self._params}
        mlflow.log_params({name: value for name, value in params.items() if name not in there}, run_id=self._run_id)

    def _find_last_step(self) -> int:
        history = _mlflow().MlflowClient().get_metric_history(self._run_id, LOSS)
        return max((metric.step for metric in history), default=-1)

    def _write(self, run: Run) -> None:
        mlflow = _mlflow()
        rows = [row for row in run.history if row["step"] > self._last_step]
        for row in rows:
            now = int(time.time() * 1000)
            metrics = [mlflow.entities.Metric(name, value, now, row["step"]) for name, value in scalars(row).items()]
            mlflow.MlflowClient().log_batch(self._run_id, metrics)
            self._last_step = row["step"]
        for name, figure in due_figures(run, self._images, self._every, NAME).items() if rows else ():
            mlflow.MlflowClient().log_image(self._run_id, as_image(figure), key=name, step=self._last_step)


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("MLflow logs need a package: pip install 'pyro-vae[mlflow]'") from error
    return mlflow
