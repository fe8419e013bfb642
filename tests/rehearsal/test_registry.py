"""The workspace's registry: Azure's sign-in before a real one, and a real engine's push and pull."""

import base64
import uuid

import pytest
import requests

from devtools.rehearsal import TENANT, session
from devtools.rehearsal.identity import tokens as identity_tokens
from devtools.rehearsal.registry import tokens

DOCKERFILE = "FROM scratch\nCOPY {0} /{0}\n"


@pytest.fixture
def front(signed_in) -> str:
    return f"https://localhost:{session.running(signed_in.home)['registry_port']}"


def exchanged(front: str, store, tenant: str = TENANT, audience: str = identity_tokens.ARM) -> requests.Response:
    form = {
        "grant_type": "access_token",
        "service": front.removeprefix("https://"),
        "tenant": tenant,
        "access_token": identity_tokens.issue(store, audience),
    }
    return requests.post(f"{front}/oauth2/exchange", form)


def test_without_a_token_it_says_where_to_get_one(front):
    answer = requests.get(f"{front}/v2/phikit/manifests/1")
    assert answer.status_code == 401
    where = front.removeprefix("https://")
    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer realm="{front}/oauth2/token",service="{where}",scope="repository:phikit:pull"'
    )
    assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"
    for header in ("Bearer nobody's", f"Basic {base64.b64encode(b'a:b').decode()}"):
        assert requests.get(f"{front}/v2/", headers={"Authorization": header}).status_code == 401


def test_a_token_of_entra_s_becomes_one_of_the_registry_s(front, signed_in):
    refresh = exchanged(front, signed_in.store).json()["refresh_token"]
    form = {"grant_type": "refresh_token", "service": "localhost", "scope": "registry:catalog:*"}
    access = requests.post(f"{front}/oauth2/token", form | {"refresh_token": refresh}).json()["access_token"]
    found = requests.get(f"{front}/v2/_catalog", headers={"Authorization": f"Bearer {access}"})
    assert found.status_code == 200
    assert "repositories" in found.json()
    # as a password, which is how engines ask
    by_password = requests.get(f"{front}/oauth2/token?scope=a", auth=(tokens.NOBODY, refresh)).json()
    assert by_password["access_token"] == by_password["token"]
    # a refresh token is no access token, nor the other way round
    assert requests.get(f"{front}/v2/", headers={"Authorization": f"Bearer {refresh}"}).status_code == 401
    assert requests.get(f"{front}/oauth2/token", auth=(tokens.NOBODY, access)).status_code == 401


def test_whom_the_registry_refuses(front, signed_in):
    assert exchanged(front, signed_in.store, tenant="other").status_code == 401
    assert exchanged(front, signed_in.store, audience="https://graph.microsoft.com").status_code == 401
    assert requests.post(f"{front}/oauth2/exchange", {"grant_type": "password"}).status_code == 400
    wrong = requests.post(f"{front}/oauth2/token", {"refresh_token": "no"})
    assert wrong.status_code == 401
    assert wrong.json()["errors"][0]["message"].startswith("authentication required")
    assert requests.get(f"{front}/oauth2/token", auth=("a", "b")).status_code == 401


def test_a_blob_goes_up_and_comes_down_in_pieces(front, signed_in):
    import hashlib

    _, refresh = tokens.login(signed_in.store)
    access = tokens.access(signed_in.store, refresh, "")
    client = requests.Session()
    client.headers["Authorization"] = f"Bearer {access}"
    content = uuid.uuid4().bytes * 200_000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    begun = client.post(f"{front}/v2/pieces/blobs/uploads/")
    assert begun.status_code == 202
    location = begun.headers["Location"]
    # (of unknown length: sent as it comes)
    halves = (half for half in (content[:1_500_000], content[1_500_000:]))
    sent = client.patch(requests.compat.urljoin(front, location), data=halves)
    assert sent.status_code == 202
    ended = client.put(requests.compat.urljoin(front, sent.headers["Location"]), params={"digest": digest})
    assert ended.status_code == 201
    assert client.get(f"{front}/v2/pieces/blobs/{digest}").content == content
    head = client.head(f"{front}/v2/pieces/blobs/{digest}")
    assert int(head.headers["Content-Length"]) == len(content)


@pytest.mark.docker
def test_an_engine_pushes_and_pulls(front, signed_in, engine, tmp_path):
    name = f"{front.removeprefix('https://')}/pushed"
    (tmp_path / "note").write_text(uuid.uuid4().hex)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format("note"))
    engine.images.build(path=str(tmp_path), tag=f"{name}:1")
    user, password = tokens.login(signed_in.store)

    def push(auth: dict | None) -> list[dict]:
        return list(engine.images.push(name, "1", auth_config=auth, stream=True, decode=True))

    assert any("authentication required" in line.get("error", "") for line in push(None))
    said = push({"username": user, "password": password})
    (digest,) = [line["aux"]["Digest"] for line in said if "aux" in line]
    engine.images.remove(f"{name}:1")
    pulled = engine.images.pull(f"{name}@{digest}", auth_config={"username": user, "password": password})
    assert f"{name}@{digest}" in pulled.attrs["RepoDigests"]
    engine.images.remove(f"{name}@{digest}")
