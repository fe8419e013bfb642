"""A model in the workspace's register, with where it comes from: run, data, recipe, code, image.

name, version = register(workspace, "my-run")        # None: the newest run

A run of a job's is registered from the job's own output; a run of this machine from its folder. The same model, byte
for byte, is registered once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from devtools import data, models
from devtools.azure.progress import say
from devtools.azure.refusals import is_missing, told
from devtools.azure.submission import COMPLETED, Record, find, state_of
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace, uploading
from devtools.errors import BadInput
from devtools.runs import Run
from devtools.settings import ROOT

NAME = "phikit"
DIGEST = "model-digest"
SHORT = 16


def register(workspace: Workspace, run: str | None, root: Path = ROOT) -> tuple[str, str]:
    """Register a run's model, or find it registered; its name and version.

    Raises:
        BadInput: there is no such run, or it has no model.
        KitError: the service refuses it.
    """
    folder = models.choose(run, None, root=root)
    name = workspace.settings.azure_model or NAME
    digest = digest_of(folder)
    with told(f"model {name}"):
        if version := _version(workspace, name, digest):
            say(f"model: {name}:{version} is this one")
            return name, version
        model = _model(workspace, name, folder, digest)
        with uploading():
            made = workspace.client.models.create_or_update(model)
    say(f"model: registered as {made.name}:{made.version}")
    return made.name, str(made.version)


def digest_of(folder: Path) -> str:
    """The digest of a model directory: of its files' names and contents, an export's among them."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{data.digest(file)}\0".encode())
    return digest.hexdigest()


def _version(workspace: Workspace, name: str, digest: str) -> str | None:
    """The version with this digest; None where there is none."""
    from azure.core.exceptions import AzureError

    try:
        for found in workspace.client.models.list(name):
            if (found.tags or {}).get(DIGEST) == digest:
                return str(found.version)
    except AzureError as error:
        if not is_missing(error):
            raise
    return None


def _model(workspace: Workspace, name: str, folder: Path, digest: str) -> Any:
    from azure.ai.ml.entities import Model

    run = Run(folder.parent)
    record = Record.read(run)
    job = find(workspace, record.job) if record and record.job else None
    # an export makes the folder here more than what the job left there
    as_trained = job is not None and state_of(job) == COMPLETED and record is not None and record.model == digest
    inputs = run.job.get("inputs", {})
    facts = {
        "run": run.name,
        "job": record.job if job and record else None,
        "recipe": inputs.get("recipe"),
        "train-sha256": inputs.get("train_sha256"),
        "test-sha256": inputs.get("eval_sha256"),
        "code": (job.tags or {}).get("code") if job else _trained_with(run).get("code"),
        "image": (job.tags or {}).get("image") if job else _trained_with(run).get("image"),
        DIGEST: digest,
    }
    return Model(
        name=name,
        type="mlflow_model",
        path=f"azureml://jobs/{record.job}/outputs/model" if as_trained and record else str(folder),
        tags=ours() | {key: str(value) for key, value in facts.items() if value},
        description=f"fine-tuned with phikit: {run.name}",
    )


def _trained_with(run: Run) -> dict[str, str]:
    """What a run of this machine says that it was trained with."""
    import json

    try:
        said = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {"code": str(said.get("code") or ""), "image": str(said.get("image") or "")}


def parse(model: str) -> tuple[str, str]:
    """`name:version`, as --model says it; raises BadInput for anything else."""
    name, colon, version = model.removeprefix("azureml:").partition(":")
    if not (name and colon and version):
        raise BadInput(f"--model {model[:80]}: must be name:version, such as {NAME}:3; or name a --run")
    return name, version
