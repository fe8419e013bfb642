"""training/job.yaml, submitted as it is: with inputs, the image by digest, the cluster, outputs at a fixed place.

name = submit(workspace, Submission(...))

What was submitted for a run stands in runs/NAME/azure.json, written before the job goes out: whoever comes later finds
the job instead of submitting it again. A job that is submitted again for the same run has the same outputs, and so its
checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from devtools.azure.progress import say
from devtools.azure.refusals import is_missing, told
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace, uploading
from devtools.errors import KitError
from devtools.runs import Run
from devtools.training_run import Plan, code_version, literals

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

RECORD = "azure.json"
#: Where runs lie in the workspace's default datastore, a folder each.
PLACE = "phikit"
#: States of a job that has ended (azure.ai.ml.constants.JobStatus... by their words on the wire).
COMPLETED, FAILED, CANCELED = "Completed", "Failed", "Canceled"
ENDED = (COMPLETED, FAILED, CANCELED)


@dataclass(frozen=True)
class Record:
    """What was submitted for a run."""

    workspace: str
    """The workspace's id."""
    key: str
    """The run's folder below PLACE: its name, and letters that nobody else's run of that name has."""
    jobs: list[str] = field(default_factory=list)
    """Names of its jobs, the newest last; a name stands here before the job is submitted."""
    model: str = ""
    """The digest of the model that came home; registration.digest_of."""

    @classmethod
    def read(cls, run: Run) -> Record | None:
        """The record of a run; None where nothing was submitted, or nothing readable says so."""
        try:
            return cls(**json.loads((run.folder / RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def new(cls, workspace: Workspace, run: Run) -> Record:
        """A record without a job."""
        name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in run.name)
        return cls(workspace.id, f"{name}-{secrets.token_hex(3)}")

    def write(self, run: Run) -> None:
        """Keep it with the run: beside, then renamed."""
        beside = run.folder / f".{RECORD}.new"
        beside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        beside.replace(run.folder / RECORD)

    @property
    def job(self) -> str | None:
        """The newest job's name."""
        return self.jobs[-1] if self.jobs else None

    def with_next(self) -> Record:
        """The same with a name for one more job."""
        return replace(self, jobs=[*self.jobs, f"{self.key}-{len(self.jobs) + 1}"])

    def without_last(self) -> Record:
        """The same without the newest job's name."""
        return replace(self, jobs=self.jobs[:-1])

    def path(self, output: str) -> str:
        """An output's folder in the default datastore's container."""
        return f"{PLACE}/{self.key}/{output}"


@dataclass(frozen=True)
class Submission:
    """What a job is submitted with."""

    planned: Plan
    run: Run
    environment: str
    """`azureml:name:version`"""
    image_digest: str
    cluster: str
    data: tuple[str, str]
    """Names of the train and test assets."""
    hours: int


def find(workspace: Workspace, name: str) -> Job | None:
    """A job as it stands; None where the workspace has none of that name."""
    from azure.core.exceptions import AzureError

    with told(f"job {name}"):
        try:
            return workspace.client.jobs.get(name)
        except AzureError as error:
            if not is_missing(error):
                raise
    return None


def state_of(job: Job) -> str:
    """A job's state in the service's word."""
    # (an enumeration of strings, whose text is its own name)
    return str(getattr(job.status, "value", job.status))


def submit(workspace: Workspace, wanted: Submission, record: Record) -> Record:
    """Submit a job for a run and return the record with its name.

    Raises:
        KitError: the service refuses it, and the record is what it was; or nobody knows, and it names the job.
    """
    record = record.with_next()
    record.write(wanted.run)
    name = str(record.job)
    try:
        with told(f"job {name}"):
            job = _job(wanted, name, record)
            with uploading():
                workspace.client.jobs.create_or_update(job)
    except KeyboardInterrupt:
        say(f"job {name}: may be submitted; the same command follows it, phikit azure cancel {name} ends it")
        raise
    except KitError:
        with contextlib.suppress(KitError):
            if find(workspace, name) is None:
                record.without_last().write(wanted.run)
        raise
    return record


def _job(wanted: Submission, name: str, record: Record) -> Job:
    from azure.ai.ml import load_job
    from azure.ai.ml.entities import CommandJobLimits

    planned = wanted.planned
    train, test = wanted.data
    inputs = {
        **literals(planned),
        "train_file": {"type": "uri_file", "path": train, "mode": "ro_mount"},
        "eval_file": {"type": "uri_file", "path": test, "mode": "ro_mount"},
    }
    store = "azureml://datastores/workspaceblobstore/paths"
    outputs = {
        output: {"type": asset.type, "mode": "rw_mount", "path": f"{store}/{record.path(output)}"}
        for output, asset in planned.job.outputs.items()
    }
    job = load_job(source=planned.job.file, params_override=[{"inputs": inputs}, {"outputs": outputs}])
    job.name, job.display_name = name, wanted.run.name
    job.compute, job.environment = wanted.cluster, wanted.environment
    version = code_version(planned.job.code)
    job.environment_variables = {
        **(job.environment_variables or {}),
        **({"PHIKIT_CODE_VERSION": version} if version else {}),
        "PHIKIT_IMAGE": wanted.image_digest,
    }
    job.limits = CommandJobLimits(timeout=wanted.hours * 3600)
    job.tags = ours(run=wanted.run.name, recipe=planned.recipe, code=version, image=wanted.image_digest)
    return job
