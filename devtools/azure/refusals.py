"""What Azure refuses, as one line with its fix, never a traceback.

with told("cluster cpu-e16s-v3"):
    client.compute.begin_create_or_update(...).result()

The codes are Azure Resource Manager's and the machine learning service's own (learn.microsoft.com: "Troubleshoot common
Azure deployment errors", "Troubleshoot online endpoint deployment").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from devtools.errors import BadInput, KitError

if TYPE_CHECKING:
    import requests

#: Characters of the service's own words.
SHOWN = 300
TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
#: Where the service's own words go on.
GUIDE = re.compile(r"\s*Please see (the )?troubleshooting guide[^\n\"]*", re.IGNORECASE)
#: What an address asks for: it may be signed, and whoever has the signature has the blob.
QUERY = re.compile(r"\?[^\s?]*=\S*?(?=[)\]}'\">.,;:]*(?:\s|$))")
AGAIN = "give the same command again; it goes on"
#: Answers that another try may not get: too slow, too many, and all of 500 and more.
PASSING = (408, 429)
QUOTA = "ask for more in the portal (Azure Machine Learning, Quota), take a smaller size, or another region"
#: What mends it, by what is looked for in the code and the message, in this order.
FIXES: dict[str, tuple[str, ...]] = {
    "check AZURE_SUBSCRIPTION_ID: az account list --output table": ("SubscriptionNotFound",),
    "check AZURE_RESOURCE_GROUP: az group list --output table": ("ResourceGroupNotFound",),
    "check AZURE_WORKSPACE": ("workspaces/[^/]+' under resource group .* was not found", "WorkspaceNotFound"),
    "sign in again: az login": (
        "ExpiredAuthenticationToken",
        r"InvalidAuthenticationToken\b",
        "token (is|has) expired",
    ),
    "set AZURE_TENANT_ID to its tenant, or: az login --tenant TENANT": ("InvalidAuthenticationTokenTenant",),
    "a policy of the subscription forbids it; ask who owns the subscription": ("RequestDisallowedByPolicy",),
    QUOTA: ("CoreQuota", "OutOfQuota", "QuotaExceeded", "not enough quota", "InsufficientQuota", "quota"),
    "name another size, or a workspace in a region that has it": (
        "SkuNotAvailable",
        "InvalidVmSize",
        "VMSize is not a supported",
        "VMSizeNotSupported",
        "is not supported for managed online deployments",
        "not (supported|available|offered) in .*(region|location)",
    ),
    "choose another name: PHIKIT_AZURE_ENDPOINT": (
        "NameNotAvailable",
        "NameTaken",
        "There is already an endpoint with this name",
        "already (taken|in use|exists in (the|this) region)",
    ),
    "give the identity the role AcrPull on the registry": (
        "AcrPull",
        "does not have pull permission",
        "pull.*(denied|unauthorized|forbidden)",
    ),
    "check that the image is in the registry: phikit azure image": (
        "ImagePull",
        "ImageBuildFailure",
        "Unable to download user container image",
        "image .*(not found|cannot be pulled|could not be pulled)",
    ),
    "give yourself the role Storage Blob Data Contributor on the workspace's storage account": (
        "AuthorizationPermissionMismatch",
        "AuthorizationFailure",
    ),
    "its container's log says why": ("ResourceNotReady", "User container has crashed"),
    "wait a minute and give the same command again": ("TooManyRequests",),
    AGAIN: (
        "ServiceUnavailable",
        "InternalServerError",
        "ServerBusy",
        "GatewayTimeout",
        r"because it is in .* provisioning state",
    ),
}


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Say what goes wrong inside as one line that begins with what was being done.

    Raises:
        BadInput: the settings or the request are wrong.
        KitError: the service refuses, or cannot be reached.
    """
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError
    from requests.exceptions import RequestException

    try:
        yield
    except KitError:
        raise
    except (AzureError, MlException, RequestException) as error:
        raise explained(error, doing) from error


def explained(error: Exception, doing: str) -> KitError:
    """The one line for an error of Azure's libraries."""
    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
    from requests.exceptions import ChunkedEncodingError, ConnectionError, HTTPError, RequestException, Timeout

    unreached = (ServiceRequestError, ServiceResponseError, ConnectionError, Timeout, ChunkedEncodingError)
    if isinstance(error, unreached):
        return KitError(f"{doing}: Azure cannot be reached ({_line(error)}); {AGAIN}")
    if isinstance(error, HTTPError) and error.response is not None:
        return KitError(f"{doing}: {_answered(error.response)}")
    if isinstance(error, RequestException):
        # an answer of something else, such as a proxy's page, or an address that is none
        return KitError(f"{doing}: {_line(error)}; phikit azure check says what is missing")
    code, message = code_of(error), _line(error)
    if code and message.startswith(f"({code})"):
        message = message.removeprefix(f"({code})").strip()
    said = message if not code or code in message else f"{message} ({code})"
    if code == "AuthorizationFailed":
        return KitError(f"{doing}: {_role(' '.join(str(error).split()))}")
    whole = f"{code} {message}"
    fix = next((fix for fix, words in FIXES.items() if re.search("|".join(words), whole, re.IGNORECASE)), None)
    status = getattr(error, "status_code", None)
    if fix is None and status == 401:
        fix = "sign in again: az login"
    elif fix is None and status is None and not isinstance(error, HttpResponseError):
        # the SDK itself finds fault with what it was given
        return BadInput(f"{doing}: {said}")
    request = getattr(getattr(error, "response", None), "headers", {}).get("x-ms-request-id")
    end = fix or (f"request {request}" if request else "phikit azure check says what is missing")
    wrong = code in ("SubscriptionNotFound", "ResourceGroupNotFound") or ("workspaces/" in message and status == 404)
    return (BadInput if wrong else KitError)(f"{doing}: {said}; {end}")


def code_of(error: Exception) -> str:
    """The service's code for what it refused, as deep as it says one; empty where there is none."""
    found: Any = getattr(error, "error", None)
    code = ""
    while found is not None:
        code = getattr(found, "code", None) or code
        found = getattr(found, "innererror", None) if not isinstance(found, dict) else None
        if isinstance(found, dict):
            code = found.get("code", code)
            break
    if not code and (match := re.match(r"\((\w+)\)", str(error))):
        code = match[1]
    return code


def is_missing(error: Exception) -> bool:
    """Whether the service says that there is no such thing."""
    from azure.core.exceptions import ResourceNotFoundError

    return isinstance(error, ResourceNotFoundError) or getattr(error, "status_code", None) == 404


def _answered(answer: requests.Response) -> str:
    """What an answer without a code of the service's says by its status, and what mends it."""
    status = answer.status_code
    said = one_line(f"{status} {answer.reason or ''}")
    is_registry = ".azurecr." in (urlsplit(answer.url or "").hostname or "")
    if status == 401:
        # (a registry says so, too, to whom it does not allow it)
        more = "; where that does not help, you need the role AcrPull on it, AcrPush to push" if is_registry else ""
        return f"does not let you in ({said}); sign in again: az login{more}"
    if status == 403:
        role = "AcrPull on it, AcrPush to push" if is_registry else "AzureML Data Scientist on the workspace"
        return f"you may not do that ({said}); have somebody give you the role {role}"
    if status in PASSING or status >= 500:
        return f"Azure cannot do that now ({said}); {AGAIN}"
    return f"Azure answers {said}; phikit azure check says what is missing"


def _role(message: str) -> str:
    """A missing role: who may not do what where, and the command that mends it."""
    action = re.search(r"action '([^']+)'", message)
    scope = re.search(r"scope '([^']+)'", message)
    who = re.search(r"object id '([^']+)'", message)
    if not (action and scope):
        return f"{message}; ask for a role that allows it"
    at = re.match(r"(/subscriptions/[^/]+/resourceGroups/[^/]+(?:/providers/[^/]+/[^/]+/[^/]+)?)", scope[1])
    role = "AcrPush" if "ContainerRegistry" in action[1] else "AzureML Data Scientist"
    if "computes" in action[1]:
        role = "AzureML Compute Operator"
    return (
        f"you may not do {action[1]}; have somebody give you the role: az role assignment create --role '{role}' "
        f"--assignee {who[1] if who else 'YOU'} --scope {at[1] if at else scope[1]}"
    )


def _line(error: Exception) -> str:
    """The error's own words on one line, without codes repeated or addresses of help pages."""
    text = getattr(error, "message", None) or str(error)
    # what is wrong with a request stands in the details alone
    details = [one.message for one in getattr(getattr(error, "error", None), "details", None) or [] if one.message]
    if details and re.match(r"\W*\w*\W*The request is invalid", str(text)):
        text = " ".join(details)
    text = GUIDE.sub("", TERMINAL.sub("", str(text)))
    return one_line(re.split(r"\n(?:Code|Target|Exception Details|Additional Information):", text)[0])


def one_line(text: object) -> str:
    """Somebody else's words as they may be printed: on one line, without colours, no secret in an address."""
    plain = QUERY.sub("", TERMINAL.sub("", str(text)))
    return " ".join(plain.split())[:SHOWN].rstrip(" .:")
