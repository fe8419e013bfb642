"""A training from the command line to its report: prepare the data if needed, resolve the job file, run it.

phikit train --recipe tiny_cpu --data my_chats.jsonl --set learning_rate=1e-3
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools import data, errors
from devtools.backend import Backend, Task
from devtools.connections import NO_HUB, connect, local_model
from devtools.errors import BadInput, nearest
from devtools.job import Job
from devtools.models import open_up
from devtools.runs import HERE, Run, Runs, check_name
from devtools.settings import ROOT, Settings

#: YAML reads 1e-3 as a text and no as false; people who write them on a command line mean a number and a word.
FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
WORDS = ("yes", "no", "on", "off", "y", "n")
KEY = re.compile(r"[A-Za-z_]\w*")
MODEL_KEY = "model_name_or_path"
#: Modules that fine_tune.py imports beyond the standard library.
PACKAGES = ("torch", "transformers", "trl", "mlflow")


@dataclass(frozen=True)
class Request:
    """What `phikit train` was asked for; the fields are its options."""

    recipe: str = "tiny_cpu"
    data: str | None = None
    model: str = "recipe"
    overrides: Sequence[str] = ()
    name: str | None = None
    on_bad: str = "fail"
    network: str = "auto"
    gpu: bool = False


@dataclass(frozen=True)
class Plan:
    """A request that was checked against what is on this machine; nothing has been done yet."""

    job: Job
    recipe: str
    """As fine_tune.py takes it."""
    recipe_file: Path
    overrides: dict[str, Any]
    model: str | Path
    """A name, or a folder of this machine."""
    dataset: data.Dataset


def plan(request: Request, root: Path = ROOT) -> Plan:
    """Check a request; raises BadInput with every finding."""
    job = Job.read(root / "training" / "job.yaml")
    findings: list[str] = []
    recipe, recipe_file = _recipe(request.recipe, job.code / "recipes", findings)
    overrides = _overrides(request.overrides, findings)
    model = _model(request.model, findings)
    dataset = None
    try:
        if request.name:
            check_name(request.name)
    except BadInput as error:
        findings += error.findings
    try:
        dataset = data.find(request.data, root / "data", request.on_bad)
    except BadInput as error:
        findings += error.findings
    if findings or dataset is None:
        raise BadInput(findings)
    return Plan(job, recipe, recipe_file, overrides, model, dataset)


def claim(planned: Plan, request: Request, root: Path = ROOT, where: str = HERE) -> tuple[Run, bool]:
    """The run of a plan whose data is prepared, and whether it is new; see Runs.claim."""
    inputs = {
        "recipe": planned.recipe,
        "recipe_sha256": data.digest(planned.recipe_file),
        "overrides": planned.overrides,
        "model": str(planned.model),
        "train_sha256": data.digest(planned.dataset.train_file),
        "eval_sha256": data.digest(planned.dataset.eval_file),
    }
    files = {"train_file": str(planned.dataset.train_file), "eval_file": str(planned.dataset.eval_file)}
    run, is_new = Runs(root / "runs").claim(inputs, planned.recipe_file.stem, request.name, files, where)
    print(f"run: {data.near(run.folder)}{'' if is_new else ' (going on with it)'}", file=sys.stderr, flush=True)
    return run, is_new


def train(request: Request, backend: Backend, settings: Settings, root: Path = ROOT) -> int:
    """Train as requested and return the exit code of what ran; raises BadInput before anything has run."""
    planned = plan(request, root)
    code = prepare(planned, request, backend, settings)
    if code:
        return code
    run, is_new = claim(planned, request, root)
    runs = Runs(root / "runs")
    try:
        code = backend.run(_task(planned, run, request, settings))
    except errors.KitError:
        if is_new:
            runs.withdraw(run)
        raise
    if code == errors.BAD_INPUT and is_new:
        runs.withdraw(run)
    return conclude(code, run, runs)


def prepare(planned: Plan, request: Request, backend: Backend, settings: Settings) -> int:
    """Prepare the plan's data where that is still to be done; the exit code of what did it."""
    dataset, code = planned.dataset, planned.job.code
    if dataset.source is None:
        return errors.OK
    arguments = [dataset.source, "--out", data.near(dataset.folder), "--on-bad", request.on_bad]
    print(f"data: preparing {dataset.source} into {data.near(dataset.folder)}", file=sys.stderr, flush=True)
    task = data.preparation(arguments, code, settings, "prepare")
    return backend.run(dataclasses.replace(task, image=_image(planned.job, request)))


def _task(planned: Plan, run: Run, request: Request, settings: Settings) -> Task:
    job, dataset = planned.job, planned.dataset
    resolved = job.resolve(
        literals(planned) | {"train_file": dataset.train_file, "eval_file": dataset.eval_file},
        {"run": run.folder, "model": run.folder / "model"},
    )
    models = models_of(planned)
    local = [path for model in models if (path := local_model(model))]
    hub = any(not local_model(model) and model not in NO_HUB for model in models)
    connections = connect(settings, hub=hub, choice=request.network, store=run.folder.parent)
    environment = job.environment_variables | connections.environment | {"MLFLOW_EXPERIMENT_NAME": job.experiment_name}
    version = code_version(job.code)
    if version:
        environment["PHIKIT_CODE_VERSION"] = version
    return Task(
        name=run.name,
        command=resolved.command,
        code=job.code,
        image=_image(job, request),
        reads=tuple(dict.fromkeys([*resolved.reads.values(), *local, planned.recipe_file])),
        writes=tuple(dict.fromkeys([run.folder.parent, *connections.writes])),
        environment=environment,
        network=connections.network,
        packages=PACKAGES,
        gpu=request.gpu,
    )


def conclude(code: int, run: Run, runs: Runs) -> int:
    """What follows a training that ended with this exit code: the newest run, or a hint; returns the code."""
    if code == errors.OK:
        for model in ("model", "base"):
            open_up(run.folder / model)
        runs.point_latest(run)
        print(f"report: {data.near(run.folder / 'report.html')}")
    elif code not in (errors.STOPPED, errors.BAD_INPUT, errors.INTERRUPTED, errors.FAILED):
        # the training says the rest itself; of a signal that ended it, it could not
        hint = " (killed: out of memory?)" if code == 137 else ""
        print(
            f"error: the training ended with exit code {code}{hint}; the same command goes on with it", file=sys.stderr
        )
    return code


def literals(planned: Plan) -> dict[str, str]:
    """The job's inputs that are no files."""
    return {"recipe": planned.recipe, "model": str(planned.model), "overrides": one_line(planned.overrides)}


def one_line(overrides: dict[str, Any]) -> str:
    """Overrides as one line of JSON, which is YAML too, without single quotes: the job's command stands in those."""
    return json.dumps(overrides).replace("'", "\\u0027")


def models_of(planned: Plan) -> list[str]:
    """The model names that the training will open: one, or none that devtools can tell."""
    if str(planned.model) != "recipe":
        return [str(planned.model)]
    named = value_of(planned, MODEL_KEY)
    return [named] if isinstance(named, str) else []


def value_of(planned: Plan, key: str) -> Any:
    """What the training is told for a key of the recipe: by --set, else by its file; None where neither says it."""
    import yaml

    if key in planned.overrides:
        return planned.overrides[key]
    try:
        recipe = yaml.safe_load(planned.recipe_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None  # fine_tune.py says what is wrong with it
    return recipe.get(key) if isinstance(recipe, dict) else None


def code_version(folder: Path) -> str | None:
    """The commit that the folder is at, with -dirty when tracked files were changed; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=-dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _recipe(name: str, folder: Path, findings: list[str]) -> tuple[str, Path]:
    """The recipe as fine_tune.py takes it (a name, or a path that holds anywhere), and its file."""
    if name.endswith((".yaml", ".yml")):
        file = Path(name).expanduser().absolute()
        if not file.is_file():
            findings.append(f"--recipe {name}: there is no such file; name one, or one of recipes/")
        return str(file), file
    file = folder / f"{name}.yaml"
    if not file.is_file():
        findings.append(f"--recipe {name}: unknown; {nearest(name, (path.stem for path in folder.glob('*.yaml')))}")
    return name, file


def _model(name: str, findings: list[str]) -> str | Path:
    try:
        return local_model(name) or name
    except BadInput as error:
        findings += error.findings
        return name


def _overrides(pairs: Sequence[str], findings: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not KEY.fullmatch(key):
            findings.append(f"--set {pair}: is not key=value; write it like --set learning_rate=1e-3")
        elif key in values:
            findings.append(f"--set {pair}: {key} is set twice; leave one")
        else:
            values[key] = _scalar(text, pair, findings)
    return values


def _scalar(text: str, pair: str, findings: list[str]) -> Any:
    import yaml

    if text.lower() in WORDS:
        return text
    if FLOAT.fullmatch(text):
        return float(text)
    try:
        value = yaml.safe_load(text)
        json.dumps(value, allow_nan=False)
    except yaml.YAMLError:
        findings.append(f"--set {pair}: the value is not YAML; put quotes around it")
        return None
    except ValueError:
        findings.append(f"--set {pair}: the value is not a finite number; give one")
        return None
    except TypeError:
        return text  # a date, say, which a recipe has no use for
    return value


def _image(job: Job, request: Request) -> str:
    return job.image.replace(":cpu", ":gpu") if request.gpu else job.image
