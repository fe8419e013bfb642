"""Sign-in with the credentials that programs really use, and what a token is good for."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    AzureCliCredential,
    ChainedTokenCredential,
    ClientSecretCredential,
    CredentialUnavailableError,
    DefaultAzureCredential,
    DeviceCodeCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from devtools.rehearsal import CLIENT, PRINCIPAL, SUBSCRIPTION, TENANT
from devtools.rehearsal.identity import tokens
from devtools.rehearsal.store import Store
from tests.rehearsal.raw import Arm
from tests.rehearsal.test_process import WORKSPACE

SCOPE = "https://management.azure.com/.default"
BASE = "https://management.azure.com"


@pytest.fixture
def without_secret(signed_in, monkeypatch):
    """Nothing of an application's in the environment."""
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    return signed_in


@pytest.fixture
def az(signed_in):
    """The stand-in, as a program would call it; signed in again afterwards."""

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["az", *words], cwd="/bin", capture_output=True, text=True, check=False)

    yield run
    if run("account", "show").returncode:
        run("login")


def who(token: str) -> dict:
    """What a token says, once the control plane took it."""
    answer = requests.get(f"{BASE}{WORKSPACE}?api-version=2024-10-01", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    return json.loads(tokens._decoded(token.split(".")[1]))


def test_an_application_with_its_secret(signed_in):
    secret = os.environ["AZURE_CLIENT_SECRET"]
    token = ClientSecretCredential(TENANT, CLIENT, secret).get_token(SCOPE)
    claims = who(token.token)
    assert (claims["tid"], claims["appid"], claims["idtyp"]) == (TENANT, CLIENT, "app")
    assert abs(token.expires_on - time.time() - 3600) < 60


@pytest.mark.parametrize(
    ("tenant", "client", "secret", "said"),
    [
        (TENANT, CLIENT, "wrong", "AADSTS7000215: Invalid client secret provided"),
        (TENANT, "00000000-0000-0000-0000-0000000000ff", "wrong", "AADSTS700016: Application with identifier"),
    ],
)
def test_an_application_that_is_none(signed_in, tenant, client, secret, said):
    with pytest.raises(ClientAuthenticationError, match=said):
        ClientSecretCredential(tenant, client, secret).get_token(SCOPE)


def test_a_tenant_that_is_none(signed_in):
    other = "00000000-0000-0000-0000-0000000000ff"
    with pytest.raises(ClientAuthenticationError, match=other):
        ClientSecretCredential(other, CLIENT, "any").get_token(SCOPE)
    url = f"https://login.microsoftonline.com/{other}/oauth2/v2.0/token"
    answer = requests.post(url, {"grant_type": "client_credentials"})
    assert answer.status_code == 400
    assert answer.json()["error_description"].startswith(f"AADSTS90002: Tenant '{other}' not found.")


def test_a_workload_with_its_federated_token(signed_in, tmp_path):
    file = tmp_path / "token"
    file.write_text("a.federated.token")
    credential = WorkloadIdentityCredential(tenant_id=TENANT, client_id=CLIENT, token_file_path=str(file))
    assert who(credential.get_token(SCOPE).token)["appid"] == CLIENT


def test_a_managed_identity_where_it_is_assigned(without_secret, monkeypatch):
    for name, value in tokens.managed_environment(without_secret.store).items():
        monkeypatch.setenv(name, value)
    assert who(ManagedIdentityCredential().get_token(SCOPE).token)["oid"] == PRINCIPAL
    assert who(ManagedIdentityCredential(client_id=CLIENT).get_token(SCOPE).token)["appid"] == CLIENT
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    with pytest.raises(ClientAuthenticationError):
        ManagedIdentityCredential().get_token(SCOPE)


def test_a_device_code_is_pending_once(without_secret):
    asked = []
    begun = len(without_secret.calls())
    credential = DeviceCodeCredential(tenant_id=TENANT, prompt_callback=lambda *told: asked.append(told))
    record = credential.authenticate(scopes=[SCOPE])
    assert record.username == tokens.USER
    assert record.tenant_id == TENANT
    assert who(credential.get_token(SCOPE).token)["upn"] == tokens.USER
    ((page, code, _),) = asked
    assert page == "https://microsoft.com/devicelogin"
    assert len(code) == 9
    polls = [call for call in without_secret.calls()[begun:] if call["path"].endswith("/token")]
    assert [call["status"] for call in polls] == [400, 200]
    assert polls[0]["response"]["error"] == "authorization_pending"


def test_a_device_code_in_whichever_tenant(without_secret):
    credential = DeviceCodeCredential(prompt_callback=lambda *told: None)
    assert who(credential.get_token(SCOPE).token)["tid"] == TENANT


def test_the_azure_cli(az, without_secret):
    token = AzureCliCredential().get_token(SCOPE)
    assert who(token.token)["upn"] == tokens.USER
    assert abs(token.expires_on - time.time() - 3600) < 60


def test_the_default_credential_takes_what_is_there(signed_in, monkeypatch):
    assert who(DefaultAzureCredential().get_token(SCOPE).token)["idtyp"] == "app"
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    # (no machine's own identity is had here, and the credential goes on to the Azure CLI)
    assert who(DefaultAzureCredential().get_token(SCOPE).token)["idtyp"] == "user"


def test_two_that_ask_for_a_secret_first_get_the_same_one(tmp_path):
    together = threading.Barrier(8)
    stores = [Store(tmp_path / "state.db") for _ in range(8)]

    def ask(store: Store) -> str:
        together.wait()
        return tokens.secret(store, "new")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, stores))) == 1
    for store in stores:
        store.close()


def test_signed_out_of_the_azure_cli_and_in_again(az, without_secret):
    assert az("logout").returncode == 0
    with pytest.raises(CredentialUnavailableError, match="Please run 'az login'"):
        AzureCliCredential().get_token(SCOPE)
    shown = az("account", "show")
    assert (shown.returncode, shown.stderr) == (1, "ERROR: Please run 'az login' to setup account.\n")
    with pytest.raises(ClientAuthenticationError):
        ChainedTokenCredential(EnvironmentCredential(), AzureCliCredential()).get_token(SCOPE)
    login = az("login", "--use-device-code")
    assert "https://microsoft.com/devicelogin" in login.stderr
    assert json.loads(login.stdout)[0]["id"] == SUBSCRIPTION
    assert AzureCliCredential().get_token(SCOPE).token


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("group list", 2, "ERROR: az group list: the rehearsal's az knows these alone: version, login,"),
        ("account get-access-token --nothing", 2, "ERROR: the rehearsal's az: unrecognized arguments: --nothing"),
        ("account show --subscription other", 1, "ERROR: Subscription 'other' not found."),
        ("account get-access-token --tenant other", 1, "ERROR: AADSTS90002: Tenant 'other' not found."),
        ("account show --query length(@)", 2, "ERROR: the rehearsal's az: --query length(@): names of fields alone"),
    ],
)
def test_what_the_azure_cli_refuses(az, words, code, said):
    done = az(*words.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_what_scripts_ask_the_azure_cli(az):
    assert az("account", "show", "--query", "id", "-o", "tsv").stdout == f"{SUBSCRIPTION}\n"
    assert az("account", "show", "--query", "user.name", "-o", "tsv").stdout == f"{tokens.USER}\n"
    assert json.loads(az("account", "list").stdout)[0]["isDefault"] is True
    assert json.loads(az("version").stdout)["azure-cli"]
    assert az("--version").stdout.startswith("azure-cli")
    assert az("account", "set", "--subscription", SUBSCRIPTION).returncode == 0
    # (the emulator's own python, whatever is there for programs)
    assert az("account", "show").stdout and sys.executable


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "AuthenticationFailed"),
        ("Bearer nobody's", "InvalidAuthenticationToken"),
        ("Basic YTpi", "InvalidAuthenticationToken"),
        ("Bearer é.é.é", "InvalidAuthenticationToken"),
    ],
)
def test_a_call_without_a_token(signed_in, header, code):
    headers = {"Authorization": header.encode()} if header else {}
    answer = requests.get(f"{BASE}{WORKSPACE}", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == code
    assert answer.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")


def test_a_token_of_another_time_tenant_or_audience(signed_in):
    def refused(token: str) -> str:
        answer = requests.get(f"{BASE}{WORKSPACE}", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        return answer.json()["error"]["code"]

    store = signed_in.store
    assert refused(tokens.issue(store, tokens.ARM, seconds=-1)) == "ExpiredAuthenticationToken"
    assert refused(tokens.issue(store, tokens.ARM, tid=CLIENT)) == "InvalidAuthenticationTokenTenant"
    assert refused(tokens.issue(store, "https://graph.microsoft.com")) == "InvalidAuthenticationToken"
    changed = tokens.issue(store, tokens.ARM).rsplit(".", 1)[0]
    assert refused(f"{changed}.{'A' * 43}") == "InvalidAuthenticationToken"


def test_a_token_can_expire_in_the_middle(signed_in):
    arm = Arm()
    signed_in.refuse("expired-token", times=1)
    answers = [arm.get(WORKSPACE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [401, 200]
    assert answers[0].json()["error"]["code"] == "ExpiredAuthenticationToken"


def test_the_sdk_signs_in_and_finds_the_workspace(ml_client):
    assert ml_client.workspaces.get(ml_client.workspace_name).location == "eastus2"
