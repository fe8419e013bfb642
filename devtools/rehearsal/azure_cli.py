"""The stand-in for the Azure CLI: as much of `az` as programs ask for a token, an account, a version.

az account get-access-token --resource https://management.azure.com --output json
az logout; az login --use-device-code

A script of the rehearsal's (home/bin/az) starts it, first on the PATH of every program that runs there. Its tokens come
from the emulator's sign-in, through the proxy, as the real one's come from Entra. It starts with Python's own library
alone: clients give it ten seconds, and call it often.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from devtools.rehearsal import LOGIN_HOST, SUBSCRIPTION, TENANT

USER = "rehearsal@example.com"
#: The application that the Azure CLI is, for Entra.
CLIENT = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
ARM = "https://management.core.windows.net/"
VERSION = "2.80.0"
PROFILE = "az.json"
COMMANDS = ("version", "login", "logout", "account show", "account list", "account set", "account get-access-token")
SIGNED_OUT = "Please run 'az login' to setup account."


class Refused(Exception):
    """A line on stderr, and an exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Words(argparse.ArgumentParser):
    """Options of a command; anything else is refused in a line."""

    def error(self, message: str) -> NoReturn:
        """Raises Refused."""
        raise Refused(f"the rehearsal's az: {message}", 2)


def write_script(home: Path, root: Path, refresh_token: str) -> None:
    """Have `az` in home/bin, signed in unless somebody signed out."""
    script = home / "bin" / "az"
    script.parent.mkdir(exist_ok=True)
    words = [sys.executable, "-P", "-m", "devtools.rehearsal.azure_cli", str(home)]
    script.write_text(
        "#!/bin/sh\n# The rehearsal's stand-in for the Azure CLI.\n"
        f'PYTHONPATH={shlex.quote(str(root))} exec {shlex.join(words)} "$@"\n'
    )
    script.chmod(0o755)
    profile = home / PROFILE
    if not profile.exists():
        _remember(profile, refresh_token)


def main(home: Path, words: list[str]) -> int:
    """Do what the words ask for; the exit code."""
    try:
        said = _answer(home, words)
    except Refused as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return error.code
    if said is not None:
        print(said)
    return 0


def _answer(home: Path, words: list[str]) -> str | None:
    if words in (["--version"], ["-v"]):
        return f"azure-cli                         {VERSION} *"
    command = next((name for name in COMMANDS if words[: name.count(" ") + 1] == name.split()), None)
    if command is None:
        asked = " ".join(words[:3])
        raise Refused(f"az {asked}: the rehearsal's az knows these alone: {', '.join(COMMANDS)}", 2)
    parser = Words(prog="az", add_help=False, allow_abbrev=False)
    parser.add_argument("--output", "-o", choices=["json", "jsonc", "tsv", "none"], default="json")
    parser.add_argument("--query")
    parser.add_argument("--only-show-errors", action="store_true")
    if command != "version":
        parser.add_argument("--subscription", "--name", "-s", "-n")
        parser.add_argument("--tenant", "-t", default=TENANT)
    if command == "login":
        parser.add_argument("--use-device-code", action="store_true")
    if command == "account get-access-token":
        parser.add_argument("--resource", default=ARM)
        parser.add_argument("--scope", nargs="+")
        parser.add_argument("--resource-type", choices=["arm"])
    told = parser.parse_args(words[command.count(" ") + 1 :])
    return _written(_done(home, command, told), told)


def _done(home: Path, command: str, told: argparse.Namespace) -> Any:
    profile = home / PROFILE
    if command == "version":
        return {"azure-cli": VERSION, "azure-cli-core": VERSION, "azure-cli-telemetry": "1.1.0", "extensions": {}}
    if command == "login":
        _remember(profile, _signed_in(home, told.tenant))
        return [_account()]
    refresh_token = _remembered(profile)
    if refresh_token is None:
        raise Refused(SIGNED_OUT)
    if command == "logout":
        _remember(profile, None)
        return None
    if told.subscription and told.subscription.lower() not in (SUBSCRIPTION, _account()["name"].lower()):
        raise Refused(f"Subscription '{told.subscription}' not found. Check the spelling and casing and try again.")
    if command == "account set":
        return None
    if command != "account get-access-token":
        return _account() if command == "account show" else [_account()]
    scope = " ".join(told.scope) if told.scope else f"{told.resource.rstrip('/')}/.default"
    form = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": refresh_token, "scope": scope}
    answer = _post(home, told.tenant, "token", form)
    ends = int(time.time()) + answer["expires_in"]
    return {
        "accessToken": answer["access_token"],
        "expiresOn": datetime.fromtimestamp(ends).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "expires_on": ends,
        "subscription": SUBSCRIPTION,
        "tenant": told.tenant,
        "tokenType": "Bearer",
    }


def _signed_in(home: Path, tenant: str) -> str:
    """Sign in with a device code, as `az login` does where there is no browser; a refresh token."""
    flow = _post(home, tenant, "devicecode", {"client_id": CLIENT, "scope": f"{ARM}/.default offline_access"})
    print(flow["message"], file=sys.stderr)
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": CLIENT}
    form["device_code"] = flow["device_code"]
    while "error" in (answer := _post(home, tenant, "token", form, pending=True)):
        # the service says how often it may be asked
        time.sleep(flow["interval"])
    return answer["refresh_token"]


def _post(home: Path, tenant: str, what: str, form: dict[str, str], *, pending: bool = False) -> dict[str, Any]:
    """Ask the sign-in service, through the proxy; raises Refused with what it says."""
    import http.client
    import ssl
    from urllib.parse import quote, urlencode

    try:
        port = json.loads((home / "running.json").read_text(encoding="utf-8"))["proxy_port"]
        trust = ssl.create_default_context(cafile=str(home / "ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=10)
        connection.set_tunnel(LOGIN_HOST, 443)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", f"/{quote(tenant)}/oauth2/v2.0/{what}", urlencode(form), headers)
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        raise Refused(f"the rehearsal does not answer ({error}): phikit rehearsal up") from error
    if "error" in answer and not (pending and answer["error"] == "authorization_pending"):
        raise Refused(answer["error_description"])
    return answer


def _account() -> dict[str, Any]:
    return {
        "environmentName": "AzureCloud",
        "homeTenantId": TENANT,
        "id": SUBSCRIPTION,
        "isDefault": True,
        "managedByTenants": [],
        "name": "Rehearsal",
        "state": "Enabled",
        "tenantId": TENANT,
        "user": {"name": USER, "type": "user"},
    }


def _remember(profile: Path, refresh_token: str | None) -> None:
    profile.touch(mode=0o600)
    profile.write_text(json.dumps({"refresh_token": refresh_token}), encoding="utf-8")


def _remembered(profile: Path) -> str | None:
    try:
        return json.loads(profile.read_text(encoding="utf-8"))["refresh_token"]
    except (OSError, ValueError, KeyError):
        return None


def _written(value: Any, told: argparse.Namespace) -> str | None:
    """A result as it was asked for: whole or a field of it, JSON or bare."""
    for key in told.query.split(".") if told.query else ():
        if not isinstance(value, dict) or key not in value:
            raise Refused(f"the rehearsal's az: --query {told.query}: names of fields alone, such as user.name", 2)
        value = value[key]
    if value is None or told.output == "none":
        return None
    if told.output == "tsv":
        fields = value.values() if isinstance(value, dict) else [value]
        return "\t".join(field if isinstance(field, str) else json.dumps(field) for field in fields)
    return json.dumps(value, indent=2)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
