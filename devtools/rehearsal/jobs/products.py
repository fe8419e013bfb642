"""Outputs that a job gives a name: data and models of the workspace, once it has completed.

register(rehearsal, "job-1", document["properties"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.rehearsal.assets import addresses
from devtools.rehearsal.assets.models import TYPES as MODELS
from devtools.rehearsal.assets.models import flavors_of
from devtools.rehearsal.jobs.plan import output_uri
from devtools.rehearsal.resources import envelope

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal


def register(rehearsal: Rehearsal, job: str, properties: dict[str, Any]) -> None:
    """Make an asset of every output that has a name for one.

    Raises:
        WireError: one is no model, though it is to become one.
    """
    for key, told in (properties.get("outputs") or {}).items():
        if told and told.get("assetName"):
            _register(rehearsal, job, key, told)


def _register(rehearsal: Rehearsal, job: str, key: str, told: dict[str, Any]) -> None:
    kind = told.get("jobOutputType") or "uri_folder"
    folder = "models" if kind in MODELS else "data"
    uri = addresses.resolve(rehearsal, output_uri(job, key, told)).uri
    name = told["assetName"]
    there = [version for version, _ in rehearsal.store.all(folder, f"{name}/")]
    numbers = [int(version.rpartition("/")[2]) for version in there if version.rpartition("/")[2].isdigit()]
    version = str(told.get("assetVersion") or max(numbers, default=0) + 1)
    own: dict[str, Any] = {"dataType": kind, "dataUri": uri}
    if folder == "models":
        flavors = flavors_of(rehearsal, uri) if kind == "mlflow_model" else {}
        own = {"modelType": kind, "modelUri": uri, "jobName": job, "flavors": flavors, "stage": None}
    common = {"description": None, "tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False}
    document = envelope(f"{folder}/{name}/versions/{version}", common | own | {"provisioningState": "Succeeded"}, None)
    rehearsal.store.put(folder, f"{name}/{version}", document)
