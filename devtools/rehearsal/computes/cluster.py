"""What a cluster's definition may say: checked as the service checks it, and made into the document that it answers.

Messages follow the service's own where those are known; README.md of the rehearsal says which are not.
"""

from __future__ import annotations

import re
from typing import Any

from devtools.rehearsal import LOCATION, sizes
from devtools.rehearsal.resources import envelope, now
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, WireError

#: 3 to 24 letters, digits and dashes, the first a letter; at the end no number after a dash, nor a dash.
NAME = re.compile(r"^[a-zA-Z](?![a-zA-Z0-9-]*-\d+$)[a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$")
_DURATION = re.compile(r"^P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$")
PRIORITIES = ("Dedicated", "LowPriority")
#: Seconds before an idle node goes, when nobody says.
IDLE = "PT120S"
#: What of a cluster is decided when it is made.
FIXED = ("vmSize", "vmPriority", "subnet", "enableNodePublicIp")


def check_name(name: str) -> None:
    """Raise WireError unless the service would take the name."""
    if not NAME.match(name):
        raise WireError(
            400,
            "BadRequest",
            "The request is invalid.",
            details=[
                {
                    "code": "InvalidComputeName",
                    "message": f"Compute name {name} is invalid. It can include letters, digits and dashes. It must "
                    "start with a letter, end with a letter or digit, be between 3 and 24 characters in length, and "
                    "not end with a dash followed by numbers.",
                }
            ],
        )


def scale_settings(sent: Any) -> dict[str, Any]:
    """Least, most and idle time of nodes; raises WireError when they do not go together."""
    sent = sent if isinstance(sent, dict) else {}
    least, most = sent.get("minNodeCount") or 0, sent.get("maxNodeCount")
    idle = sent.get("nodeIdleTimeBeforeScaleDown") or IDLE
    if not isinstance(most, int) or not isinstance(least, int):
        raise _invalid("properties.scaleSettings.maxNodeCount is required and must be a whole number.")
    if least < 0 or most < 1 or least > most:
        raise _invalid(f"minNodeCount {least} and maxNodeCount {most}: 0 <= minNodeCount <= maxNodeCount, at least 1.")
    if not isinstance(idle, str) or not _DURATION.match(idle):
        raise _invalid(f"nodeIdleTimeBeforeScaleDown {idle!r} is no ISO 8601 duration such as PT120S.")
    return {"minNodeCount": least, "maxNodeCount": most, "nodeIdleTimeBeforeScaleDown": idle}


def build(call: Call, sent: dict[str, Any], before: Document | None) -> Document:
    """The cluster's document as it is while it is made; raises WireError where the definition is refused at once.

    Args:
        call: the PUT.
        sent: `properties` of its body.
        before: the cluster as it was; None for a new one, and for one whose making failed.
    """
    if sent.get("computeType") != "AmlCompute":
        raise _invalid(f"computeType {sent.get('computeType')}: the rehearsal has clusters (AmlCompute) only.")
    location = str(call.body.get("location") or sent.get("computeLocation") or LOCATION).replace(" ", "").lower()
    if location != LOCATION:
        raise _invalid(f"location {location}: the rehearsal has {LOCATION} only.")
    asked = sent.get("properties") or {}
    if not isinstance(asked.get("vmSize"), str):
        raise _invalid("properties.vmSize is required and must be a text.")
    properties = {
        "osType": "Linux",
        "vmSize": asked.get("vmSize"),
        "vmPriority": asked.get("vmPriority") or "Dedicated",
        "scaleSettings": scale_settings(asked.get("scaleSettings")),
        "isolatedNetwork": False,
        "subnet": asked.get("subnet"),
        "enableNodePublicIp": asked.get("enableNodePublicIp") is not False,
        "remoteLoginPortPublicAccess": asked.get("remoteLoginPortPublicAccess") or "NotSpecified",
        "userAccountCredentials": _without_secrets(asked.get("userAccountCredentials")),
        "errors": None,
        "propertyBag": {},
    }
    if properties["vmPriority"] not in PRIORITIES:
        raise _invalid(f"vmPriority {properties['vmPriority']}: {' or '.join(PRIORITIES)}.")
    size = sizes.find(str(properties["vmSize"]))
    if size:
        # the service writes sizes as its own list has them, whatever the case that they come in
        properties["vmSize"] = size.name
    if before is not None:
        _check_unchanged(call.params["name"], before["properties"]["properties"], properties)
    made = before["properties"]["createdOn"] if before else now()
    document = envelope(
        f"computes/{call.params['name']}",
        {
            "computeType": "AmlCompute",
            "computeLocation": LOCATION,
            "description": sent.get("description"),
            "provisioningState": "Updating" if before else "Creating",
            "provisioningErrors": None,
            "createdOn": made,
            "modifiedOn": now(),
            "resourceId": None,
            "isAttachedCompute": False,
            "disableLocalAuth": sent.get("disableLocalAuth") is not False,
            "properties": properties,
        },
        call,
        before,
    )
    return document | {
        "location": LOCATION,
        "tags": call.body.get("tags") or {},
        "identity": _identity(call, call.body.get("identity")),
    }


def check_size(document: Document, refused: bool) -> sizes.Size:
    """The cluster's size; raises the WireError that its making ends with when the region does not offer it."""
    properties = document["properties"]["properties"]
    size = None if refused else sizes.find(str(properties["vmSize"]))
    if size is None:
        offered = ",".join(one.name.upper() for one in sizes.SIZES if one.name != properties["vmSize"])
        raise WireError(
            400,
            "InvalidPropertyValue",
            f"The specified value {properties['vmSize']} for property Cluster.Properties.VMSize is not a supported VM "
            f"size in region {LOCATION}. See additional details for supported VM sizes.",
            details=[{"code": "SupportedVMSizes", "message": offered}],
        )
    if properties["vmPriority"] == "LowPriority" and not size.low_priority:
        raise WireError(
            400,
            "VmSizeNotAllowedForLowPriority",
            f"The VM size {size.name} is not allowed for LowPriority. Please convert to Dedicated or use a different "
            "VM size.",
        )
    return size


def check_quota(document: Document, size: sizes.Size, limit: int, used: int) -> None:
    """Raise the WireError that a cluster's making ends with when the quota does not hold its first nodes.

    Args:
        document: the cluster.
        size: its size.
        limit: cores that the subscription may use of this kind.
        used: cores of them that are in use.
    """
    properties = document["properties"]["properties"]
    wanted = max(1, properties["scaleSettings"]["minNodeCount"])
    if used + wanted * size.cores <= limit:
        return
    kind = "total low-priority" if properties["vmPriority"] == "LowPriority" else f"{size.family.label} family"
    raise WireError(
        400,
        "ClusterMinNodesExceedCoreQuota",
        f"The specified subscription has a {kind} vCPU quota of {limit}, of which {used} are in use, and cannot "
        f"accommodate for at least {wanted} requested managed compute nodes which maps to {wanted * size.cores} vCPUs. "
        f"Request more quota for the family {size.family.name} to go on.",
    )


def _check_unchanged(name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [key for key in FIXED if before.get(key) != after.get(key)]
    if changed:
        raise WireError(
            400,
            "BadRequest",
            f"Compute {name} exists and its {', '.join(changed)} cannot be changed: only its scale settings, identity, "
            "tags and description can be. Use another name, or delete it first.",
        )


def _identity(call: Call, sent: Any) -> dict[str, Any] | None:
    """The cluster's identity with the ids that Azure adds to it."""
    if not isinstance(sent, dict) or sent.get("type") in (None, "None"):
        return None
    assigned = {}
    for identifier in sent.get("userAssignedIdentities") or {}:
        found = call.rehearsal.store.get("identities", identifier.rsplit("/", 1)[-1])
        if found is None or found["id"].lower() != identifier.lower():
            raise WireError(400, "FailedIdentityOperation", f"The identity {identifier} was not found.")
        assigned[found["id"]] = {key: found["properties"][key] for key in ("principalId", "clientId")}
    return {"type": sent["type"]} | ({"userAssignedIdentities": assigned} if assigned else {})


def _without_secrets(credentials: Any) -> dict[str, Any] | None:
    return {"adminUserName": credentials.get("adminUserName")} if isinstance(credentials, dict) else None


def _invalid(message: str) -> WireError:
    return WireError(400, "BadRequest", message)
