"""What Azure has for the kit, and what is missing with its fix: asked before anything is made or spent.

phikit azure check
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from devtools.azure import compute, prices, quota, registry
from devtools.azure.refusals import told
from devtools.azure.workspace import Workspace
from devtools.errors import BadInput, KitError

OK, WARN, FAIL = "ok", "warn", "fail"
AUTHORIZATION = "2022-04-01"
IDENTITIES = "2023-01-31"
#: The roles that the endpoint's identity needs (T4), and where: the workspace's own resources.
ROLES = {"AcrPull": "containerRegistry", "Storage Blob Data Reader": "storageAccount"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str
    level: str
    text: str
    fix: str = ""


def examine(workspace: Workspace) -> list[Finding]:
    """Every finding; changes nothing, and takes some seconds."""
    me = workspace.identity
    findings = [
        Finding("sign-in", OK, f"{me.who}, by {me.way}, in tenant {me.tenant}"),
        Finding("workspace", OK, f"{workspace.name} in {workspace.group}, {workspace.location}"),
    ]
    for area, look in (
        ("storage", _storage),
        ("registry", _registry),
        ("identity", _identity),
        ("CPU cluster", lambda workspace: _cluster(workspace, gpu=False)),
        ("GPU cluster", lambda workspace: _cluster(workspace, gpu=True)),
        ("endpoint", _endpoint),
    ):
        findings += _looked_at(area, look, workspace)
    return findings


def can_train(findings: list[Finding]) -> bool:
    """Whether nothing that is needed is missing."""
    return not any(finding.level == FAIL for finding in findings)


def _looked_at(area: str, look: Callable[[Workspace], Iterator[Finding]], workspace: Workspace) -> Iterator[Finding]:
    """The findings of one area; a refusal is one of them."""
    # (a GPU is not needed for everything)
    level = WARN if area == "GPU cluster" else FAIL
    try:
        yield from (Finding(area, one.level, one.text, one.fix) for one in look(workspace))
    except BadInput as error:
        yield from (Finding(area, level, *_split(line)) for line in error.findings)
    except KitError as error:
        yield Finding(area, level, *_split(str(error)))


def _split(line: str) -> tuple[str, str]:
    text, _, fix = line.partition("; ")
    return text, fix


def _storage(workspace: Workspace) -> Iterator[Finding]:
    with told("storage"):
        store = workspace.client.datastores.get_default()
    yield Finding("", OK, f"{store.account_name}/{store.container_name}")


def _registry(workspace: Workspace) -> Iterator[Finding]:
    if not workspace.linked("containerRegistry"):
        yield Finding("", WARN, "the workspace has none yet", "PHIKIT_AZURE_IMAGE=build makes Azure add one")
        return
    yield Finding("", OK, f"{registry.of(workspace).server}, and it lets you in")


def _identity(workspace: Workspace) -> Iterator[Finding]:
    wanted = workspace.settings.azure_identity
    if not wanted:
        yield Finding("", OK, "the endpoint gets one of its own (PHIKIT_AZURE_IDENTITY names another)")
        return
    with told(f"PHIKIT_AZURE_IDENTITY {wanted.rpartition('/')[2]}"):
        principal = workspace.arm("GET", wanted, IDENTITIES)["properties"]["principalId"]
    yield Finding("", OK, wanted.rpartition("/")[2])
    for role, what in ROLES.items():
        scope = workspace.linked(what)
        try:
            has = role in _roles(workspace, scope, principal) if scope else True
        except KitError as error:
            # (who may deploy need not be one who may see what others may)
            yield Finding("", WARN, f"whether it has {role} cannot be looked at: {_split(str(error))[0]}")
            continue
        if not has:
            fix = f"az role assignment create --role '{role}' --assignee {principal} --scope {scope}"
            yield Finding("", WARN, f"has no {role} on {scope.rpartition('/')[2]}", fix)


def _roles(workspace: Workspace, scope: str, principal: str) -> set[str]:
    """Names of the roles that somebody has there, or above it."""
    with told("roles"):
        wanted = {"$filter": f"principalId eq '{principal}'"}
        found = workspace.arm(
            "GET", f"{scope}/providers/Microsoft.Authorization/roleAssignments", AUTHORIZATION, query=wanted
        )
        ids = {one["properties"]["roleDefinitionId"] for one in found["value"]}
        return {workspace.arm("GET", one, AUTHORIZATION)["properties"]["roleName"] for one in ids}


def _cluster(workspace: Workspace, gpu: bool) -> Iterator[Finding]:
    profile = compute.profile_of(workspace.settings, gpu)
    offer = compute.examine(workspace, profile)
    size = quota.find(workspace, offer.size)
    room = quota.room(workspace, size, offer.low)
    left = f", {room.free} of {room.limit} cores left" if room else ""
    state = "is there" if offer.cluster else "is made when it is needed"
    yield Finding("", OK, f"{profile.name} {state}: {offer.size}, {prices.an_hour(offer.hourly)}{left}")


def _endpoint(workspace: Workspace) -> Iterator[Finding]:
    from devtools.azure import endpoint

    name = endpoint.name_of(workspace)
    instance = endpoint.instance_of(workspace.settings)
    size = quota.find(workspace, instance, "PHIKIT_AZURE_INSTANCE")
    price = prices.hourly(size.name, workspace.location)
    there = endpoint.find(workspace, name)
    if there is None:
        quota.check(workspace, size, 1, endpoint=True)
    state = f"is there: {there.scoring_uri}" if there else "is made by phikit azure deploy"
    yield Finding("", OK, f"{name} {state}; {size.name}, {prices.an_hour(price)}")
