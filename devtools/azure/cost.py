"""What is left when everything that costs by the hour is gone, and what that costs a day.

for line in remaining(workspace): print(line)

Prices are those of Azure's public list (devtools/azure/prices.py).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from devtools.azure import endpoint, prices, storage
from devtools.azure import registry as registries
from devtools.azure.image import REPOSITORY
from devtools.azure.refusals import told
from devtools.azure.registration import NAME
from devtools.azure.submission import PLACE
from devtools.azure.tags import is_ours
from devtools.azure.workspace import Workspace

if TYPE_CHECKING:
    from azure.ai.ml.entities import AmlCompute, Asset, ManagedOnlineEndpoint

#: Kinds of things that stay, as the SDK calls them.
KINDS = ("models", "environments", "data")
GIB = 2**30
DAYS = 30


def a_day(workspace: Workspace, endpoints: list[ManagedOnlineEndpoint], clusters: list[AmlCompute]) -> str:
    """What endpoints cost a day, and clusters whose nodes stay without work."""
    machines = [
        (one.instance_type, one.instance_count or 1, False)
        for found in endpoints
        for one in endpoint.deployments(workspace, found.name).values()
    ]
    machines += [(one.size, one.min_instances or 0, one.tier == "low_priority") for one in clusters]
    known = [(prices.hourly(size, workspace.location, low), count) for size, count, low in machines if count]
    total = sum((price or 0) * count for price, count in known)
    least = "at least " if any(price is None for price, _ in known) else ""
    return f"{least}{prices.a_day(total)} a day"


def assets(workspace: Workspace, kind: str) -> list[Asset]:
    """The versions of models, environments or data that the kit made, and that are not archived."""
    operations = getattr(workspace.client, kind)
    with told(kind):
        # (the list of names carries no tags)
        own = (NAME, workspace.settings.azure_model or NAME)
        names = sorted({one.name for one in operations.list() if one.name.startswith(own)})
        return [one for name in names for one in operations.list(name) if is_ours(one.tags)]


def remaining(workspace: Workspace) -> Iterator[str]:
    """A line for each thing or kind of thing that stays, with what it costs a day."""
    with told("what stays"):
        client = workspace.client
        endpoints = [one for one in client.online_endpoints.list() if is_ours(one.tags)]
        clusters = [one for one in client.compute.list() if is_ours(one.tags)]
    for one in endpoints:
        yield f"stays: endpoint {one.name}: {a_day(workspace, [one], [])}"
    for one in clusters:
        yield f"stays: cluster {one.name}: {a_day(workspace, [], [one])} at rest"
    for kind in KINDS:
        if found := [f"{one.name}:{one.version}" for one in assets(workspace, kind)]:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            yield f"stays: {kind}: {', '.join(found[:5])}{more}"
    with told("storage"):
        container = storage.container(workspace)
        size = sum(blob.size or 0 for blob in container.list_blobs(name_starts_with=f"{PLACE}/"))
    price = _storage_daily(workspace.location)
    cost = "at a price that the public list does not say" if price is None else f"{size / GIB * price:.4f} USD a day"
    yield f"stays: runs, {size / GIB:.3f} GiB below {container.container_name}/{PLACE}: {cost}"
    if registry := workspace.linked("containerRegistry"):
        where, cost = registry.rpartition("/")[2], _registry_a_day(workspace, registry)
        yield f"stays: images {REPOSITORY} in the registry {where}, which costs {cost} in any case"


def _registry_a_day(workspace: Workspace, registry: str) -> str:
    """What a registry of that tier costs a day, its images' storage aside."""
    from azure.core.exceptions import HttpResponseError

    try:
        tier = workspace.arm("GET", registry, registries.API_VERSION)["sku"]["name"]
    except (HttpResponseError, KeyError):
        return "what it did"
    found = prices.items(
        "serviceName eq 'Container Registry' and priceType eq 'Consumption' and "
        f"armRegionName eq '{workspace.location}' and meterName eq '{tier} Registry Unit'"
    )
    daily = [item["retailPrice"] for item in found if item["retailPrice"]]
    return f"{min(daily):.2f} USD a day" if daily else "what it did"


@functools.lru_cache
def _storage_daily(location: str) -> float | None:
    """US dollars a day for one GiB of blobs (hot, locally redundant); None where the list does not say."""
    found = prices.items(
        "serviceName eq 'Storage' and priceType eq 'Consumption' and skuName eq 'Hot LRS' and "
        f"armRegionName eq '{location}' and meterName eq 'Hot LRS Data Stored'"
    )
    monthly = [item["retailPrice"] for item in found if "Blob" in item.get("productName", "") and item["retailPrice"]]
    return max(monthly) / DAYS if monthly else None
