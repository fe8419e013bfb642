"""What is written down of the calls: everything, and no secret."""

import json
import os
import re
import time

import pytest
import requests

from devtools.rehearsal import recorder, report
from tests.rehearsal.raw import Arm
from tests.rehearsal.test_process import WORKSPACE

JWT = "eyJ0eXAiOiJKV1QifQ.eyJhIjoxfQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"access_token": "s", "expires_in": 5}, {"access_token": "***", "expires_in": 5}),
        ({"primaryKey": "s", "secondaryKey": "s"}, {"primaryKey": "***", "secondaryKey": "***"}),
        ({"secretsType": "Sas", "sasToken": "s"}, {"secretsType": "Sas", "sasToken": "***"}),
        ({"secretsType": "AccountKey", "key": "s"}, {"secretsType": "AccountKey", "key": "***"}),
        (
            {"environmentVariables": {"HF_TOKEN": "s", "A": "b"}},
            {"environmentVariables": {"HF_TOKEN": "***", "A": "b"}},
        ),
        ([{"name": "DB_PASSWORD", "value": "s"}], [{"name": "DB_PASSWORD", "value": "***"}]),
        ({"key": "loss", "value": 0.5}, {"key": "loss", "value": 0.5}),
        ({"client_secret": "s", "client_assertion": "s"}, {"client_secret": "***", "client_assertion": "***"}),
        ({"max_new_tokens": 16, "token_type": "Bearer"}, {"max_new_tokens": 16, "token_type": "Bearer"}),
        ({"uri": "https://a/b?sv=1&sig=s%3D&se=2"}, {"uri": "https://a/b?sv=1&sig=***&se=2"}),
        ({"command": f"curl -H 'Authorization: Bearer {JWT}'"}, {"command": "curl -H 'Authorization: Bearer ***'"}),
        ({"note": f"{JWT} it was"}, {"note": "*** it was"}),
        ({"uri": "https://me:word@host/path"}, {"uri": "https://me:***@host/path"}),
        ({"x": "AccountName=a;AccountKey=s;Suffix=c"}, {"x": "AccountName=a;AccountKey=***;Suffix=c"}),
        ({"keyName": "key1", "value": "s"}, {"keyName": "key1", "value": "***"}),
        (
            {"DB_PWD": "s", "AZURE_DEVOPS_PAT": "s", "PASS": "s", "MY_CREDENTIAL": "s"},
            dict.fromkeys(("DB_PWD", "AZURE_DEVOPS_PAT", "PASS", "MY_CREDENTIAL"), "***"),
        ),
        ({"path": "a", "bypass": "b", "compat": "c"}, {"path": "a", "bypass": "b", "compat": "c"}),
        ({"message": "open https://a and enter the code AB12"}, {"message": "open https://a and enter the code ***"}),
        ({"code": "ResourceNotFound", "keyVault": "/a/b"}, {"code": "ResourceNotFound", "keyVault": "/a/b"}),
    ],
)
def test_secrets_are_masked_and_nothing_else(value, masked):
    assert recorder.masked(value) == masked


def test_bodies_of_every_kind():
    assert recorder.readable(b"", "") is None
    assert recorder.readable(b"a=1&client_secret=s", "application/x-www-form-urlencoded") == {
        "a": "1",
        "client_secret": "***",
    }
    assert recorder.readable(b"\xff\x00", "application/octet-stream") == "<2 bytes>"
    assert recorder.readable(b"x" * 300_000, "text/plain") == "<300000 bytes>"
    assert recorder.readable(b"plain", "text/plain") == "plain"


def test_a_line_that_a_killed_emulator_left_half_written(tmp_path):
    record = tmp_path / recorder.FILE
    record.write_text('{"method": "GET"}\n{"method": "PU{"method": "PUT"}\n{"method": "DELETE"}\n{"meth')
    assert [one["method"] for one in recorder.read(record)] == ["GET", "DELETE"]


def test_no_secret_of_the_session_is_in_the_record(signed_in):
    from azure.identity import ClientSecretCredential

    secret = os.environ["AZURE_CLIENT_SECRET"]
    ClientSecretCredential(os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], secret).get_token("a/.default")
    arm = Arm()
    token = arm._session.headers["Authorization"].partition(" ")[2]
    arm.call("POST", f"{WORKSPACE}/datastores/workspaceblobstore/listSecrets")
    arm.put(f"{WORKSPACE}/not-emulated/here", {"primaryKey": "plain-to-see", "kept": "yes"})
    requests.post("https://login.microsoftonline.com/common/oauth2/v2.0/token", {"client_secret": "plain-to-see"})
    record = (signed_in.home / recorder.FILE).read_text()
    for hidden in (secret, token, "plain-to-see", signed_in.store.get("secrets", "account-key")["value"]):
        assert hidden not in record
    assert set(re.findall(r"sig=([^&\"]+)", record)) <= {"***"}
    last = [call for call in signed_in.calls() if call["path"].endswith("/not-emulated/here")][-1]
    assert last["request"] == {"primaryKey": "***", "kept": "yes"}
    assert (last["method"], last["status"], last["emulated"]) == ("PUT", 501, False)


def test_calls_of_the_storage_are_there_too(signed_in):
    from azure.storage.blob import ContainerClient

    asked = {"expirableSecret": True}
    listed = Arm().call("POST", f"{WORKSPACE}/datastores/workspaceblobstore/listSecrets", json=asked).json()
    container = "azureml-blobstore-00000000-0000-0000-0000-000000000005"
    address = f"https://phikitrehearsal.blob.core.windows.net/{container}?{listed['sasToken']}"
    ContainerClient.from_container_url(address).upload_blob("a folder/a file.txt", b"words", overwrite=True)
    deadline = time.monotonic() + 10
    # (Azurite writes its line when it has answered)
    while not (found := [c for c in report.calls(signed_in.home) if c["path"].endswith("/a folder/a file.txt")]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [(call["method"], call["status"]) for call in found] == [("PUT", 201)]
    assert found[0]["query"].get("sig", "***") == "***"
    assert listed["sasToken"].partition("sig=")[2] not in json.dumps(report.calls(signed_in.home))


def test_a_call_for_people(signed_in):
    Arm().get(WORKSPACE)
    call = next(call for call in reversed(signed_in.calls()) if call["path"] == WORKSPACE)
    text = report.line(call, bodies=False)
    assert text.endswith("  200  GET    management.azure.com/W?api-version=2024-10-01")
    assert '"location": "eastus2"' in report.line(call, bodies=True)
