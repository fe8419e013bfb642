"""What the service refuses, and what becomes of it: one line with its fix, an exit code, nothing half made."""

import json

import pytest

from devtools.rehearsal.resources import envelope, now


def train(rehearsed, *arguments: str, **settings: str):
    done = rehearsed.phikit("azure", "train", "--yes", "--no-wait", "--name", "refused", *arguments, **settings)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (1 if done.returncode else 0), done.stderr
    return done.returncode, "".join(errors)


@pytest.fixture(autouse=True)
def no_run_is_left(rehearsed):
    before = names(rehearsed, "jobs")
    yield
    assert not (rehearsed.root / "runs" / "refused").exists()
    assert names(rehearsed, "jobs") == before


def names(rehearsed, kind: str) -> set[str]:
    """What there is of a kind: the emulator is not this module's alone."""
    return {key for key, _ in rehearsed.store.all(kind)}


def test_no_quota(rehearsed):
    before = names(rehearsed, "computes")
    rehearsed.refuse("quota")
    code, line = train(rehearsed, PHIKIT_AZURE_CLUSTER="no-quota")
    assert code == 1
    assert "Standard_E16s_v3 needs 16 cores" in line
    assert "ask for more in the portal" in line
    assert names(rehearsed, "computes") == before


def test_the_quota_for_more_than_there_is(rehearsed):
    code, line = train(rehearsed, "--gpu", PHIKIT_AZURE_SIZE="Standard_ND96amsr_A100_v4")
    assert code in (1, 2)
    assert "Standard_ND96amsr_A100_v4" in line


def test_a_size_that_there_is_not(rehearsed):
    code, line = train(rehearsed, PHIKIT_AZURE_SIZE="Standard_E16s_v33")
    assert code == 2
    assert "did you mean Standard_E16s_v3?" in line


def test_a_size_that_the_region_does_not_offer_today(rehearsed):
    rehearsed.refuse("sku")
    code, line = train(rehearsed, PHIKIT_AZURE_CLUSTER="not-offered")
    assert code == 1
    assert "name another size" in line


@pytest.mark.parametrize("state", ["Failed", "Canceled"])
def test_a_cluster_of_somebody_elses_that_is_no_good(rehearsed, state):
    cluster = {
        "vmSize": "Standard_E16s_v3",
        "vmPriority": "Dedicated",
        "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT120S"},
    }
    properties = {"computeType": "AmlCompute", "provisioningState": state, "modifiedOn": now(), "properties": cluster}
    theirs = envelope("computes/theirs", properties, None) | {"location": "eastus2", "tags": {}}
    rehearsed.store.put("computes", "theirs", theirs)
    code, line = train(rehearsed, PHIKIT_AZURE_CLUSTER="theirs")
    assert code == 1
    assert f"cluster theirs: is {state.lower()}, and was not made by the kit" in line
    assert rehearsed.store.get("computes", "theirs")["properties"]["provisioningState"] == state
    rehearsed.store.delete("computes", "theirs")


def test_a_missing_role(rehearsed):
    rehearsed.refuse("role", on="computes/write")
    code, line = train(rehearsed, PHIKIT_AZURE_CLUSTER="no-role")
    assert code == 1
    assert "Microsoft.MachineLearningServices/workspaces/computes/write" in line
    assert "az role assignment create --role " in line


def test_storage_that_may_not_be_written(rehearsed):
    rehearsed.refuse("storage-write")
    rows = [{"question": f"Is {n} a number?", "answer": "It is."} for n in range(9)]
    (rehearsed.root / "unwritten.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, line = train(rehearsed, "--data", "unwritten.jsonl")
    assert code == 1
    assert "Storage Blob Data Contributor" in line


def test_a_token_that_ran_out(rehearsed):
    rehearsed.refuse("expired-token")
    done = rehearsed.phikit("azure", "check")
    assert done.returncode == 1
    assert "az login" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_a_service_that_has_no_time_is_asked_again(rehearsed):
    rehearsed.refuse("throttle", times=3, seconds=0)
    assert rehearsed.phikit("azure", "list").returncode == 0
    rehearsed.refuse("unavailable", times=2, seconds=0)
    assert rehearsed.phikit("azure", "list").returncode == 0


def test_a_service_that_cannot_be_reached(rehearsed):
    nowhere = "http://127.0.0.1:9"
    done = rehearsed.phikit(
        "azure", "list", HTTPS_PROXY=nowhere, https_proxy=nowhere, PHIKIT_AZURE_SIGN_IN="environment", timeout=120
    )
    assert done.returncode in (1, 2)
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize("name", ["no-such-job", "x" * 300, "../../etc/passwd"])
@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_job_that_there_is_not(rehearsed, command, name):
    done = rehearsed.phikit("azure", command, name)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "phikit azure list" in line
    assert len(line) < 250
