"""What the service can be told to refuse, so that clients can be seen to cope: quota, roles, preemption, and so on.

phikit rehearsal refuse quota                  # until it is switched off
phikit rehearsal refuse throttle --times 3     # three times
phikit rehearsal refuse --none                 # all off

They lie in the store, so that a refusal that is switched on outside of the emulator counts from the next call on.
"""

from __future__ import annotations

from typing import Any

from devtools.errors import BadInput, nearest
from devtools.rehearsal.store import Store

KIND = "refusals"
#: Each refusal, and what comes of it.
NAMES = {
    "quota": "computes and deployments: not enough quota for the VM family",
    "role": "writes of the control plane (--on WORD: those whose action holds it): 403 AuthorizationFailed",
    "sku": "computes and deployments: the size is not offered in the region",
    "preempt": "the node of a running low-priority job is taken away; the job is queued again",
    "node-loss": "the node of a running job is lost; the job fails",
    "image-pull": "the image of a job or deployment cannot be pulled",
    "slow": "provisioning takes --seconds longer",
    "throttle": "every call: 429 TooManyRequests with Retry-After",
    "unavailable": "every call: 503 ServiceUnavailable with Retry-After",
    "expired-token": "every call: 401 ExpiredAuthenticationToken",
    "probe": "deployments: the container's probes fail",
    "storage-write": "storage: what is handed out allows no writing",
    "name-taken": "endpoints: the name is taken by somebody else in the region",
    "job-fails": "jobs: the command ends with exit code 1",
}
#: Options beside `times`, with what holds where nothing is said.
OPTIONS: dict[str, dict[str, Any]] = {
    "slow": {"seconds": 5},
    # (what a job without checkpoints has run for by then)
    "preempt": {"seconds": 60},
    "node-loss": {"seconds": 60},
    "role": {"on": ""},
    "throttle": {"seconds": 1},
    "unavailable": {"seconds": 1},
}


class Refusals:
    """Those that are on; any number of processes may switch and ask."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def switch_on(self, name: str, times: int | None = None, **options: Any) -> None:
        """Refuse from now on, `times` times (None: until it is switched off).

        Raises:
            BadInput: there is no such refusal, or it has no such option.
        """
        _known(name)
        known = OPTIONS.get(name, {})
        if odd := sorted(set(options) - set(known)):
            raise BadInput([f"refuse {name}: has no option --{option}; {nearest(option, known)}" for option in odd])
        self._store.put(KIND, name, known | options | {"times": times})

    def switch_off(self, name: str | None = None) -> None:
        """End one refusal, or all of them; raises BadInput where there is no such one."""
        if name:
            _known(name)
        for known in [name] if name else list(NAMES):
            self._store.delete(KIND, known)

    def take(self, name: str) -> dict[str, Any] | None:
        """The options of a refusal that is on, counted down; None when it is off.

        Raises:
            KeyError: there is no such refusal.
        """
        if not self.is_on(name):
            return None
        taken: dict[str, Any] | None = None

        def count(body: dict[str, Any]) -> dict[str, Any]:
            nonlocal taken
            if body["times"] == 0:
                return body
            taken = body
            return body if body["times"] is None else body | {"times": body["times"] - 1}

        self._store.change(KIND, name, count)
        return taken

    def peek(self, name: str) -> dict[str, Any] | None:
        """The options of a refusal that is on, not counted; None when it is off."""
        NAMES[name]
        found = self._store.get(KIND, name)
        return found if found and found["times"] != 0 else None

    def is_on(self, name: str) -> bool:
        """Whether the next `take` takes something."""
        return self.peek(name) is not None

    def all(self) -> dict[str, dict[str, Any]]:
        """Those that are on, with their options."""
        return {name: body for name, body in self._store.all(KIND) if body["times"] != 0}


def _known(name: str) -> None:
    if name not in NAMES:
        raise BadInput(f"refuse {name}: there is no such refusal; {nearest(name, NAMES)}")
