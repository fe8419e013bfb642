"""What the service checks of endpoints and deployments before it takes them: names, traffic, probes, numbers.

validation.endpoint_name("phikit")
validation.traffic({"blue": 90, "green": 10}, {"blue", "green"})
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from devtools.rehearsal.endpoints import wording
from devtools.rehearsal.wire import WireError

_NAME = re.compile(r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
SHORTEST, LONGEST = 3, 32
AUTH_MODES = ("Key", "AMLToken", "AADToken")
#: Percent of the traffic that may be mirrored, and seconds that a request may take, at most.
MIRRORED = 50
LONGEST_REQUEST = 180.0
#: What holds where nothing is said: of a probe, and of requests.
PROBE = {
    "failureThreshold": 30,
    "successThreshold": 1,
    "timeout": "PT2S",
    "period": "PT10S",
    "initialDelay": "PT10S",
}
REQUESTS = {"maxConcurrentRequestsPerInstance": 1, "requestTimeout": "PT5S", "maxQueueWait": "PT0.5S"}
_DURATION = re.compile(r"^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$")


def endpoint_name(name: str) -> None:
    """Raise WireError unless an endpoint may be called so."""
    _check_name("endpoint", name)


def deployment_name(name: str) -> None:
    """Raise WireError unless a deployment may be called so."""
    _check_name("deployment", name)


def auth_mode(sent: Any) -> str:
    """The mode as the service writes it; raises WireError for none of them."""
    known = {mode.lower(): mode for mode in AUTH_MODES}
    found = known.get(str(sent or "").lower())
    if found is None:
        raise wording.user_error(f"authMode {sent!r} is none of {', '.join(AUTH_MODES)}.")
    return found


def traffic(sent: Any, deployments: Collection[str]) -> dict[str, int]:
    """Percentages by the deployments' own names.

    Raises:
        WireError: they are no whole numbers from 0 to 100, sum up to neither 0 nor 100, or go where nothing is.
    """
    found = _percentages("traffic", sent, deployments)
    total = sum(found.values())
    if total not in (0, 100):
        raise wording.invalid("Traffic", f"Traffic percentages must sum to 0 or 100, but they sum to {total}.")
    return found


def mirror_traffic(sent: Any, deployments: Collection[str], live: dict[str, int]) -> dict[str, int]:
    """The same for mirrored traffic: to one deployment that has no traffic of its own, half of it at most."""
    found = {name: percent for name, percent in _percentages("mirrorTraffic", sent, deployments).items() if percent}
    if len(found) > 1 or any(percent > MIRRORED for percent in found.values()):
        raise wording.invalid(
            "MirrorTraffic", f"Traffic can be mirrored to one deployment only, {MIRRORED} percent at most."
        )
    for name in found:
        if live.get(name):
            raise wording.invalid("MirrorTraffic", f"Deployment {name} cannot receive live and mirror traffic.")
    return found


def probe(sent: Any, which: str) -> dict[str, Any]:
    """A probe's settings, whole: what is not said has the service's defaults."""
    sent = sent or {}
    if not isinstance(sent, dict):
        raise wording.user_error(f"{which} must be an object.")
    told = _whole(sent, PROBE)
    for name in ("failureThreshold", "successThreshold"):
        if not isinstance(told[name], int) or told[name] < 1:
            raise wording.user_error(f"{which}.{name} {told[name]!r} must be a whole number above 0.")
    for name in ("timeout", "period", "initialDelay"):
        if seconds(told[name], f"{which}.{name}") < (0 if name == "initialDelay" else 1):
            raise wording.user_error(f"{which}.{name} {told[name]} must be at least one second.")
    if which == "livenessProbe" and told["successThreshold"] != 1:
        raise wording.user_error("livenessProbe.successThreshold must be 1.")
    return told


def request_settings(sent: Any) -> dict[str, Any]:
    """How many requests at once, and for how long, whole."""
    told = _whole(sent or {}, REQUESTS)
    concurrent = told["maxConcurrentRequestsPerInstance"]
    if not isinstance(concurrent, int) or concurrent < 1:
        raise wording.user_error(f"maxConcurrentRequestsPerInstance {concurrent!r} must be a whole number above 0.")
    if not 0 < seconds(told["requestTimeout"], "requestTimeout") <= LONGEST_REQUEST:
        raise wording.invalid(
            "RequestSettings.RequestTimeout",
            f"The request timeout must be above 0 and at most {LONGEST_REQUEST * 1000:.0f} milliseconds.",
            code=wording.DEPLOYMENT,
        )
    return told


def seconds(duration: Any, what: str = "duration") -> float:
    """An ISO 8601 duration in seconds; raises WireError when it is none."""
    found = _DURATION.match(duration) if isinstance(duration, str) else None
    if found is None or not any(found.groups()):
        raise wording.user_error(f"{what} {duration!r} is no duration as ISO 8601 writes it, such as PT10S.")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _whole(sent: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: default if sent.get(name) is None else sent[name] for name, default in defaults.items()}


def _check_name(what: str, name: str) -> None:
    if not SHORTEST <= len(name) <= LONGEST:
        raise _bad_name(what, name, f"must be at least {SHORTEST} and at most {LONGEST} characters long")
    if not _NAME.match(name):
        raise _bad_name(
            what,
            name,
            "must begin with a letter, consist of letters, digits and dashes, and end in a letter or a digit",
        )


def _bad_name(what: str, name: str, problem: str) -> WireError:
    return wording.invalid(f"{what.capitalize()}Name", f"The {what} name '{name}' is invalid: it {problem}.")


def _percentages(field: str, sent: Any, deployments: Collection[str]) -> dict[str, int]:
    if not isinstance(sent or {}, dict):
        raise wording.user_error(f"{field} must be an object of percentages by deployment.")
    names = {name.lower(): name for name in deployments}
    found: dict[str, int] = {}
    for name, percent in (sent or {}).items():
        if not isinstance(percent, int) or isinstance(percent, bool) or not 0 <= percent <= 100:
            raise wording.invalid(field, f"{field} of {name} must be a whole number from 0 to 100, not {percent!r}.")
        if name.lower() not in names:
            raise wording.invalid(field, f"Deployment {name}, which {field} is to go to, does not exist.")
        found[names[name.lower()]] = percent
    return found
