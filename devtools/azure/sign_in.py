"""Who the kit is on Azure: the first way that gives a token, chosen once a command.

PHIKIT_AZURE_SIGN_IN=auto|cli|device|environment|workload|managed

auto tries, in this order, what can work here: the Azure CLI; a device code, if a person is at the terminal; an
application's secret; a workload identity's token file; a managed identity, if this machine is one of Azure's. The kit
writes no token to a file.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.azure.progress import say
from devtools.errors import BadInput, nearest
from devtools.settings import Settings, inherited

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

SCOPE = "https://management.azure.com/.default"
WAYS = ("cli", "device", "environment", "workload", "managed")
#: What Azure's own hosts name the service that hands out managed identities' tokens with.
MANAGED_VARIABLES = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")
#: The asset tag of Azure's virtual machines (learn.microsoft.com: "Azure Instance Metadata Service").
ASSET_TAG = Path("/sys/class/dmi/id/chassis_asset_tag")
AZURE_ASSET = "7783-7084-3265-9085-8269-3286-77"
FIXES = {
    "cli": "install the Azure CLI and run: az login",
    "device": "run this in a terminal, or PHIKIT_AZURE_SIGN_IN=device",
    "environment": "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    "workload": "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE",
    "managed": "run this on a machine of Azure's that has an identity",
}


@dataclass(frozen=True)
class Identity:
    """Who signed in, and how."""

    credential: TokenCredential
    way: str
    who: str
    """A person's name, or an application's id."""
    object_id: str
    """What role assignments name it by."""
    tenant: str


def sign_in(settings: Settings) -> Identity:
    """Sign in; minutes only where a person has a device code to type.

    Raises:
        BadInput: no way leads in; each that was tried, why not, and what mends it.
    """
    asked = settings.azure_sign_in or "auto"
    if asked not in (*WAYS, "auto"):
        raise BadInput(f"PHIKIT_AZURE_SIGN_IN={asked}: is no way to sign in; {nearest(asked, (*WAYS, 'auto'))}")
    findings: list[str] = []
    for way in WAYS if asked == "auto" else [asked]:
        reason = _impossible(way, settings, named=asked == way)
        if reason is None:
            try:
                return _signed_in(way, settings)
            except _Refused as error:
                reason = str(error)
        findings.append(f"{way}: {reason}; {FIXES[way]}")
    raise BadInput(["not signed in to Azure: no way leads in", *findings] if len(findings) > 1 else findings)


class _Refused(Exception):
    """A way that led nowhere, and why, on one line."""


def _impossible(way: str, settings: Settings, named: bool) -> str | None:
    """Why a way need not be tried here; None: it can be."""
    if way == "cli" and shutil.which("az") is None:
        return "there is no program az"
    if way == "device" and not named and not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "nobody is at a terminal to type a code"
    wanted = {"environment": settings.azure_client_secret, "workload": settings.azure_token_file}
    if way in wanted and not (settings.azure_tenant and settings.azure_client and wanted[way]):
        return "its variables are not all set"
    if way == "managed" and not named and not _is_azures():
        return "this machine is none of Azure's"
    return None


def _is_azures() -> bool:
    if any(inherited().get(name) for name in MANAGED_VARIABLES):
        return True
    try:
        return ASSET_TAG.read_text().strip() == AZURE_ASSET
    except OSError:
        return False


def _signed_in(way: str, settings: Settings) -> Identity:
    from azure.core.exceptions import AzureError

    try:
        with _quiet():
            credential = _credential(way, settings)
            token = credential.get_token(SCOPE).token
    except (AzureError, ValueError) as error:
        raise _Refused(_reason(str(error), settings)) from error
    claims = _claims(token)
    who = claims.get("upn") or claims.get("unique_name") or claims.get("preferred_username") or claims.get("appid", "")
    return Identity(credential, way, str(who), str(claims.get("oid", "")), str(claims.get("tid", "")))


def _credential(way: str, settings: Settings) -> TokenCredential:
    from azure import identity

    tenant, client = settings.azure_tenant, settings.azure_client
    make: dict[str, Callable[[], TokenCredential]] = {
        "cli": lambda: identity.AzureCliCredential(tenant_id=tenant or "", process_timeout=30),
        # (without a client id: that of the Azure CLI, as the library has it)
        "device": lambda: identity.DeviceCodeCredential(
            **({"tenant_id": tenant} if tenant else {}), prompt_callback=_show_code
        ),
        "environment": lambda: identity.ClientSecretCredential(tenant, client, settings.azure_client_secret),
        "workload": lambda: identity.WorkloadIdentityCredential(
            tenant_id=tenant, client_id=client, token_file_path=settings.azure_token_file
        ),
        "managed": lambda: identity.ManagedIdentityCredential(**({"client_id": client} if client else {})),
    }
    return make[way]()


def _show_code(address: str, code: str, _: object) -> None:
    say(f"to sign in: open {address} and type the code {code}")


def _reason(text: str, settings: Settings) -> str:
    """Why a library's refusal came about, on one line."""
    line = " ".join(text.split())
    if "az login" in line:
        line = "the Azure CLI is not signed in (az login)"
    elif "AADSTS7000215" in line:
        line = "AZURE_CLIENT_SECRET is wrong (AADSTS7000215)"
    elif "AADSTS90002" in line or "Unable to get authority configuration" in line:
        line = f"AZURE_TENANT_ID={settings.azure_tenant}: there is no such tenant"
    elif "AADSTS700016" in line:
        line = f"AZURE_CLIENT_ID={settings.azure_client}: there is no such application there (AADSTS700016)"
    return line[:240]


def _claims(token: str) -> dict[str, object]:
    """What a token says of its bearer; nothing where it is none that can be read. It is the service that checks it."""
    try:
        part = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own warnings: what is to be said of a failure is said here."""
    import logging

    library = logging.getLogger("azure.identity")
    before = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(before)
