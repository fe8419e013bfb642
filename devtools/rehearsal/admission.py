"""Who is let in: the token, what the path names, and what the emulator was told to refuse of the whole service.

    claims = admit(rehearsal, route, params, "PUT", "management.azure.com", "/subscriptions/...", headers)

In Azure's order: who asks, whether the service has time, whether what is asked about is there, whether one may.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from devtools.rehearsal import GROUP, LOGIN_HOST, MANAGEMENT_HOST, SUBSCRIPTION
from devtools.rehearsal.identity import tokens
from devtools.rehearsal.wire import Route, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

PROVIDERS = "/providers/"


def admit(
    rehearsal: Rehearsal,
    route: Route,
    params: Mapping[str, str],
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
) -> dict[str, Any]:
    """The claims of the caller's token, empty where the route asks for none.

    Raises:
        WireError: the call is refused before its handler sees it.
    """
    claims: dict[str, Any] = {}
    if route.asks_token:
        allowed = tokens.CONTROL_PLANE if host == MANAGEMENT_HOST else tokens.DATA_PLANE
        claims = tokens.check(rehearsal.store, headers.get("authorization"), allowed)
        if rehearsal.refusals.take("expired-token"):
            raise tokens.expired(time.time() - 1)
    if host != LOGIN_HOST and route.asks_token:
        _out_of_time(rehearsal)
    _there(rehearsal, params)
    if host == MANAGEMENT_HOST and method in ("PUT", "POST", "PATCH", "DELETE"):
        _may(rehearsal, claims, method, path)
    return claims


def _out_of_time(rehearsal: Rehearsal) -> None:
    if told := rehearsal.refusals.take("throttle"):
        raise WireError(
            429,
            "TooManyRequests",
            "The request is being throttled as the limit has been reached for operation type. Please try again later.",
            headers={"Retry-After": str(told["seconds"])},
        )
    if told := rehearsal.refusals.take("unavailable"):
        raise WireError(
            503,
            "ServiceUnavailable",
            "The service is temporarily unable to process the request. Please try again later.",
            headers={"Retry-After": str(told["seconds"])},
        )


def _there(rehearsal: Rehearsal, params: Mapping[str, str]) -> None:
    subscription, group, workspace = (params.get(name) for name in ("subscription", "group", "workspace"))
    if subscription and subscription.lower() != SUBSCRIPTION:
        message = f"The subscription '{subscription}' could not be found."
        raise WireError(404, "SubscriptionNotFound", message)
    if group and group.lower() != GROUP:
        raise WireError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
    if workspace and rehearsal.store.get("workspaces", workspace) is None:
        raise WireError(
            404,
            "ResourceNotFound",
            f"The Resource 'Microsoft.MachineLearningServices/workspaces/{workspace}' under resource group '{group}' "
            "was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        )


def _may(rehearsal: Rehearsal, claims: Mapping[str, Any], method: str, path: str) -> None:
    action = action_of(method, path)
    only = (rehearsal.refusals.peek("role") or {}).get("on") or ""
    if only.lower() in action.lower() and rehearsal.refusals.take("role"):
        who = claims.get("oid", "")
        raise WireError(
            403,
            "AuthorizationFailed",
            f"The client '{claims.get('appid', '')}' with object id '{who}' does not have authorization to perform "
            f"action '{action}' over scope '{path}' or the scope is invalid. If access was recently granted, please "
            "refresh your credentials.",
        )


def action_of(method: str, path: str) -> str:
    """What a call does, in the words of role definitions: Microsoft.MachineLearningServices/workspaces/jobs/write."""
    provider, *rest = path.rpartition(PROVIDERS)[2].strip("/").split("/")
    # types and names take turns; what stands behind the last name is the action itself
    action = "/".join([provider, *rest[::2]])
    verbs = {"PUT": "write", "PATCH": "write", "DELETE": "delete"}
    return f"{action}/{verbs.get(method, 'action')}"
