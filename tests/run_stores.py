"""What MLflow and Weights & Biases have stored, read back in one form."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pyro_vae.training.logs import MLflow, WandB

STATUS = {0: "FINISHED", 1: "FAILED", 255: "KILLED", None: "RUNNING"}


@dataclass
class Logged:
    """A run in a store."""

    id: str
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # (step, value) by name
    images: dict[str, list[tuple[int, Path]]] = field(default_factory=dict)


class InMLflow:
    """Runs in an experiment of their own."""

    def __init__(self, uri: str, folder: Path) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.set_tracking_uri(uri)
        mlflow.end_run()
        self.experiment = mlflow.create_experiment(str(folder), (folder / "artifacts").as_uri())
        mlflow.set_experiment(experiment_id=self.experiment)

    def log(self, *args: Any, **options: Any) -> MLflow:
        return MLflow(*args, **options)

    def start(self) -> Any:
        """Starts a run as a user does."""
        return self.mlflow.start_run()

    def is_active(self) -> bool:
        return self.mlflow.active_run() is not None

    def end(self) -> None:
        self.mlflow.end_run()

    def break_writes(self, monkeypatch) -> None:
        """Makes it impossible to write numbers."""
        monkeypatch.setattr(self.mlflow.MlflowClient, "log_batch", _fails)

    def runs(self) -> list[Logged]:
        """In the order in which they were started."""
        client = self.mlflow.MlflowClient()
        found = client.search_runs([self.experiment], order_by=["attributes.start_time ASC"])
        return [self._read(client, run) for run in found]

    def _read(self, client: Any, run: Any) -> Logged:
        logged = Logged(run.info.run_id, run.info.status, run.data.params)
        for name in run.data.metrics:
            history = client.get_metric_history(logged.id, name)
            logged.points[name] = sorted((point.step, point.value) for point in history)
        for path in sorted(Path(run.info.artifact_uri.removeprefix("file://")).rglob("*.png")):
            name, _, step = re.split("[+%]", path.name)[:3]  # MLflow has used both signs
            logged.images.setdefault(name, []).append((int(step), path))
        for images in logged.images.values():
            images.sort()
        return logged


class InWandB:
    """Runs of the offline mode."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self.wandb = wandb
        self.folder = folder

    def log(self, *args: Any, **options: Any) -> WandB:
        return WandB(*args, mode="offline", dir=str(self.folder), **options)

    def start(self) -> Any:
        """Starts a run as a user does, who has logged something before."""
        run = self.wandb.init(mode="offline", dir=str(self.folder))
        for _ in range(100):
            run.log({"other": 1.0})
        return run

    def is_active(self) -> bool:
        return self.wandb.run is not None

    def end(self) -> None:
        self.wandb.finish()

    def break_writes(self, monkeypatch) -> None:
        """Makes it impossible to write numbers."""
        monkeypatch.setattr(type(self.wandb.run), "log", _fails)

    def runs(self) -> list[Logged]:
        """In the order in which they were started; sessions of the same run are put together."""
        found: dict[str, Logged] = {}
        for path in sorted(self.folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime):
            logged = found.setdefault(path.stem.removeprefix("run-"), Logged(path.stem))
            logged.status = "RUNNING"
            for record in _finished(path):
                self._add(logged, record, path.parent)
        return list(found.values())

    def _add(self, logged: Logged, record: Any, folder: Path) -> None:
        for config in (record.run.config, record.config):
            for item in config.update:
                logged.params[item.key or item.nested_key[0]] = str(json.loads(item.value_json))
        if record.HasField("exit"):
            logged.status = STATUS[record.exit.exit_code]
        row = {tuple(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        step = row.pop(("step",), None)
        for (name, *inner), value in row.items() if step is not None else ():
            if inner == ["path"]:
                logged.images.setdefault(name, []).append((step, folder / "files" / value))
            elif not inner and not name.startswith("_"):
                logged.points.setdefault(name, []).append((step, float(value)))


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _fails(*_: Any, **__: Any) -> None:
    raise OSError("No space left on device")


def _finished(path: Path) -> list[Any]:
    """The records of a run that has ended; they are written in the background."""
    for _ in range(600):
        records = list(_records(path))
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    return records


BLOCK = 32768


def _records(path: Path) -> Iterator[Any]:
    """The records of a file of Weights & Biases, which has the format of LevelDB's logs after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # no room for a header
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
