"""One workspace of Azure Machine Learning, signed in to.

workspace = connect(Settings.load())
workspace.client.compute.list()
workspace.arm("GET", f"{workspace.id}/usages", "2024-10-01")
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from devtools.azure.progress import say
from devtools.azure.refusals import told
from devtools.azure.sign_in import SCOPE, Identity, sign_in
from devtools.errors import BadInput
from devtools.settings import Settings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

ARM = "https://management.azure.com"
API_VERSION = "2024-10-01"
#: The settings that say which workspace, with what shows their values.
WHICH = {
    "azure_subscription": ("AZURE_SUBSCRIPTION_ID", "az account list --output table"),
    "azure_group": ("AZURE_RESOURCE_GROUP", "az group list --output table"),
    "azure_workspace": ("AZURE_WORKSPACE", "az ml workspace list --output table"),
}


@dataclass(frozen=True)
class Workspace:
    """A workspace, and who works in it."""

    client: MLClient
    identity: Identity
    settings: Settings
    subscription: str
    group: str
    name: str

    @property
    def credential(self) -> TokenCredential:
        """What gives tokens."""
        return self.identity.credential

    @property
    def group_id(self) -> str:
        """The resource group's id."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"

    @property
    def id(self) -> str:
        """The workspace's id."""
        return f"{self.group_id}/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The workspace as Azure Resource Manager has it: `location`, `identity`, `properties`."""
        with told(f"workspace {self.name}"):
            return self.arm("GET", self.id, API_VERSION)

    @property
    def location(self) -> str:
        """Its region, such as `eastus2`."""
        return self.facts["location"]

    def linked(self, what: str) -> str:
        """The id of `storageAccount`, `containerRegistry` or `keyVault`; empty where the workspace has none."""
        return self.facts["properties"].get(what) or ""

    def studio(self, path: str) -> str:
        """The studio's page of something in the workspace: `endpoints/realtime/NAME`."""
        return f"https://ml.azure.com/{path}?wsid={self.id}&tid={self.identity.tenant}"

    def arm(
        self, method: str, path: str, api_version: str, body: Any = None, query: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """A call of Azure Resource Manager that the SDK has no method for; retried where that can help.

        Raises:
            HttpResponseError: it refuses; callers are inside of `told`.
        """
        from azure.core.rest import HttpRequest

        request = HttpRequest(
            method, ARM + path, params={"api-version": api_version} | (query or {}), json=body if body else None
        )
        response = self._pipeline.send_request(request)
        if response.status_code >= 400:
            from azure.core.exceptions import (
                ClientAuthenticationError,
                HttpResponseError,
                ResourceNotFoundError,
                map_error,
            )
            from azure.mgmt.core.exceptions import ARMErrorFormat

            map_error(response.status_code, response, {401: ClientAuthenticationError, 404: ResourceNotFoundError})
            raise HttpResponseError(response=response, error_format=ARMErrorFormat)
        return response.json() if response.content else {}

    @cached_property
    def _pipeline(self) -> Any:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy, UserAgentPolicy

        policies = [
            UserAgentPolicy("phikit"),
            RetryPolicy(retry_total=5),
            BearerTokenCredentialPolicy(self.credential, SCOPE),
        ]
        return PipelineClient(ARM, policies=policies)


def connect(settings: Settings) -> Workspace:
    """Sign in to the workspace that the settings name, and say on stderr who and where.

    Raises:
        BadInput: settings are missing, or no way to sign in leads in; all of it at once.
    """
    findings = [
        f"{variable}: is not set; `{shows}` shows what there is (or rehearse it without an account: REHEARSE=1)"
        for field, (variable, shows) in WHICH.items()
        if not getattr(settings, field)
    ]
    identity = None
    try:
        identity = sign_in(settings)
    except BadInput as error:
        findings += error.findings
    if findings or identity is None:
        raise BadInput(findings)
    subscription, group, name = (str(getattr(settings, field)) for field in WHICH)
    workspace = Workspace(
        client=_client(identity.credential, subscription, group, name),
        identity=identity,
        settings=settings,
        subscription=subscription,
        group=group,
        name=name,
    )
    where = f"workspace {name} in {group}, {workspace.location}"
    say(f"signed in as {identity.who} ({identity.way}); {where}")
    return workspace


def _client(credential: TokenCredential, subscription: str, group: str, name: str) -> MLClient:
    import logging

    from azure.ai.ml import MLClient

    # what it warns of is said where it matters, in the kit's own words
    for library in ("azure.ai.ml", "azure.identity", "azure.core", "msrest"):
        logging.getLogger(library).setLevel(logging.ERROR)
    return MLClient(
        credential,
        subscription,
        group,
        name,
        show_progress=sys.stderr.isatty(),
        enable_telemetry=False,
        logging_enable=False,
    )


@contextmanager
def uploading() -> Iterator[None]:
    """Where the SDK uploads: its progress bar at a terminal; elsewhere nothing of the colours that it would write."""
    if sys.stderr.isatty():
        yield
        return
    with redirect_stderr(io.StringIO()):
        yield
