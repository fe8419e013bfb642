"""What the addresses of data and models stand for: datastore paths in their long form, outputs of jobs, assets by id.

found = addresses.resolve(rehearsal, "azureml://jobs/some-job/outputs/model/paths/")
found.uri          # azureml://subscriptions/.../datastores/workspaceblobstore/paths/azureml/some-job/model/
found.job          # some-job
addresses.blob(rehearsal, found.uri)     # ("container", "azureml/some-job/model/")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from devtools.rehearsal import BLOB_HOST, GROUP, SUBSCRIPTION, WORKSPACE
from devtools.rehearsal.storage.routes import ARTIFACTS, DEFAULT
from devtools.rehearsal.storage.routes import KIND as DATASTORES
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

LONG = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}"
_DATASTORE = re.compile(r"^azureml:(?://.*)?//?(?:.*/)?datastores/([^/]+)/(?:paths/)?(.*)$", re.IGNORECASE)
_JOB = re.compile(r"^azureml://jobs/([^/]+)/outputs/([^/]+)(?:/paths)?(?:/(.*))?$", re.IGNORECASE)
_RUN = re.compile(r"^runs:/([^/]+)/(.*)$", re.IGNORECASE)
_ASSET = re.compile(r"(?:^|/)(data|models)/([^/]+)/versions/([^/?#]+)", re.IGNORECASE)
#: The data that a job's output is for the service, and its name.
_OUTPUT = re.compile(r"^azureml_(.+)_output_data_(.+)$")
OUTPUT = "azureml_{job}_output_data_{name}"
#: Outputs that are the job's artifacts: what it logged and what lies in its ./outputs.
_ARTIFACTS = ("artifacts", "default")


@dataclass(frozen=True)
class Address:
    """An address, as the service keeps it."""

    uri: str
    job: str | None = None
    """The job that made what is there."""


def datastore(name: str, path: str) -> str:
    """The long address of a path in a datastore."""
    return f"{LONG}/datastores/{name}/paths/{path}"


def artifacts(job: str, path: str = "") -> str:
    """Where a job's artifacts lie."""
    return datastore(ARTIFACTS, f"ExperimentRun/dcid.{job}/{path}")


def output(job: str, name: str) -> str:
    """Where a job's output lies when it does not say."""
    return datastore(DEFAULT, f"azureml/{job}/{name}/")


def resolve(rehearsal: Rehearsal, uri: str) -> Address:
    """The address as it is kept.

    Raises:
        WireError: it names a job, an output or a datastore that is not there, or is no address at all.
    """
    if found := _JOB.match(uri):
        return Address(_join(_output_of(rehearsal, found[1], found[2]), found[3] or ""), found[1])
    if found := _RUN.match(uri):
        _job(rehearsal, found[1])
        return Address(artifacts(found[1], found[2]), found[1])
    if found := _DATASTORE.match(uri):
        if rehearsal.store.get(DATASTORES, found[1]) is None:
            raise WireError(404, "UserError", f"Datastore {found[1]} of the address {uri} was not found.")
        made_by = re.match(r"(?:azureml/|ExperimentRun/dcid\.)([^/]+)/", found[2])
        job = made_by[1] if made_by and rehearsal.store.get("jobs", made_by[1]) else None
        return Address(datastore(found[1], found[2]), job)
    if urlsplit(uri).scheme not in ("https", "http", "wasbs", "abfss", "adl", "azureml"):
        raise WireError(
            400, "UserError", f"The address {uri} is none of a datastore, of a job's output or of a web server."
        )
    return Address(uri)


def blob(rehearsal: Rehearsal, uri: str) -> tuple[str, str] | None:
    """Container and path of what an address stands for; None where that is not in the emulator's storage."""
    if found := _DATASTORE.match(uri):
        store = rehearsal.store.get(DATASTORES, found[1])
        return (store["properties"]["containerName"], found[2]) if store else None
    parts = urlsplit(uri)
    if parts.hostname == BLOB_HOST:
        container, _, path = unquote(parts.path).lstrip("/").partition("/")
        return container, path
    return None


def asset(rehearsal: Rehearsal, identifier: str) -> dict[str, Any] | None:
    """The properties of the data or model version that an id names, in whichever form it does; None: there is none."""
    found = _ASSET.search(identifier)
    if found is None:
        return None
    document = rehearsal.store.get(found[1].lower(), f"{found[2]}/{found[3]}")
    if document is None and (made := _OUTPUT.match(found[2])):
        return _data_of(rehearsal, made[1], made[2])
    return document["properties"] if document else None


def _job(rehearsal: Rehearsal, name: str) -> dict[str, Any]:
    document = rehearsal.store.get("jobs", name)
    if document is None:
        raise WireError(404, "UserError", f"The job {name} was not found.")
    return document["properties"]


def _data_of(rehearsal: Rehearsal, job: str, name: str) -> dict[str, Any] | None:
    """A job's output, as data that nobody gave a name."""
    document = rehearsal.store.get("jobs", job)
    told = (document["properties"].get("outputs") or {}).get(name) if document else None
    if told is None:
        return None
    return {"dataType": told.get("jobOutputType"), "dataUri": _output_of(rehearsal, job, name)}


def _output_of(rehearsal: Rehearsal, job: str, name: str) -> str:
    outputs = _job(rehearsal, job).get("outputs") or {}
    if name.lower() in _ARTIFACTS:
        return artifacts(job)
    if name not in outputs:
        raise WireError(
            404, "UserError", f"The job {job} has no output {name}; it has: {', '.join(sorted(outputs)) or 'none'}."
        )
    uri = (outputs[name] or {}).get("uri")
    return resolve(rehearsal, uri).uri if uri else output(job, name)


def _join(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path}" if path else base
