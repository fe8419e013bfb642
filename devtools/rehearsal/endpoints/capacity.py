"""Whether the region has the VM size that a deployment asks for, and the subscription the cores.

    name = capacity.check(call, "standard_f8s_v2", 1, None)      # "Standard_F8s_v2"; raises WireError

The service keeps a fifth more than a deployment has, at least one instance, to be able to replace machines: so much
quota is asked for.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from devtools.rehearsal import SUBSCRIPTION, sizes
from devtools.rehearsal.computes import nodes
from devtools.rehearsal.endpoints import wording
from devtools.rehearsal.store import Document, Store
from devtools.rehearsal.wire import Call

#: Instances of one deployment at most.
MOST_INSTANCES = 50
#: The part of its instances that a deployment is given on top, and the sizes of which none is.
SPARE = 0.2
WITHOUT_SPARE = re.compile(r"Standard_N[CD]\w*_A100_v4|Standard_ND96asr_v4|Standard_ND40rs_v2")


def check(call: Call, size: str, count: int, before: Document | None) -> str:
    """The size's name as the region writes it.

    Raises:
        WireError: there is no such size, or not enough quota for so many more.
    """
    found = sizes.find(size)
    if found is None or call.rehearsal.refusals.take("sku"):
        raise wording.invalid(
            "VmSize",
            f"The VM size {size} is not supported for managed online deployments in this region. See the list of "
            "supported sizes: https://aka.ms/oe-skus",
            code=wording.DEPLOYMENT,
        )
    refused = call.rehearsal.refusals.take("quota") is not None
    limit = 0 if refused else found.family.limit
    store = call.rehearsal.store
    used = (
        0 if refused else cores_in_use(store)[found.family.name] + nodes.cores_in_use(store)[found.family.name, False]
    )
    there = _cores(before)
    needed = found.cores * _with_spare(found.name, count)
    if used - there + needed > limit:
        raise wording.invalid(
            "VmSize",
            f"Not enough quota available for {found.name} in SubscriptionId {SUBSCRIPTION}. Current usage/limit: "
            f"{used}/{limit}. Additional needed: {needed - there} Please see troubleshooting guide, available here: "
            f"{wording.GUIDE}#error-outofquota",
            code=wording.DEPLOYMENT,
        )
    return found.name


def cores_in_use(store: Store) -> Counter[str]:
    """Cores that the quota counts for all deployments, by family."""
    used: Counter[str] = Counter()
    for _, one in store.all("deployments"):
        if found := sizes.find(one["properties"]["instanceType"]):
            used[found.family.name] += _cores(one)
    return used


def _cores(deployment: Document | None) -> int:
    found = sizes.find(deployment["properties"]["instanceType"]) if deployment else None
    return found.cores * _with_spare(found.name, deployment["sku"]["capacity"]) if found and deployment else 0


def _with_spare(size: str, count: int) -> int:
    return count if WITHOUT_SPARE.fullmatch(size) else count + math.ceil(count * SPARE)
