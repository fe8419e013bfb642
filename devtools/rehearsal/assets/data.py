"""Data: files and folders by name and version, and what the ids of data that jobs report stand for."""

from __future__ import annotations

from typing import Any

from devtools.rehearsal import API_HOST, WORKSPACE_PATH
from devtools.rehearsal.assets import addresses
from devtools.rehearsal.assets.asset import Asset
from devtools.rehearsal.wire import Call, Route, WireError

TYPES = ("uri_file", "uri_folder", "mltable")


class Data(Asset):
    """Data, by name and version."""

    kind = "data"
    title = "Data"
    fixed = ("dataType", "dataUri")
    longest_version = 30

    def checked(self, call: Call, sent: dict[str, Any]) -> dict[str, Any]:
        """What it is and where it lies."""
        if sent.get("dataType") not in TYPES:
            raise WireError(400, "UserError", f"dataType {sent.get('dataType')}: {', '.join(TYPES)}.")
        if not sent.get("dataUri"):
            raise WireError(400, "UserError", "dataUri is required.")
        uri = addresses.resolve(call.rehearsal, str(sent["dataUri"])).uri
        more = {"referencedUris": sent.get("referencedUris")} if sent["dataType"] == "mltable" else {}
        return {"dataType": sent["dataType"], "dataUri": uri} | more

    def container_properties(self, newest: dict[str, Any]) -> dict[str, Any]:
        """All versions of a name are of one type."""
        return {"dataType": newest.get("dataType", TYPES[0])}


def resolved(call: Call) -> dict[str, Any]:
    """Where each of the data lies whose ids are asked for; ids that nothing has are left out."""
    found = {identifier: addresses.asset(call.rehearsal, identifier) for identifier in asked(call)}
    return {
        "values": {
            identifier: {"uri": properties["dataUri"], "type": properties["dataType"]}
            for identifier, properties in found.items()
            if properties and "dataUri" in properties
        }
    }


def asked(call: Call) -> list[str]:
    """The ids of a request; raises WireError when it has none."""
    values = call.body.get("values") if isinstance(call.body, dict) else None
    if not isinstance(values, list):
        raise WireError(400, "UserError", "The request body must have a list named values.")
    return [str(value) for value in values]


RESOLVE = Route("POST", API_HOST, "/data/v1.0" + WORKSPACE_PATH + "/dataversion/batchGetResolvedUris", resolved)
