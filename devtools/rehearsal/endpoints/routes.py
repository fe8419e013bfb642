"""The calls about managed online endpoints, and how deployments begin and end with the emulator."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from devtools.rehearsal import MANAGEMENT_HOST, WORKSPACE_PATH
from devtools.rehearsal.endpoints import deployments, keys, monitor, online_endpoints
from devtools.rehearsal.endpoints.fleet import Coming, fleet_of
from devtools.rehearsal.endpoints.online_endpoints import BUSY, DEPLOYMENTS, KIND
from devtools.rehearsal.endpoints.replicas import CANCELLED
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Route, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

_ALL = WORKSPACE_PATH + "/onlineEndpoints"
_ONE = _ALL + "/{endpoint}"
_DEPLOYMENT = _ONE + "/deployments/{deployment}"
_METRICS = "/providers/Microsoft.Insights/metrics"

ROUTES = [
    Route(method, MANAGEMENT_HOST, path, handler)
    for method, path, handler in (
        ("GET", _ALL, online_endpoints.list_all),
        ("GET", _ONE, online_endpoints.get),
        ("PUT", _ONE, online_endpoints.put),
        ("PATCH", _ONE, online_endpoints.patch),
        ("DELETE", _ONE, online_endpoints.delete),
        ("POST", _ONE + "/listKeys", keys.list_keys),
        ("POST", _ONE + "/regenerateKeys", keys.regenerate),
        ("POST", _ONE + "/token", keys.token),
        ("GET", _ONE + "/deployments", deployments.list_all),
        ("GET", _DEPLOYMENT, deployments.get),
        ("PUT", _DEPLOYMENT, deployments.put),
        ("PATCH", _DEPLOYMENT, deployments.patch),
        ("DELETE", _DEPLOYMENT, deployments.delete),
        ("POST", _DEPLOYMENT + "/getLogs", deployments.get_logs),
        ("GET", _DEPLOYMENT + "/skus", deployments.list_skus),
        ("GET", _ONE + _METRICS, monitor.of_endpoint),
        ("GET", _DEPLOYMENT + _METRICS, monitor.of_deployment),
    )
]


def resume(rehearsal: Rehearsal) -> None:
    """Start every deployment again, each as it last served; what was being made when the emulator went has failed."""
    store = rehearsal.store
    for key, endpoint in store.all(KIND):
        if endpoint["properties"]["provisioningState"] == "Deleting":
            for inner, _ in store.all(DEPLOYMENTS, f"{key}/"):
                store.delete(DEPLOYMENTS, inner)
            store.delete(KIND, key)
        elif endpoint["properties"]["provisioningState"] in BUSY:
            # nothing of it was left to be done
            _change_state(rehearsal, KIND, key, "Succeeded")
    for key, deployment in store.all(DEPLOYMENTS):
        if deployment["properties"]["provisioningState"] == "Deleting":
            store.delete(DEPLOYMENTS, key)
            continue
        if deployment["properties"]["provisioningState"] in BUSY:
            _change_state(rehearsal, DEPLOYMENTS, key, "Failed")
        if served := deployment["_"].get("serving"):
            coming = fleet_of(rehearsal).expect(*key.split("/"))
            told = (rehearsal, key, served, deployment["_"]["revision"], coming)
            threading.Thread(target=_start_again, args=told, name=f"start {key}", daemon=True).start()


def end(rehearsal: Rehearsal) -> None:
    """End all containers."""
    fleet_of(rehearsal).end()


def _start_again(rehearsal: Rehearsal, key: str, served: Document, revision: str, coming: Coming) -> None:
    endpoint, _, name = key.partition("/")
    try:
        fleet_of(rehearsal).roll_out(endpoint, name, served, revision, coming)
    except WireError as error:
        if error.code == CANCELLED:
            # the emulator goes, and it will be there again with the next one
            return
        print(f"deployment {key}: {error.message}", file=sys.stderr, flush=True)
        _change_state(rehearsal, DEPLOYMENTS, key, "Failed")


def _change_state(rehearsal: Rehearsal, kind: str, key: str, state: str) -> None:
    def change(document: Document) -> None:
        document["properties"]["provisioningState"] = state

    rehearsal.store.change(kind, key, change)
