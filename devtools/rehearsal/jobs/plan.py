"""What a submitted job means: image, code, command, inputs, outputs; and what the service finds wrong with it.

plan = read(rehearsal, "job-1", document["properties"])

Paths inside of a job are those of the machine that it runs on: /mnt/azureml/JOB/{wd,inputs,outputs}. Placeholders are
replaced as Azure replaces them: the value as it is, quoted by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devtools.rehearsal.assets import addresses
from devtools.rehearsal.endpoints.plan import asset
from devtools.rehearsal.endpoints.validation import seconds
from devtools.rehearsal.storage.routes import DEFAULT
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

PLACEHOLDER = re.compile(r"\$\{\{\s*(?:(inputs|outputs)\.([\w-]+)|([^{}]*?))\s*\}\}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
ROOT = "/mnt/azureml"
#: Inputs and outputs that are files or folders; `literal` is a value.
LITERAL = "literal"
#: What is handed to the command as an address, not as files.
DIRECT = "direct"
#: Folders of the working folder that become artifacts of the run.
ARTIFACTS = ("outputs", "logs")
MODELS = ("mlflow_model", "custom_model", "triton_model")


@dataclass(frozen=True)
class Place:
    """An input or output that lies in the storage."""

    name: str
    container: str
    path: str
    """A blob, or the beginning of the names of several; without a slash at its end."""
    is_file: bool
    target: str
    """Where the job sees it."""


@dataclass(frozen=True)
class Plan:
    """A job that can be run."""

    environment: Document
    """The environment's properties."""
    code: Place | None
    workdir: str
    """The folder that the command starts in; the code is there."""
    command: str
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    artifacts: tuple[Place, ...]
    """Folders of the working folder that are kept with the run."""
    variables: Mapping[str, str]
    timeout: float | None
    """Seconds that it may take."""


def check(rehearsal: Rehearsal, name: str, sent: dict[str, Any]) -> None:
    """Refuse what the service refuses at once; raises WireError."""
    if not NAME.fullmatch(name):
        raise _invalid(
            f"The job name {name[:60]} is invalid: it must be 1 to 255 letters, digits, dashes and underscores, and "
            "begin with a letter or digit."
        )
    kind = sent.get("jobType")
    if kind != "Command":
        raise WireError(501, "NotEmulated", f"jobs of type {kind}: the rehearsal runs command jobs")
    if not str(sent.get("command") or "").strip():
        raise _invalid("The field Command is required.")
    if not sent.get("environmentId"):
        raise _invalid("The field EnvironmentId is required.")
    compute = str(sent.get("computeId") or "")
    cluster = rehearsal.store.get("computes", compute.rpartition("/")[2]) if compute else None
    if cluster is None:
        raise _invalid(
            f"Compute with name {compute.rpartition('/')[2] or '(none)'} could not be found.", "ComputeNotFound"
        )
    if cluster["properties"]["provisioningState"] != "Succeeded":
        raise _invalid(f"Compute {cluster['name']} is {cluster['properties']['provisioningState']}.")
    _check_nodes(sent, cluster)
    read(rehearsal, name, sent)


def read(rehearsal: Rehearsal, name: str, sent: dict[str, Any]) -> Plan:
    """The plan of a job; raises WireError where what it names is not there."""
    base = f"{ROOT}/{name}"
    *_, environment = asset(rehearsal, "environments", sent["environmentId"])
    literals, inputs = _inputs(rehearsal, sent.get("inputs") or {}, f"{base}/inputs")
    outputs = tuple(
        _output(rehearsal, name, key, told or {}, base) for key, told in (sent.get("outputs") or {}).items()
    )
    values = {("inputs", key): value for key, value in literals.items()}
    values |= {("inputs", place.name): place.target for place in inputs}
    values |= {("outputs", place.name): place.target for place in outputs}
    code = None
    if sent.get("codeId"):
        *_, properties = asset(rehearsal, "codes", sent["codeId"])
        code = _place(rehearsal, "code", properties["codeUri"], False, lambda _: f"{base}/wd")
    limit = (sent.get("limits") or {}).get("timeout")
    return Plan(
        environment=environment,
        code=code,
        workdir=f"{base}/wd",
        command=_fill(sent["command"], values),
        inputs=inputs,
        outputs=outputs,
        artifacts=tuple(
            _place(rehearsal, folder, addresses.artifacts(name, folder), False, lambda _, f=folder: f"{base}/wd/{f}")
            for folder in ARTIFACTS
        ),
        variables={key: str(value) for key, value in (sent.get("environmentVariables") or {}).items()},
        timeout=seconds(limit, "timeout") if limit else None,
    )


def output_uri(name: str, key: str, told: dict[str, Any]) -> str:
    """Where an output lies: where it says (it may name `${{name}}` and the like), or else below the job's own name."""
    if told.get("uri"):
        known = {"name": name, "output_name": key, "default_datastore": DEFAULT}
        return re.sub(r"\$\{\{\s*(\w+)\s*\}\}", lambda found: known.get(found[1], found[0]), told["uri"])
    own = addresses.output(name, key)
    # (a file is called as the output is)
    return own.rstrip("/") if told.get("jobOutputType") == "uri_file" else own


def _check_nodes(sent: dict[str, Any], cluster: Document) -> None:
    count = (sent.get("resources") or {}).get("instanceCount") or 1
    most = cluster["properties"]["properties"]["scaleSettings"]["maxNodeCount"]
    if not isinstance(count, int) or count < 1:
        raise _invalid(f"The job's instanceCount {count!r} is no whole number above 0.")
    if count > most:
        raise _invalid(f"The job asks for {count} nodes, and compute {cluster['name']} has {most} at most.")
    processes = (sent.get("distribution") or {}).get("processCountPerInstance") or 1
    if count > 1 or processes > 1:
        raise WireError(
            501,
            "NotEmulated",
            f"a job of {count} nodes with {processes} processes each: the rehearsal runs one process on one node",
        )


def _inputs(rehearsal: Rehearsal, told: dict[str, Any], base: str) -> tuple[dict[str, str], tuple[Place, ...]]:
    literals: dict[str, str] = {}
    places: list[Place] = []
    for key, one in told.items():
        if one.get("jobInputType") == LITERAL:
            literals[key] = str(one.get("value"))
            continue
        uri = _address(rehearsal, key, one)
        if str(one.get("mode") or "").lower() == DIRECT:
            literals[key] = uri
            continue
        is_file = one.get("jobInputType") == "uri_file"

        def target(path: str, key: str = key, is_file: bool = is_file) -> str:
            return f"{base}/{key}/{path.rpartition('/')[2]}" if is_file else f"{base}/{key}"

        places.append(_place(rehearsal, key, uri, is_file, target))
    return literals, tuple(places)


def _address(rehearsal: Rehearsal, key: str, told: dict[str, Any]) -> str:
    """Where an input lies, by its address or by the asset that it names."""
    uri = str(told.get("uri") or "")
    found = addresses.asset(rehearsal, uri)
    if found is None and re.match(r"^azureml:[^/:]+:[^/:]+$", uri):
        kind = "models" if told.get("jobInputType") in MODELS else "data"
        *_, found = asset(rehearsal, kind, uri)
    if found is None and re.search(r"/(data|models)/[^/]+/versions/", uri):
        raise WireError(404, "UserError", f"The input {key} was not found: {uri}")
    uri = (found.get("dataUri") or found.get("modelUri")) if found else uri
    if not uri:
        raise _invalid(f"The input {key} has no path.")
    return uri


def _output(rehearsal: Rehearsal, name: str, key: str, told: dict[str, Any], base: str) -> Place:
    is_file = told.get("jobOutputType") == "uri_file"

    def target(path: str) -> str:
        return f"{base}/outputs/{key}" + (f"/{path.rpartition('/')[2]}" if is_file else "")

    return _place(rehearsal, key, output_uri(name, key, told), is_file, target)


def _place(rehearsal: Rehearsal, name: str, uri: str, is_file: bool, target: Callable[[str], str]) -> Place:
    resolved = addresses.resolve(rehearsal, uri).uri
    found = addresses.blob(rehearsal, resolved)
    if found is None:
        raise WireError(501, "NotEmulated", f"{uri}: is not in the rehearsal's storage, and it goes nowhere else")
    container, path = found[0], found[1].strip("/")
    return Place(name, container, path, is_file, target(path))


def _fill(command: str, values: Mapping[tuple[str, str], str]) -> str:
    unknown = {
        f"{found[1]}.{found[2]}" if found[1] else found[3]
        for found in PLACEHOLDER.finditer(command)
        if (found[1], found[2]) not in values
    }
    if unknown:
        raise _invalid(f"The command names what the job does not have: {', '.join(sorted(unknown))}.")
    return PLACEHOLDER.sub(lambda found: values[found[1], found[2]], command)


def _invalid(message: str, code: str = "UserError") -> WireError:
    return WireError(400, code, message)
