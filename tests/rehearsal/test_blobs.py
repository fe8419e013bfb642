"""The emulator's own hands on the storage account, and signatures as clients get them."""

import base64
import hashlib
import http.client
import os
import ssl
import uuid

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient

from devtools.rehearsal import ACCOUNT, azurite
from devtools.rehearsal.azurite import Blobs


@pytest.fixture(scope="module")
def blobs(signed_in):
    port = signed_in.store.get("ports", "azurite")["port"]
    blobs = Blobs(signed_in.home, port, signed_in.store.get("secrets", "account-key")["value"])
    yield blobs
    blobs.close()


@pytest.fixture
def container(blobs) -> str:
    name = f"test-{uuid.uuid4().hex}"
    blobs.ensure_container(name)
    # (and again: it is there)
    blobs.ensure_container(name)
    return name


def test_bytes_and_files_go_up_and_come_down(blobs, container, tmp_path):
    blobs.upload(container, "a folder/a file+ä.txt", b"words")
    (tmp_path / "empty").touch()
    blobs.upload(container, "a folder/empty", tmp_path / "empty")
    assert blobs.download(container, "a folder/a file+ä.txt") == b"words"
    assert blobs.exists(container, "a folder/empty")
    assert not blobs.exists(container, "a folder/none")
    with pytest.raises(FileNotFoundError):
        blobs.download(container, "a folder/none")
    md5 = base64.b64encode(hashlib.md5(b"words").digest()).decode()
    assert ("a folder/a file+ä.txt", 5, md5) in blobs.list(container, "a folder/")
    assert blobs.download_all(container, "a folder", tmp_path / "home") == 2
    assert (tmp_path / "home" / "a file+ä.txt").read_bytes() == b"words"
    blobs.delete(container, "a folder/empty")
    blobs.delete(container, "a folder/empty")
    assert [name for name, _, _ in blobs.list(container)] == ["a folder/a file+ä.txt"]


def test_a_large_file_goes_in_pieces(blobs, container, tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as out:
        for _ in range(5):
            out.write(os.urandom(1024 * 1024) * 7)
    assert file.stat().st_size > azurite.PIECE
    blobs.upload(container, "large", file)
    blobs.download_all(container, "large", tmp_path / "home")
    assert (tmp_path / "home" / "large").read_bytes() == file.read_bytes()


def test_a_log_grows(blobs, container):
    for number in range(3):
        blobs.append(container, "logs/std_log.txt", f"step {number}\n".encode())
    assert blobs.download(container, "logs/std_log.txt") == b"step 0\nstep 1\nstep 2\n"


def test_a_list_of_more_than_a_page(blobs, container, monkeypatch):
    for number in range(7):
        blobs.upload(container, f"many/{number}", b"")
    monkeypatch.setattr(azurite, "PAGE", 3)
    assert [name for name, _, _ in blobs.list(container, "many/")] == [f"many/{number}" for number in range(7)]


def test_the_sdk_takes_the_signature_and_no_more_than_it_allows(signed_in, blobs, container):
    client = ContainerClient.from_container_url(blobs.url(container))
    client.upload_blob("by the sdk", b"words")
    assert blobs.download(container, "by the sdk") == b"words"
    assert [blob.name for blob in client.list_blobs()] == ["by the sdk"]
    reader = ContainerClient.from_container_url(blobs.url(container, permissions="rl"))
    assert reader.download_blob("by the sdk").readall() == b"words"
    with pytest.raises(HttpResponseError) as refused:
        reader.upload_blob("another", b"words")
    assert refused.value.status_code == 403
    other = blobs.url(container).partition("?")[2]
    with pytest.raises(HttpResponseError):
        ContainerClient.from_container_url(f"https://phikitrehearsal.blob.core.windows.net/other?{other}").exists()
    past = f"{blobs.url(container, sas=False)}?{blobs.sas(container, hours=-1)}"
    with pytest.raises(HttpResponseError):
        next(iter(ContainerClient.from_container_url(past).list_blobs()))


def test_a_name_that_leads_out_of_the_folder_is_refused(blobs, container, tmp_path, signed_in):
    trust = ssl.create_default_context(cafile=str(signed_in.home / "ca.pem"))
    # (by hand: every client takes such a part out of an address)
    connection = http.client.HTTPSConnection("127.0.0.1", blobs.port, context=trust)
    path = f"/{ACCOUNT}/{container}/data/x/../../../../out?{blobs.sas(container)}"
    connection.request("PUT", path, b"", {"x-ms-blob-type": "BlockBlob", "x-ms-version": azurite.VERSION})
    assert connection.getresponse().status == 201
    with pytest.raises(ValueError, match="leads out of the folder"):
        blobs.download_all(container, "data/x", tmp_path / "home")
    assert not (tmp_path / "out").exists()
