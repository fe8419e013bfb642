"""Every way to sign in, with the real credentials of azure-identity; and what is said where none leads in."""

import os
import pty
import re
import select
import shutil
import time
from pathlib import Path

import pytest

from devtools.rehearsal import CLIENT, TENANT

CLI = "the Azure CLI"


def without_az(rehearsed) -> str:
    """A search path without the stand-in az, nor this machine's own."""
    kept = [place for place in rehearsed.client["PATH"].split(os.pathsep) if not (Path(place) / "az").exists()]
    return os.pathsep.join(kept)


def who(done) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("signed in as ")]
    return line


def test_the_first_way_that_works_is_taken(rehearsed):
    assert "rehearsal@example.com (cli)" in who(rehearsed.phikit("azure", "list"))
    done = rehearsed.phikit("azure", "list", PATH=without_az(rehearsed))
    assert f"{CLIENT} (environment)" in who(done)


def test_a_way_that_is_named_is_taken(rehearsed):
    done = rehearsed.phikit("azure", "list", PHIKIT_AZURE_SIGN_IN="environment")
    assert f"{CLIENT} (environment)" in who(done)


def test_a_workload_identity(rehearsed, tmp_path):
    token = tmp_path / "token"
    token.write_text("a token of the cluster's own")
    done = rehearsed.phikit(
        "azure", "list", PHIKIT_AZURE_SIGN_IN="workload", AZURE_FEDERATED_TOKEN_FILE=str(token), AZURE_CLIENT_SECRET=""
    )
    assert f"{CLIENT} (workload)" in who(done), done.stderr


def test_a_device_code(rehearsed):
    ours, theirs = pty.openpty()
    process = rehearsed.start("azure", "list", terminal=theirs, PHIKIT_AZURE_SIGN_IN="device")
    os.close(theirs)
    said = read_until(ours, r"\(device\)")
    assert re.search(r"open \S+ and type the code \w+", said)
    assert process.wait(timeout=60) == 0
    os.close(ours)


def test_nobody_at_a_terminal_is_asked_for_a_code(rehearsed):
    none = {"AZURE_CLIENT_SECRET": "", "PATH": without_az(rehearsed)}
    begun = time.monotonic()
    done = rehearsed.phikit("azure", "list", **none)
    assert time.monotonic() - begun < 20
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert "no way leads in" in lines[0]
    for line, way in zip(lines[1:], ("cli", "device", "environment", "workload", "managed"), strict=True):
        assert line.startswith(f"error: {way}: ")
        # each says what mends it
        assert "; " in line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"AZURE_CLIENT_SECRET": "wrong"}, "AZURE_CLIENT_SECRET is wrong"),
        ({"AZURE_TENANT_ID": "00000000-0000-0000-0000-00000000dead"}, "there is no such tenant"),
    ],
)
def test_what_is_wrong_is_named(rehearsed, settings, said):
    done = rehearsed.phikit("azure", "list", PHIKIT_AZURE_SIGN_IN="environment", **settings)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_an_az_that_is_not_signed_in(rehearsed):
    run = ("rehearsal", "run", "--", "az")
    home = {"PHIKIT_REHEARSAL_HOME": str(rehearsed.home)}
    assert rehearsed.phikit(*run, "logout", **home).returncode == 0
    try:
        done = rehearsed.phikit("azure", "list", PHIKIT_AZURE_SIGN_IN="cli")
        assert done.returncode == 2
        assert f"{CLI} is not signed in" in done.stderr
        # the next way is taken where there is one
        assert "(environment)" in who(rehearsed.phikit("azure", "list"))
    finally:
        assert rehearsed.phikit(*run, "login", **home).returncode == 0


def test_a_way_that_there_is_not(rehearsed):
    done = rehearsed.phikit("azure", "list", PHIKIT_AZURE_SIGN_IN="manged")
    assert done.returncode == 2
    assert "did you mean managed?" in done.stderr


def test_no_token_is_kept(rehearsed, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    assert rehearsed.phikit("azure", "list", HOME=str(home)).returncode == 0
    written = [file for file in home.rglob("*") if file.is_file()]
    assert not [file for file in written if b"eyJ" in file.read_bytes()]
    shutil.rmtree(home)


def test_the_tenant_of_the_token_counts(rehearsed):
    done = rehearsed.phikit("azure", "check")
    assert TENANT in done.stdout


def read_until(terminal: int, pattern: str, seconds: float = 60) -> str:
    """What a terminal shows, until it shows the pattern."""
    said, deadline = "", time.monotonic() + seconds
    while not re.search(pattern, said):
        assert time.monotonic() < deadline, said
        if select.select([terminal], [], [], 1)[0]:
            try:
                said += os.read(terminal, 4096).decode()
            except OSError:
                break
    assert re.search(pattern, said), said
    return said
