"""What the endpoint commands are told wrongly: each finding a line that says what to do, before anything is sent."""

import pytest

from tests.azure_backend.served import DEPLOY, errors

LONG = "x" * 300
NAMED = [*DEPLOY, "--run", "one"]


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ([*DEPLOY, "--run", "nobody"], {}, ["runs/nobody: there is no such run"]),
        ([*DEPLOY, "--run", "../../etc"], {}, ["--name ../../etc: must be letters"]),
        ([*DEPLOY, "--run", "unfinished"], {}, ["has no model, the run is unfinished"]),
        ([*NAMED, "--model", "phikit:1"], {}, ["--run and --model: name one of them"]),
        ([*DEPLOY, "--model", "phikit"], {}, ["must be name:version"]),
        ([*DEPLOY, "--model", LONG], {}, ["must be name:version"]),
        ([*NAMED, "--endpoint", "1"], {}, ["--endpoint 1: must be 3 to 32"]),
        ([*NAMED, "--endpoint", "my_endpoint"], {}, ["--endpoint my_endpoint: "]),
        ([*NAMED, "--endpoint", "ends-in-"], {}, ["--endpoint ends-in-: "]),
        ([*NAMED, "--endpoint", LONG], {}, ["must be 3 to 32"]),
        ([*NAMED], {"PHIKIT_AZURE_ENDPOINT": "ümlaut"}, ["PHIKIT_AZURE_ENDPOINT ümlaut: "]),
        ([*NAMED], {"PHIKIT_AZURE_IDENTITY": "my-identity"}, ["PHIKIT_AZURE_IDENTITY=my-identity: "]),
        # all of it at once
        (
            [*DEPLOY, "--endpoint", "1", "--run", "nobody"],
            {"PHIKIT_AZURE_IDENTITY": LONG},
            ["--endpoint 1: ", "PHIKIT_AZURE_IDENTITY=xxx", "runs/nobody: "],
        ),
        (["azure", "endpoint", "--endpoint", "a b"], {}, ["--endpoint a b: "]),
        (["azure", "invoke", "--endpoint", LONG], {}, ["must be 3 to 32"]),
        (["azure", "rollback", "--yes", "--endpoint", "9"], {}, ["--endpoint 9: "]),
        (["azure", "keys", "--endpoint", "../.."], {}, ["--endpoint ../..: "]),
        (["azure", "connect", "--", "no-such-program"], {}, ["COMMAND no-such-program: there is no such program"]),
        (["azure", "connect", "--endpoint", "!", "--", LONG], {}, ["--endpoint !: ", "there is no such program"]),
        (["chat", "--target", "azure"], {}, ["without containers: phikit azure connect"]),
    ],
)
def test_a_line_for_each_finding(served, arguments, settings, said):
    before = len(served.calls())
    done = served.phikit(*arguments, **settings)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = errors(done)
    assert lines == done.stderr.splitlines()
    assert len(lines) == len(said), lines
    for line, part in zip(lines, said, strict=True):
        assert part in line
        assert len(line) < 300
    assert len(served.calls()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "--modle", "phikit:1"],
        ["invoke", "--max-new-tokens", "0"],
        ["invoke", "--max-new-tokens", "many"],
        ["keys", "--rotate=tertiary"],
        ["connect"],
        ["down", "everything"],
    ],
)
def test_options_that_there_are_not(served, arguments):
    before = len(served.calls())
    done = served.phikit("azure", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 4
    assert len(served.calls()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "phikit:999"], "--model phikit:999: workspace rehearsal has no such model; phikit azure register"),
        (["--model", "nobodys:1"], "--model nobodys:1: "),
        (["--run", "one", "--instance", "Standard_F8s_v3"], "--instance=Standard_F8s_v3: "),
    ],
)
def test_what_the_workspace_alone_knows(served, arguments, said):
    before = len(served.calls())
    done = served.deploy(*arguments)
    assert done.returncode == 2
    (line,) = errors(done)
    assert said in line
    assert served.changes(before) == []


def test_an_endpoint_of_somebody_elses(served):
    before = len(served.calls())
    with served.somebodys() as name:
        for command in (["deploy", "--run", "one", "--yes"], ["rollback", "--yes"]):
            done = served.phikit("azure", *command, "--endpoint", name)
            assert done.returncode == 2
            assert "was not made by the kit; choose another name" in errors(done)[0]
    assert served.changes(before) == []
