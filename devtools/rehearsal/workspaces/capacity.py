"""What the region has and how much of it may be used: VM sizes, quota and its use.

With `phikit rehearsal refuse quota` every family's limit is 0, here and where a cluster is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.rehearsal import LOCATION, MANAGEMENT_HOST, SUBSCRIPTION, sizes
from devtools.rehearsal.computes import nodes
from devtools.rehearsal.endpoints import capacity
from devtools.rehearsal.resources import PROVIDER
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, Route, WireError, page

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

_PATH = f"/subscriptions/{{subscription}}/providers/{PROVIDER}/locations/{{location}}"
_ID = f"/subscriptions/{SUBSCRIPTION}/providers/{PROVIDER}/locations/{LOCATION}/usages"
#: What is said of a family that has no limit of its own.
UNLIMITED = -1


def vm_sizes(call: Call) -> Document:
    """The region's VM sizes."""
    _check_location(call)
    return page([_size(size) for size in sizes.SIZES])


def usages(call: Call) -> Document:
    """Quota and what of it is in use: in all, by family, and low-priority nodes."""
    _check_location(call)
    return page(rows(call.rehearsal))


def rows(rehearsal: Rehearsal) -> list[dict[str, Any]]:
    """One entry for each quota that there is."""
    refused = rehearsal.refusals.is_on("quota")
    cores = nodes.cores_in_use(rehearsal.store)
    # clusters and deployments share the quota
    for family, count in capacity.cores_in_use(rehearsal.store).items():
        cores[family, False] += count
    dedicated = sum(count for (_, low), count in cores.items() if not low)
    low_priority = sum(count for (_, low), count in cores.items() if low)
    answer = [
        _usage("TotalDedicatedCores", "Total Cluster Dedicated Regional vCPUs", "totalDedicatedCores")
        | {"currentValue": dedicated, "limit": 0 if refused else sizes.TOTAL_DEDICATED},
        _usage("TotalLowPriorityCores", "Total Cluster LowPriority Regional vCPUs", "totalLowPriorityCores")
        | {"currentValue": low_priority, "limit": 0 if refused else sizes.TOTAL_LOW_PRIORITY},
    ]
    for family in sizes.FAMILIES:
        answer.append(
            _usage(family.name, f"{family.label} Family Cluster Dedicated vCPUs", "vmFamily/dedicatedCores")
            | {"currentValue": cores[family.name, False], "limit": 0 if refused else family.limit}
        )
        # low-priority nodes of all families share one quota
        answer.append(
            _usage(family.name, f"{family.label} Family Cluster LowPriority vCPUs", "vmFamily/lowPriorityCores")
            | {"currentValue": cores[family.name, True], "limit": UNLIMITED}
        )
    return answer


def quotas(call: Call) -> Document:
    """Limits that the subscription gives to workspaces: those of the families."""
    _check_location(call)
    refused = call.rehearsal.refusals.is_on("quota")
    return page(
        [
            _usage(family.name, f"{family.label} Family Cluster Dedicated vCPUs", "dedicatedCores", "quotas")
            | {"limit": 0 if refused else family.limit}
            for family in sizes.FAMILIES
        ]
    )


def _check_location(call: Call) -> None:
    location = call.params["location"].replace(" ", "").lower()
    if location != LOCATION:
        raise WireError(
            400,
            "LocationNotAvailableForResourceType",
            f"{PROVIDER} is not available in {call.params['location']}: the rehearsal has {LOCATION} only.",
        )


def _usage(name: str, label: str, kind: str, what: str = "usages") -> dict[str, Any]:
    return {
        "id": f"{_ID.removesuffix('usages')}{what}/{name}",
        "type": f"{PROVIDER}/{kind}/{what}",
        "unit": "Count",
        "name": {"value": name, "localizedValue": label},
    }


def _size(size: sizes.Size) -> dict[str, Any]:
    prices = [("Standard", size.hourly), ("LowPriority", size.low_priority)]
    return {
        "name": size.name,
        "family": size.family.name,
        "vCPUs": size.cores,
        "gpus": size.gpus,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": size.disk * 1024,
        "memoryGB": float(size.memory),
        "lowPriorityCapable": bool(size.low_priority),
        "premiumIO": True,
        "estimatedVMPrices": {
            "billingCurrency": "USD",
            "unitOfMeasure": "OneHour",
            "values": [{"retailPrice": price, "osType": "Linux", "vmTier": tier} for tier, price in prices if price],
        },
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
    }


ROUTES = [
    Route("GET", MANAGEMENT_HOST, f"{_PATH}/vmSizes", vm_sizes),
    Route("GET", MANAGEMENT_HOST, f"{_PATH}/usages", usages),
    Route("GET", MANAGEMENT_HOST, f"{_PATH}/quotas", quotas),
]
