"""Where the endpoint answers and with which key: fetched when it is asked for, kept nowhere.

phikit azure connect -- make flow-test
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from devtools.azure import endpoint
from devtools.azure.workspace import Workspace, connect
from devtools.errors import BadInput, KitError
from devtools.settings import Settings, inherited


def variables(workspace: Workspace, asked: str | None = None) -> dict[str, str]:
    """PHIKIT_ENDPOINT_URI and PHIKIT_ENDPOINT_KEY of the endpoint, as flows/endpoint.py reads them.

    Raises:
        BadInput: there is no such endpoint.
        KitError: nothing answers behind it.
    """
    name = endpoint.name_of(workspace, asked)
    found = endpoint.require(workspace, name)
    if endpoint.live(found) is None:
        raise KitError(f"endpoint {name}: no deployment gets traffic; phikit azure deploy")
    key = endpoint.keys(workspace, name).primary_key
    return {"PHIKIT_ENDPOINT_URI": found.scoring_uri, "PHIKIT_ENDPOINT_KEY": key}


def run(settings: Settings, asked: str | None, command: Sequence[str]) -> None:
    """Run a command with these variables, in place of this process; raises BadInput when it cannot be run."""
    findings = endpoint.check(settings, asked)
    if shutil.which(command[0]) is None:
        findings.append(f"COMMAND {command[0][:80]}: there is no such program")
    if findings:
        raise BadInput(findings)
    told = variables(connect(settings), asked)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        # signals and the exit code are the command's own
        os.execvpe(command[0], list(command), inherited() | told)
    except OSError as error:
        raise BadInput(f"COMMAND {command[0]}: cannot be run: {error.strerror}") from error
