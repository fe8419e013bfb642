"""The page's settings, from the environment alone.

    python -c 'from flows.page.settings import Settings; print(Settings.load())'      # passwords are left out

PHIKIT_CHAT_<NAME> sets the field <name>, PHIKIT_FLOW_URI the flow; an empty one counts as unset. Every wrong one is
reported at once. Where conversations are kept: flows/history/__init__.py.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "PHIKIT_CHAT_"
FLOW_URI = "PHIKIT_FLOW_URI"
BASE_URI = "PHIKIT_BASE_ENDPOINT_URI"
#: Characters of the shortest password.
SHORTEST = 8


class BadInput(Exception):
    """Settings that cannot be used; each finding names the variable and what would do."""

    def __init__(self, findings: list[str]) -> None:
        self.findings = findings
        super().__init__("\n".join(findings))


@dataclass(frozen=True)
class Settings:
    """What the page was told; defaults are those of a machine of one's own."""

    flow: str = "http://127.0.0.1:8080/score"
    """The flow that answers."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than loopback asks for logins, or for `anonymous`."""
    port: int = 7860
    """Port to listen on; 0 takes a free one, which the log names."""
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Passwords by user; each user has conversations of their own. Empty: no login, one user."""
    anonymous: bool = False
    """1: no login on any address; for containers whose port is published to loopback or guarded."""
    run: Path = Path("runs/latest")
    """Run folder whose name, metrics and report are shown."""
    compare: bool = False
    """1: the flow knows the base model too, so answers can be compared."""
    names: frozenset[str] = frozenset()
    """Names under which the page may be reached without a login, besides localhost and addresses; comma-separated."""

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Raises:
            BadInput: every variable that cannot be used, with what would do.
        """
        told = {name: text.strip() for name, text in (environment or os.environ).items() if text.strip()}
        findings = [
            f"{name}: there is no such setting"
            for name in sorted(told)
            if name.startswith(PREFIX) and name[len(PREFIX) :].lower() not in {f.name for f in fields(cls)} - {"flow"}
        ]
        flow = told.get(FLOW_URI, cls.flow)
        if not _is_address(flow):
            findings.append(f"{FLOW_URI} {flow!r}: must be the flow's address, as {cls.flow}")
        text = told.get(f"{PREFIX}PORT", str(cls.port))
        port = int(text) if text.isdecimal() else -1
        if not 0 <= port < 65536:
            findings.append(f"{PREFIX}PORT {text!r}: must be 0 to 65535")
        settings = cls(
            flow=flow,
            host=told.get(f"{PREFIX}HOST", cls.host),
            port=port,
            logins=_logins(told.get(f"{PREFIX}LOGINS", ""), findings),
            anonymous=_switch(f"{PREFIX}ANONYMOUS", told, False, findings),
            names=frozenset(filter(None, map(str.strip, told.get(f"{PREFIX}NAMES", "").lower().split(",")))),
            run=Path(told.get(f"{PREFIX}RUN", cls.run)),
            # a page that reads the same environment as the flow sees for itself whether there is a base model
            compare=_switch(f"{PREFIX}COMPARE", told, BASE_URI in told, findings),
        )
        if not settings.logins and not settings.anonymous and not _is_loopback(settings.host):
            findings.append(
                f"{PREFIX}HOST {settings.host!r}: others could read the conversations; set {PREFIX}LOGINS, or "
                f"{PREFIX}ANONYMOUS=1 where something else guards the port"
            )
        if findings:
            raise BadInput(findings)
        return settings


def variables() -> dict[str, str]:
    """Every variable that the page reads, by the field it sets."""
    return {f.name: FLOW_URI if f.name == "flow" else PREFIX + f.name.upper() for f in fields(Settings)}


def _switch(name: str, told: Mapping[str, str], default: bool, findings: list[str]) -> bool:
    text = told.get(name, "1" if default else "0").lower()
    if text not in ("0", "1", "true", "false"):
        findings.append(f"{name} {text!r}: must be 0 or 1")
    return text in ("1", "true")


def _logins(text: str, findings: list[str]) -> dict[str, str]:
    """`name:password` pairs, comma-separated; what is wrong with one is said without showing it."""
    logins: dict[str, str] = {}
    for place, pair in enumerate((part.strip() for part in text.split(",") if part.strip()), 1):
        name, colon, password = pair.partition(":")
        if not colon or not name or len(password) < SHORTEST:
            findings.append(
                f"{PREFIX}LOGINS, number {place}: must be name:password with {SHORTEST} or more characters of password"
            )
        elif name in logins:
            findings.append(f"{PREFIX}LOGINS, number {place}: its name occurs twice")
        logins[name] = password
    return logins


def _is_address(uri: str) -> bool:
    """Whether it is an http address, with a port that is one if it has any."""
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
