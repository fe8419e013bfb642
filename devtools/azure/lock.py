"""One roll-out of an endpoint at a time, from whichever machine: a lease on a blob of the workspace's storage.

with held(workspace, "my-endpoint") as lock: ...

The storage gives the lease to one of those who ask, and takes it back from whoever has not renewed it for LEASE
seconds: what a killed process held is free again by itself. A process of this machine that is gone is not waited for.
Who holds it since when stands in the blob's metadata.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.azure import storage
from devtools.azure.refusals import is_missing, told
from devtools.azure.submission import PLACE
from devtools.azure.workspace import Workspace
from devtools.errors import KitError
from devtools.owner import is_alive, of_process

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobLeaseClient, BlobProperties

#: Seconds that a lease lasts without being renewed (the longest that there is), and between two renewals.
LEASE, RENEWED = 60, 15
#: What tells one start of a machine, and one container's process ids, from those of all others.
BOOT, PROCESSES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
#: How often somebody else's blob is looked at anew when it went in between.
ATTEMPTS = 5


class Lock:
    """A lease that is held, and kept alive in the background."""

    def __init__(self, workspace: Workspace, name: str, blob: BlobClient, lease: BlobLeaseClient) -> None:
        self._workspace, self._name = workspace, name
        self._blob, self._lease = blob, lease
        self._over = threading.Event()
        self._renewed = time.monotonic()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name=f"lease of {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise KitError when the lease was lost: somebody else may be at it."""
        if self._lost or time.monotonic() - self._renewed > LEASE:
            raise KitError(
                f"endpoint {self._name}: the storage was out of reach, and another deployment may have begun; "
                "give the same command again; it goes on"
            )

    def end(self) -> None:
        """Let it go: the blob is removed, lease and all; what cannot be removed is free once the lease runs out."""
        from azure.core.exceptions import AzureError

        self._over.set()
        self._thread.join()
        with suppress(AzureError):
            self._blob.delete_blob(lease=self._lease)

    def _renew(self) -> None:
        from azure.core.exceptions import AzureError, HttpResponseError

        while not self._over.wait(RENEWED):
            begun = time.monotonic()
            try:
                self._lease.renew()
            except HttpResponseError as error:
                # (another status than these may pass)
                self._lost = self._lost or error.status_code in (404, 409, 412)
                if error.status_code in (401, 403):
                    self._sign_in_again()
            except AzureError:
                continue
            else:
                self._renewed = begun

    def _sign_in_again(self) -> None:
        """Take a new credential of the storage: those that the workspace hands out are good for an hour."""
        from azure.storage.blob import BlobLeaseClient

        with suppress(KitError), told(f"lock of endpoint {self._name}"):
            self._blob = _blob(self._workspace, self._name)
            self._lease = BlobLeaseClient(self._blob, lease_id=self._lease.id)


@contextmanager
def held(workspace: Workspace, name: str) -> Iterator[Lock]:
    """Hold an endpoint; raises KitError where another roll-out of it goes on."""
    with told(f"lock of endpoint {name}"):
        blob = _blob(workspace, name)
        lease = _acquired(blob, workspace, name)
    lock = Lock(workspace, name, blob, lease)
    try:
        yield lock
    finally:
        lock.end()


def refuse_held(workspace: Workspace, name: str) -> None:
    """Raise KitError where a roll-out of the endpoint goes on; takes nothing."""
    with told(f"lock of endpoint {name}"):
        properties = _properties(_blob(workspace, name))
    if properties and properties.lease.state == "leased" and not _is_dead(properties):
        raise _refusal(properties, name)


def _blob(workspace: Workspace, name: str) -> BlobClient:
    return storage.container(workspace).get_blob_client(f"{PLACE}/locks/{name.lower()}")


def _properties(blob: BlobClient) -> BlobProperties | None:
    from azure.core.exceptions import AzureError

    try:
        return blob.get_blob_properties()
    except AzureError as error:
        if not is_missing(error):
            raise
    return None


def _acquired(blob: BlobClient, workspace: Workspace, name: str) -> BlobLeaseClient:
    """The lease, with our name on it.

    Whoever takes it writes the name while holding it, and whoever breaks a dead one's does so only if the blob is still
    as the dead one left it: of several at once, one gets through.
    """
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError, ResourceExistsError

    properties = None
    for _ in range(ATTEMPTS):
        with suppress(ResourceExistsError):
            blob.upload_blob(b"", overwrite=False)
        try:
            lease = blob.acquire_lease(lease_duration=LEASE)
            blob.set_blob_metadata(_mine(workspace), lease=lease)
            return lease
        except HttpResponseError as error:
            if error.status_code not in (404, 409, 412):
                raise
        properties = _properties(blob)
        if properties is None or properties.lease.state != "leased":
            continue
        if not _is_dead(properties):
            break
        with suppress(HttpResponseError):
            _lease_of(blob).break_lease(
                lease_break_period=0, etag=properties.etag, match_condition=MatchConditions.IfNotModified
            )
    raise _refusal(properties, name)


def _lease_of(blob: BlobClient) -> BlobLeaseClient:
    from azure.storage.blob import BlobLeaseClient

    return BlobLeaseClient(blob)


def _mine(workspace: Workspace) -> dict[str, str]:
    who = workspace.identity.who.encode("ascii", "replace").decode()
    since = str(int(time.time()))
    return {"who": who, "process": of_process(os.getpid()), "space": _space(), "since": since}


def _space() -> str:
    """What tells this machine, as long as it is up, and this container's processes from those of all others."""
    try:
        told = BOOT.read_text(encoding="ascii") + str(PROCESSES.readlink())
    except OSError:
        return ""
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _is_dead(properties: BlobProperties) -> bool:
    """Whether the lease's holder is a process of this machine that is gone."""
    told = properties.metadata or {}
    return bool(told.get("space")) and told["space"] == _space() and not is_alive(told.get("process", ""))


def _refusal(properties: BlobProperties | None, name: str) -> KitError:
    told = (properties.metadata if properties else None) or {}
    whose = told.get("who", "somebody")
    host, _, rest = told.get("process", "").partition("/")
    if host:
        whose += f" (process {rest.partition('/')[0]} on {'this machine' if host == socket.gethostname() else host})"
    since = told.get("since", "")
    minutes = f" since {(time.time() - int(since)) / 60:.0f} min" if since.isdecimal() else ""
    return KitError(
        f"endpoint {name}: another deployment of it goes on{minutes}, by {whose}; wait until it is done "
        f"(one that was killed is over after {LEASE} s)"
    )
