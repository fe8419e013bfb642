"""A job's log as it is written, and its state as it changes, until it ends; a network that goes is waited for.

status = follow(workspace, name)

The log is a blob that grows: what is new is asked for by range, with the address that the run history gives for it.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from devtools.azure.refusals import explained, told
from devtools.azure.sign_in import SCOPE
from devtools.azure.submission import ENDED
from devtools.azure.workspace import Workspace
from devtools.errors import KitError

#: The log of the command itself.
LOG = "user_logs/std_log.txt"
#: Seconds between two looks, and how long a service that is out of reach is waited for.
PERIOD, PATIENCE = 1.0, 600.0
TIMEOUT = 30


class Follower:
    """One job that is looked at again and again."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace = workspace
        self._name = name
        self._api = ""
        self._read = 0
        self._state = ""
        self._begun = time.monotonic()

    def follow(self) -> str:
        """Print log and states until the job has ended; its last state.

        Raises:
            KitError: the sign-in has run out, or the service is out of reach for longer than PATIENCE. The job goes on.
        """
        lost: float | None = None
        while True:
            try:
                details = self.details()
                self._say(details["status"])
                self._print_new(details)
                if details["status"] in ENDED:
                    return details["status"]
                if lost is not None:
                    print("job: Azure answers again", file=sys.stderr, flush=True)
                lost = None
            except Exception as error:
                lost = self._wait_or_give_up(error, lost)
            threading.Event().wait(PERIOD)

    def print_so_far(self) -> None:
        """Print what there is of the log."""
        with told(f"job {self._name}"):
            self._print_new(self.details())

    def _wait_or_give_up(self, error: Exception, lost: float | None) -> float:
        """Since when the service is out of reach; raises KitError when waiting is of no use."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from requests.exceptions import HTTPError, RequestException

        if not isinstance(error, AzureError | RequestException):
            raise error
        goes_on = f"the job goes on: phikit azure logs {self._name} --follow"
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(error, ClientAuthenticationError) or status == 401:
            raise KitError(f"job {self._name}: the sign-in has run out; az login, and {goes_on}") from error
        if isinstance(error, HTTPError) and status is not None and status < 500 and status != 429:
            raise KitError(f"{explained(error, f'job {self._name}')}; {goes_on}") from error
        now = time.monotonic()
        if lost is None:
            print(f"job: Azure cannot be reached; trying again, {goes_on}", file=sys.stderr, flush=True)
            return now
        if now - lost > PATIENCE:
            raise KitError(f"job {self._name}: Azure cannot be reached for {PATIENCE:.0f} s; {goes_on}") from error
        return lost

    def _say(self, state: str) -> None:
        if state != self._state:
            self._state = state
            seconds = time.monotonic() - self._begun
            print(f"job: {state} ({seconds:.0f} s)", file=sys.stderr, flush=True)

    def details(self) -> dict[str, Any]:
        """The run history's view: `status`, `logFiles` with an address each."""
        import requests

        if not self._api:
            discovery = requests.get(self._workspace.facts["properties"]["discoveryUrl"], timeout=TIMEOUT)
            discovery.raise_for_status()
            self._api = discovery.json()["api"]
        token = self._workspace.credential.get_token(SCOPE).token
        address = f"{self._api}/history/v1.0{self._workspace.id}/runs/{self._name}/details"
        answer = requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.json()

    def _print_new(self, details: dict[str, Any]) -> None:
        import requests

        address = (details.get("logFiles") or {}).get(LOG)
        if not address:
            return
        answer = requests.get(address, headers={"Range": f"bytes={self._read}-"}, timeout=TIMEOUT)
        if answer.status_code in (requests.codes.not_found, requests.codes.requested_range_not_satisfiable):
            # (not written yet, or nothing new)
            return
        answer.raise_for_status()
        new = answer.content if answer.status_code == requests.codes.partial_content else answer.content[self._read :]
        self._read += len(new)
        sys.stdout.write(new.decode("utf-8", "replace"))
        sys.stdout.flush()


def follow(workspace: Workspace, name: str) -> str:
    """Follow a job to its end; see Follower."""
    print(f"job: {name}, {studio(workspace, name)}", file=sys.stderr, flush=True)
    return Follower(workspace, name).follow()


def studio(workspace: Workspace, name: str) -> str:
    """The studio's page of a job."""
    return workspace.studio(f"runs/{name}")


def error_of(workspace: Workspace, name: str) -> str:
    """Why a job failed, in the service's words; empty where it does not say."""
    follower = Follower(workspace, name)
    with told(f"job {name}"):
        error = (follower.details().get("error") or {}).get("error") or {}
    code, message = error.get("code", ""), " ".join(str(error.get("message", "")).split())
    return f"{message} ({code})" if code else message
