"""Tracking: what a run was and how it went, to MLflow.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python fine_tune.py …      # else a SQLite file beside the runs
    make mlflow                                                          # opens the page

Only the calls that Azure ML's tracking server has: runs, params, metrics, tags and artifacts. MLflow 3's logged models
answer 404 there (azure-sdk-for-python#44896), so nothing here logs a model.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from errors import BadInput

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

EXPERIMENT = "phikit"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")
#: Azure ML's tracking server takes no longer param values.
LONGEST_PARAM = 500


class Tracker:
    """One MLflow run, begun again after an interruption.

    Inside an Azure ML job the service has begun the run already and names it in `MLFLOW_RUN_ID`; that one is used.
    """

    def __init__(self, store: Path, name: str, run_id: str | None) -> None:
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(store / 'mlflow.db').resolve()}"
        mlflow.set_tracking_uri(uri)
        self.client = mlflow.MlflowClient(uri)
        # a database keeps no files: MLflow would put them into the working folder
        self.artifacts = (store / "mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
        with _unreachable_is_bad_input(uri):
            self.run_id = os.environ.get("MLFLOW_RUN_ID") or self._again(run_id) or self._begin(name)

    def _again(self, run_id: str | None) -> str | None:
        """The run of an earlier start, running again; None where the store does not know it."""
        from mlflow.exceptions import MlflowException

        try:
            if run_id:
                self.client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run_id

    def _begin(self, name: str) -> str:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self.client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else self.client.create_experiment(title, self.artifacts)
        return self.client.create_run(number, run_name=name).info.run_id

    def describe(self, params: dict[str, Any], tags: dict[str, Any]) -> None:
        """Log params and tags; a value that the server has already, from before an interruption, is left as it is."""
        from mlflow.entities import Param, RunTag

        known = self.client.get_run(self.run_id).data.params
        new = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items() if key not in known]
        self.client.log_batch(self.run_id, params=new, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log(self, metrics: dict[str, float], step: int = 0) -> None:
        """Log numbers at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()]
        )

    def keep(self, *files: Path) -> None:
        """Upload files as the run's artifacts."""
        for file in files:
            self.client.log_artifact(self.run_id, str(file))

    def end(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED. A run that Azure began is Azure's to close."""
        if not os.environ.get("MLFLOW_RUN_ID"):
            self.client.set_terminated(self.run_id, status)


@contextlib.contextmanager
def _unreachable_is_bad_input(uri: str) -> Iterator[None]:
    """Say within seconds that a server does not answer; in training, MLflow's minutes of patience are welcome."""
    from mlflow.exceptions import MlflowException

    patience = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(patience)
    os.environ[patience] = "2"
    try:
        yield
    except MlflowException as error:
        where, why = (re.sub(r"//[^@/\s]*@", "//", text) for text in (uri, " ".join(str(error).split())))
        raise BadInput(f"MLFLOW_TRACKING_URI {where}: {why[:200]}; check the address, or unset it") from error
    finally:
        if before is None:
            del os.environ[patience]
        else:
            os.environ[patience] = before


class LogMetrics(TrainerCallback):
    """Send what the trainer logs to a tracker, `train/` or `eval/` before its name."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.lost = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Send one entry of the log."""
        from mlflow.exceptions import MlflowException

        numbers = {
            (f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"): value
            for key, value in logs.items()
            if isinstance(value, int | float)
        }
        if numbers:
            try:
                self.tracker.log(numbers, state.global_step)
            except MlflowException as error:
                # hours of training are worth more than a point of a curve
                if not self.lost:
                    print(f"warning: the tracking server does not take metrics: {' '.join(str(error).split())[:200]}")
                self.lost = True


def environment() -> dict[str, str]:
    """What a run ran on and with: versions of packages, Python, processor or GPU, image and code version if known."""
    import torch

    facts = {f"version.{name}": re.sub(r"[+].*", "", metadata.version(name)) for name in PACKAGES}
    facts["version.python"] = platform.python_version()
    facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    facts["code_version"] = os.environ.get("PHIKIT_CODE_VERSION", "unknown")
    facts["image"] = os.environ.get("PHIKIT_IMAGE", "none")
    return facts
