"""A run in MLflow while it trains."""

from __future__ import annotations

import time
from typing import Any

from pyro_vae.system.warning import warn
from pyro_vae.training.logs.numbers import LOSS, scalars
from pyro_vae.training.logs.tracked_run import TrackedRun, read_note
from pyro_vae.training.run import Row, Run


class MLflow(TrackedRun):
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

    Example:
        >>> from pyro_vae.training import logs
        >>> log = logs.MLflow(images=x, params={"data": "random images"}, run_name="small")  # fit(..., callbacks=[log])
    """

    NAME, PACKAGE = "MLflow", "mlflow"

    def _open(self, run: Run) -> None:
        active = self._tracker().active_run()
        self._is_own = active is None
        self._run = active or self._start(read_note(run, self.PACKAGE).get("run_id"))

    def _start(self, run_id: str | None) -> Any:
        """Starts a new run of MLflow, or resumes one."""
        mlflow = self._tracker()
        if run_id is not None:
            try:
                return mlflow.start_run(run_id=run_id)
            except mlflow.MlflowException as error:
                warn(f"cannot resume the MLflow run {run_id!r}: {error}; a new one is started")
        return mlflow.start_run(**self._options)

    def _end(self, status: str) -> None:
        self._tracker().end_run(status)

    def _note(self) -> dict[str, Any]:
        return {"run_id": self._run.info.run_id}

    def _log_settings(self, run: Run, params: dict[str, Any]) -> None:
        mlflow, run_id = self._tracker(), self._run.info.run_id
        client = mlflow.MlflowClient()
        there = client.get_run(run_id).data.params
        mlflow.log_params({name: value for name, value in params.items() if name not in there}, run_id=run_id)
        history = client.get_metric_history(run_id, LOSS) if run.progress.step > 0 else []
        self._last_step = max((metric.step for metric in history), default=-1)

    def _log_row(self, row: Row, images: dict[str, Any]) -> None:
        mlflow, run_id, step = self._tracker(), self._run.info.run_id, row["step"]
        client, now = mlflow.MlflowClient(), int(time.time() * 1000)
        metrics = [mlflow.entities.Metric(name, value, now, step) for name, value in scalars(row).items()]
        client.log_batch(run_id, metrics)
        self._last_step = step  # also if a picture cannot be logged
        for name, image in images.items():
            client.log_image(run_id, image, key=name, step=step)
