"""Models: registered from an uploaded folder or a job's output, with what their MLmodel file says of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from devtools.rehearsal import API_HOST, WORKSPACE_PATH
from devtools.rehearsal.assets import addresses
from devtools.rehearsal.assets.asset import Asset
from devtools.rehearsal.assets.data import asked
from devtools.rehearsal.wire import Call, Route, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

TYPES = ("custom_model", "mlflow_model", "triton_model")
FILE = "MLmodel"


class Models(Asset):
    """Models, by name and version."""

    kind = "models"
    title = "Model"
    fixed = ("modelUri", "modelType")

    def checked(self, call: Call, sent: dict[str, Any]) -> dict[str, Any]:
        """What it is, where it lies, which job made it; one of type mlflow_model has to be one."""
        kind = sent.get("modelType") or TYPES[0]
        if kind not in TYPES:
            raise WireError(400, "UserError", f"modelType {kind}: {', '.join(TYPES)}.")
        if not sent.get("modelUri"):
            raise WireError(400, "UserError", "modelUri is required.")
        address = addresses.resolve(call.rehearsal, str(sent["modelUri"]))
        flavors = sent.get("flavors") or {}
        if kind == "mlflow_model":
            flavors = flavors or flavors_of(call.rehearsal, address.uri)
        else:
            _check_there(call.rehearsal, address.uri)
        return {
            "modelType": kind,
            "modelUri": address.uri,
            "jobName": sent.get("jobName") or address.job,
            "flavors": flavors,
            "stage": sent.get("stage"),
        }


def flavors_of(rehearsal: Rehearsal, uri: str) -> dict[str, Any]:
    """The flavors that the model's MLmodel file names.

    Raises:
        WireError: there is no such file, or it cannot be read.
    """
    import yaml

    where = addresses.blob(rehearsal, uri)
    if where is None:
        return {}
    container, path = where
    file = f"{path.rstrip('/')}/{FILE}"
    if file not in {name for name, *_ in rehearsal.blobs.list(container, file)}:
        raise WireError(400, "UserError", f"There is no {FILE} file in {uri}: it is no model of type mlflow_model.")
    try:
        told = yaml.safe_load(rehearsal.blobs.download(container, file))["flavors"]
        return {name: {"data": {key: _text(value) for key, value in data.items()}} for name, data in told.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise WireError(400, "UserError", f"The {FILE} file in {uri} cannot be read: it names no flavors.") from error


def resolved(call: Call) -> dict[str, Any]:
    """Where each of the models lies whose ids are asked for; ids that nothing has are left out."""
    found = {identifier: addresses.asset(call.rehearsal, identifier) for identifier in asked(call)}
    return {
        "values": {
            identifier: {"path": properties["modelUri"], "type": properties["modelType"]}
            for identifier, properties in found.items()
            if properties and "modelUri" in properties
        }
    }


def _check_there(rehearsal: Rehearsal, uri: str) -> None:
    where = addresses.blob(rehearsal, uri)
    if where and not rehearsal.blobs.list(*where):
        raise WireError(400, "UserError", f"There is nothing in {uri}: a model needs at least one file.")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


RESOLVE = Route("POST", API_HOST, "/modelregistry/v1.0" + WORKSPACE_PATH + "/models/batchGetResolvedUris", resolved)
