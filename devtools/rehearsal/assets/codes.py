"""Codes: folders that jobs run. A client asks by content hash whether one is there, else for a place to upload it to.

Each gets a container of its own, so that what is uploaded is never mixed with something else.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any
from urllib.parse import urlsplit

from devtools.rehearsal import BLOB_HOST, MANAGEMENT_HOST
from devtools.rehearsal.assets.asset import Asset
from devtools.rehearsal.storage.routes import HOURS, permissions
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, Route, WireError, page
from devtools.rehearsal.workspaces.documents import STORAGE_ID


class Codes(Asset):
    """Codes, by name (a GUID that the client makes) and version."""

    kind = "codes"
    title = "Code"
    fixed = ("codeUri",)

    def checked(self, call: Call, sent: dict[str, Any]) -> dict[str, Any]:
        """Where it lies: in the workspace's storage."""
        uri = str(sent.get("codeUri") or "")
        if urlsplit(uri).hostname != BLOB_HOST:
            raise WireError(
                400, "UserError", f"codeUri {uri!r} is not in the workspace's storage account ({BLOB_HOST})."
            )
        return {"codeUri": uri}

    def list_versions(self, call: Call) -> Document:
        """Versions of one name; with `hash`, the code of that content, whatever its name. None is an empty list."""
        wanted = call.query.get("hash")
        if not wanted:
            return page(self._versions(call, call.params["name"])[::-1])
        found = [document for _, document in call.rehearsal.store.all(self.kind)]
        return page([one for one in found if one["properties"]["properties"].get("hash_sha256") == wanted])

    def start_upload(self, call: Call) -> dict[str, Any]:
        """An empty container and a signature to fill it with."""
        name, version = call.params["name"], call.params["version"]
        self.check_names(name, version)
        blobs = call.rehearsal.blobs
        container = "code-" + hashlib.sha256(f"{name}/{version}".lower().encode()).hexdigest()[:40]
        blobs.ensure_container(container)
        uri = blobs.url(container, sas=False)
        return {
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": uri,
                "storageAccountArmId": STORAGE_ID,
                "credential": {
                    "credentialType": "SAS",
                    "sasUri": f"{uri}?{blobs.sas(container, permissions(call.rehearsal), HOURS)}",
                },
            },
        }

    def routes(self) -> list[Route]:
        """The usual ones, and the start of an upload."""
        versions = next(route.path for route in super().routes() if route.path.endswith("/versions/{version}"))
        return [*super().routes(), Route("POST", MANAGEMENT_HOST, f"{versions}/startPendingUpload", self.start_upload)]
