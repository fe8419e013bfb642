"""Which deployment a request goes to: the one that its header names, else one drawn by the endpoint's traffic.

    name = routing.choose(endpoint, headers, deployments)      # raises WireError

A deployment without traffic gets what names it, and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import WireError

HEADER = "azureml-model-deployment"
#: What the front door says when there is nowhere to go.
NO_DEPLOYMENT = "no_valid_deployments_to_route_to"
UNKNOWN_DEPLOYMENT = "deployment_not_found"


def choose(endpoint: Document, headers: Mapping[str, str], deployments: Collection[str]) -> str:
    """The name of the deployment; raises WireError 404 where there is none for it."""
    if wanted := headers.get(HEADER):
        found = next((name for name in deployments if name.lower() == wanted.strip().lower()), None)
        if found is None:
            raise WireError(404, "NotFound", UNKNOWN_DEPLOYMENT)
        return found
    weights = {name: weight for name, weight in endpoint["properties"]["traffic"].items() if weight}
    if not weights:
        raise WireError(404, "NotFound", NO_DEPLOYMENT)
    return random.choices(list(weights), list(weights.values()))[0]


def mirror(endpoint: Document) -> str | None:
    """The deployment that gets a copy of a request too, by chance."""
    for name, percent in endpoint["properties"]["mirrorTraffic"].items():
        if random.random() * 100 < percent:
            return name
    return None
