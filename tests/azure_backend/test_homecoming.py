"""What comes home of a job in whose storage blobs stand for folders, as mounts and hierarchies leave them."""

import json

import pytest
from azure.storage.blob import ContainerClient

from devtools.rehearsal import CONTAINER, session
from devtools.rehearsal.azurite import Blobs

TRAIN = ("azure", "train", "--yes")
FOLDER = {"hdi_isfolder": "true"}


@pytest.fixture
def container(small, monkeypatch) -> ContainerClient:
    """The workspace's own container, through the real SDK."""
    for name, value in session.environment(small.home).items():
        monkeypatch.setenv(name, value)
    port, key = small.store.get("ports", "azurite")["port"], small.store.get("secrets", "account-key")["value"]
    blobs = Blobs(small.home, port, key)
    address = blobs.url(CONTAINER)
    blobs.close()
    with ContainerClient.from_container_url(address) as client:
        yield client


def test_blobs_that_stand_for_folders_are_no_files(small, container):
    assert small.phikit(*TRAIN, "--name", "marked", "--no-wait").returncode == 0
    assert small.phikit("azure", "logs", "marked", "--follow").returncode == 0
    home = small.root / "runs" / "marked"
    place = f"phikit/{json.loads((home / 'azure.json').read_text())['key']}"
    weights = {"artifacts/tokenizer/words": b"a b", "unsaid/weights": b"1 2 3", "slash/weights": b"4", "empty": b""}
    for name, content in weights.items():
        container.upload_blob(f"{place}/model/{name}", content)
    for name in ("model/artifacts", "model/artifacts/tokenizer", "run/nothing in it"):
        container.upload_blob(f"{place}/{name}", b"", metadata=FOLDER)
    # not every program says that it is a folder
    for name in ("unsaid", "slash/"):
        container.upload_blob(f"{place}/model/{name}", b"")

    done = small.phikit(*TRAIN, "--name", "marked")
    assert done.returncode == 0, done.stderr
    assert {name: (home / "model" / name).read_bytes() for name in weights} == weights
    came = {path.name for path in (home / "model").iterdir()}
    assert came == {"MLmodel", "artifacts", "unsaid", "slash", "empty"}
    assert not (home / "nothing in it").exists()
    assert json.loads((home / "run.json").read_text())["state"] == "finished"
