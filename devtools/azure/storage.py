"""The workspace's default blob container: where runs lie, and what says that a deployment goes on.

container(workspace).list_blobs(name_starts_with="phikit/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.azure.workspace import Workspace

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


def container(workspace: Workspace) -> ContainerClient:
    """The container of the workspace's default datastore, with its own credential, or else as who signed in.

    Callers are inside of `told`.
    """
    from azure.storage.blob import ContainerClient

    store = workspace.client.datastores.get_default(include_secrets=True)
    told = store.credentials
    credential = getattr(told, "sas_token", None) or getattr(told, "account_key", None) or workspace.credential
    return ContainerClient(
        f"{store.protocol}://{store.account_name}.blob.{store.endpoint}", store.container_name, credential=credential
    )
