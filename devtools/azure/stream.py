"""A job's log as it is written, and its state as it changes, until it ends; a network that goes is waited for.

status = follow(workspace, name)

The log is a blob that grows: what is new is asked for by range, with the address that the run history gives for it.
"""

from __future__ import annotations

import codecs
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from devtools.azure.progress import WORD, say
from devtools.azure.refusals import explained, told
from devtools.azure.sign_in import SCOPE
from devtools.azure.submission import ENDED
from devtools.azure.workspace import Workspace
from devtools.errors import KitError

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import AccessToken

#: The log of the command itself, as the service names it, and that of an image that is built before (azure-ai-ml's own
#: patterns).
LOGS = (re.compile(r"user_logs/std_log\D*0*(_ps)?\.txt"), re.compile(r"azureml-logs/20_image_build_log\.txt"))
#: Seconds between two looks, and how long a service that is out of reach, or does not know the job yet, is waited for.
PERIOD, PATIENCE, NEW = 1.0, 600.0, 60.0
TIMEOUT = 30
#: Seconds that a token has to be good for.
LEFT = 300


class Follower:
    """One job that is looked at again and again."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        import requests

        self._workspace = workspace
        self._http = requests.Session()
        self._name = name
        self._api = ""
        self._token: AccessToken | None = None
        self._state = ""
        self._begun = self._last = time.monotonic()
        self._log = ""
        self._read = 0
        self._text = _decoder()
        self._unreadable = False

    def follow(self) -> str:
        """Print log and states until the job has ended; its last state.

        Raises:
            KitError: the sign-in has run out, or the service is out of reach for longer than PATIENCE. The job goes on.
        """
        lost: float | None = None
        with interruptible() as check:
            while True:
                try:
                    details = self.details()
                    self._say(details["status"])
                    self._print_new(details)
                    if details["status"] in ENDED:
                        return details["status"]
                    if lost is not None:
                        say("job: Azure answers again")
                    lost = None
                except Exception as error:
                    lost = self._wait_or_give_up(error, lost)
                check()
                threading.Event().wait(PERIOD)

    def print_so_far(self) -> None:
        """Print what there is of the log."""
        with told(f"job {self._name}"):
            self._print_new(self.details())

    def details(self) -> dict[str, Any]:
        """The run history's view: `status`, `logFiles` with an address each."""
        if not self._api:
            discovery = self._get(self._workspace.facts["properties"]["discoveryUrl"])
            discovery.raise_for_status()
            self._api = discovery.json()["api"]
        address = f"{self._api}/history/v1.0{self._workspace.id}/runs/{self._name}/details"
        for _ in range(2):
            answer = self._get(address, Authorization=f"Bearer {self._bearer()}")
            if answer.status_code != 401:
                break
            # (a token may be taken back before its time is over)
            self._token = None
        answer.raise_for_status()
        return answer.json()

    def _get(self, address: str, **headers: str) -> requests.Response:
        return self._http.get(address, headers=headers, timeout=TIMEOUT)

    def _bearer(self) -> str:
        """A token, asked for when the last one is about to run out: the Azure CLI takes a second for each."""
        if self._token is None or self._token.expires_on - time.time() < LEFT:
            self._token = self._workspace.credential.get_token(SCOPE)
        return self._token.token

    def _wait_or_give_up(self, error: Exception, lost: float | None) -> float | None:
        """Since when the service is out of reach, if it is; raises KitError when waiting is of no use."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from requests.exceptions import HTTPError, RequestException

        if not isinstance(error, AzureError | RequestException):
            raise error
        goes_on = f"the job goes on: phikit azure logs {self._name} --follow"
        now = time.monotonic()
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, ClientAuthenticationError) or status == 401:
            raise KitError(f"job {self._name}: the sign-in has run out; az login, and {goes_on}") from error
        if status == 404 and now - self._begun < NEW:
            return lost
        if isinstance(error, HTTPError) and status is not None and status < 500 and status != 429:
            raise KitError(f"{explained(error, f'job {self._name}')}; {goes_on}") from error
        if lost is None:
            say(f"job: Azure cannot be reached; trying again, {goes_on}")
            return now
        if now - lost > PATIENCE:
            raise KitError(f"job {self._name}: Azure cannot be reached for {PATIENCE:.0f} s; {goes_on}") from error
        return lost

    def _say(self, state: str) -> None:
        """Say a state that is new; and one that lasts, while nothing else is said."""
        now = time.monotonic()
        if state != self._state or now - self._last > WORD:
            self._state, self._last = state, now
            say(f"job: {state} ({now - self._begun:.0f} s)")

    def _print_new(self, details: dict[str, Any]) -> None:
        files = details.get("logFiles") or {}
        log = next((name for pattern in LOGS for name in sorted(files) if pattern.fullmatch(name)), None)
        if log is None:
            return
        if log != self._log:
            self._log = log
            self._begin_log()
        answer = self._get(files[log], Range=f"bytes={self._read}-")
        if answer.status_code == 416:
            # nothing is new; or another node begins it again
            if _length(answer) < self._read:
                say(f"job: {log} begins again")
                self._begin_log()
            return
        if answer.status_code in (403, 404):
            # (404: it is not written yet)
            if answer.status_code == 403 and not self._unreadable:
                self._unreadable = True
                where = studio(self._workspace, self._name)
                say(f"job: its log may not be read from here ({answer.reason}); the studio shows it: {where}")
            return
        answer.raise_for_status()
        new = answer.content if answer.status_code == 206 else answer.content[self._read :]
        self._read += len(new)
        if new:
            self._last = time.monotonic()
            sys.stdout.write(self._text.decode(new))
            sys.stdout.flush()

    def _begin_log(self) -> None:
        self._read, self._text = 0, _decoder()


def follow(workspace: Workspace, name: str) -> str:
    """Follow a job to its end; see Follower."""
    say(f"job: {name}, {studio(workspace, name)}")
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


def _length(answer: requests.Response) -> int:
    """How long a blob is that has nothing in the range that was asked for."""
    said = answer.headers.get("Content-Range", "").rpartition("/")[2]
    # (storage that does not say: as long as what was read)
    return int(said) if said.isdecimal() else sys.maxsize


def _decoder() -> codecs.IncrementalDecoder:
    """Of text that comes in pieces, which may end within a letter."""
    return codecs.getincrementaldecoder("utf-8")("replace")


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Yield a check that raises a KeyboardInterrupt which got lost: in a finalizer, Python prints it and goes on."""
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    def check() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # (somebody else hears it, or nobody is to)
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
