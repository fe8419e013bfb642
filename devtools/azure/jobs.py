"""The kit's jobs in the workspace: which there are, how one stands, its log, its end.

rows = listed(workspace)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from devtools.azure import submission
from devtools.azure.refusals import told
from devtools.azure.submission import ENDED
from devtools.azure.tags import KEY, is_ours
from devtools.azure.workspace import Workspace
from devtools.errors import BadInput
from devtools.runs import LATEST, Runs
from devtools.settings import ROOT

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

#: Jobs that are shown at most, and those that are looked through for them.
SHOWN, LOOKED = 50, 500
#: A job's name, or a run's.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def listed(workspace: Workspace) -> list[Job]:
    """The kit's own jobs, newest first."""
    with told("jobs"):
        return list(islice(_ours(workspace), SHOWN))


def running(workspace: Workspace) -> list[Job]:
    """Those that have not ended."""
    with told("jobs"):
        return [job for job in _ours(workspace) if submission.state_of(job) not in ENDED]


def _ours(workspace: Workspace) -> Iterator[Job]:
    # (the service looks for the tag's name alone)
    found = islice(workspace.client.jobs.list(tag=KEY), LOOKED)
    return (job for job in found if is_ours(job.tags))


def find(workspace: Workspace, name: str | None) -> Job:
    """A job by its own name or its run's; without a name the newest one of the kit's.

    Raises:
        BadInput: there is none.
    """
    if name is None:
        newest = next(iter(listed(workspace)), None)
        if newest is None:
            raise BadInput("JOB: this workspace has no job of the kit's yet; phikit azure train")
        return newest
    if not NAME.fullmatch(name):
        raise BadInput(f"JOB {name[:80]}: is no job's name; `phikit azure list` shows those that there are")
    record = submission.Record.read(Runs(ROOT / "runs").get(name)) if _is_run(name) else None
    job = submission.find(workspace, record.job if record and record.job else name)
    if job is None:
        raise BadInput(f"JOB {name[:80]}: the workspace has no such job; `phikit azure list` shows those it has")
    return job


def _is_run(name: str) -> bool:
    return name != LATEST and (ROOT / "runs" / name / submission.RECORD).is_file()
