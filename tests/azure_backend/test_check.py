"""phikit azure check, and what every command says when it cannot begin."""

import pytest

from devtools.rehearsal import IDENTITY, resource_id


def rows(text: str) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        area, *rest = line.split("\t")
        found.setdefault(area, []).append(rest)
    return found


def test_everything_is_there(rehearsed):
    done = rehearsed.phikit("azure", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    assert "rehearsal@example.com, by cli" in found["sign-in"][0][1]
    assert found["workspace"][0][1] == "rehearsal in rehearsal, eastus2"
    for area in ("CPU cluster", "GPU cluster"):
        assert found[area][0][0] == "ok"
        assert "USD an hour" in found[area][0][1]
        assert "cores left" in found[area][0][1]
    assert "Standard_NC24ads_A100_v4" in found["GPU cluster"][0][1]
    assert "is made by phikit azure deploy" in found["endpoint"][0][1]
    # nothing was made
    assert not rehearsed.store.all("computes")
    assert not rehearsed.store.all("endpoints")


def test_the_endpoints_identity_and_its_roles(rehearsed):
    identity = resource_id("userAssignedIdentities", IDENTITY, "Microsoft.ManagedIdentity")
    found = rows(rehearsed.phikit("azure", "check", PHIKIT_AZURE_IDENTITY=identity).stdout)
    assert [row[:2] for row in found["identity"]] == [["ok", IDENTITY]]
    done = rehearsed.phikit("azure", "check", PHIKIT_AZURE_IDENTITY=identity + "-nobody")
    assert done.returncode == 1
    assert rows(done.stdout)["identity"][0][0] == "fail"


def test_a_quota_that_does_not_do_is_a_finding(rehearsed):
    rehearsed.refuse("quota")
    done = rehearsed.phikit("azure", "check")
    assert done.returncode == 1
    found = rows(done.stdout)
    assert found["CPU cluster"][0][0] == "fail"
    assert found["GPU cluster"][0][0] == "warn"
    assert "needs 16 cores" in found["CPU cluster"][0][1]
    assert "Standard ESv3" in found["CPU cluster"][0][1]
    assert "portal" in found["CPU cluster"][0][2]


def test_all_that_is_missing_is_said_at_once(rehearsed):
    none = {"AZURE_SUBSCRIPTION_ID": "", "AZURE_WORKSPACE": "", "AZURE_CLIENT_SECRET": ""}
    done = rehearsed.phikit("azure", "check", **none, PHIKIT_AZURE_SIGN_IN="environment")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("AZURE_SUBSCRIPTION_ID", "AZURE_WORKSPACE", "environment"), strict=True):
        assert line.startswith(f"error: {name}: ")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-00000000dead", "check AZURE_SUBSCRIPTION_ID"),
        ("AZURE_RESOURCE_GROUP", "nobody", "check AZURE_RESOURCE_GROUP"),
        ("AZURE_WORKSPACE", "nobody", "check AZURE_WORKSPACE"),
    ],
)
def test_a_wrong_place_is_named(rehearsed, setting, value, said):
    done = rehearsed.phikit("azure", "check", **{setting: value})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_settings_are_checked_before_anybody_signs_in(rehearsed):
    before = len(rehearsed.calls())
    wrong = {"PHIKIT_AZURE_NODES": "many", "PHIKIT_AZURE_PRIORITY": "lo", "PHIKIT_AZURE_CLUSTER": "a" * 300}
    done = rehearsed.phikit("azure", "train", "--recipe", "tiny_cup", **wrong)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert "did you mean tiny_cpu?" in lines[0]
    assert "did you mean low?" in "".join(lines)
    assert all(len(line) < 200 for line in lines)
    assert len(rehearsed.calls()) == before


def test_a_question_needs_somebody_to_answer(rehearsed):
    done = rehearsed.phikit("azure", "train")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "USD an hour" in done.stderr
    assert not list((rehearsed.root / "runs").glob("tiny*"))
    assert not rehearsed.store.all("computes")
    assert not rehearsed.store.all("jobs")
