"""A machine without a Docker engine: jobs are processes there, and somebody else's program does not notice."""

import json
import subprocess
import sys
from pathlib import Path

from devtools.rehearsal import GROUP, SUBSCRIPTION, WORKSPACE, session
from devtools.settings import ROOT

PROGRAM = Path(__file__).with_name("programs") / "submit_by_builder.py"


def test_somebody_elses_job_without_an_engine(rehearsal, tmp_path):
    told = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "workspace_name": WORKSPACE}
    (tmp_path / "config.json").write_text(json.dumps(told))
    home = tmp_path / "home"
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "devtools.cli",
                "rehearsal",
                "run",
                "--",
                sys.executable,
                PROGRAM,
                tmp_path / "work",
            ],
            cwd=ROOT,
            env=rehearsal.outside | {"PHIKIT_REHEARSAL_HOME": str(home), "PHIKIT_REHEARSAL_RUNNER": "process"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        facts = session.running(home)
    finally:
        session.end(home)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert facts["runner"] == "process"
    assert "fitted a line" in done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.pop("name")
    assert said == {"status": "Completed", "slope": 2.0, "summary": "fitted lines"}
