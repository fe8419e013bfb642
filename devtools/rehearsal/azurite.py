"""The storage account: a real Azurite, addressed by the account's own name, and what the emulator itself does with it.

    blobs.url("azureml-blobstore-...", "azureml/job/", sas=True)       # for clients, through the proxy
    blobs.append("azureml-blobstore-...", "job/std_log.txt", b"step 1\\n")

Every call of the emulator's own goes straight to Azurite, signed with the account's key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import httpx

from devtools.rehearsal import ACCOUNT, BLOB_HOST, authority

VERSION = "2021-12-02"
#: Everything that a signature can allow, in the order that the service asks for.
ALL = "racwdlt"
#: Bytes of one piece of a large blob, and seconds for one call.
PIECE = 32 * 1024 * 1024
TIMEOUT = 120
#: Blobs of one answer to a list.
PAGE = 5000


class Blobs:
    """The account's containers and blobs."""

    def __init__(self, home: Path, port: int, account_key: str) -> None:
        """
        Args:
            home: where the authority's file is.
            port: Azurite's, TLS, on loopback.
            account_key: base64, as Azure's are.
        """
        self.port = port
        self.account_key = account_key
        trust = ssl.create_default_context(cafile=str(home / authority.AUTHORITY))
        self._client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}/{ACCOUNT}", verify=trust, timeout=TIMEOUT, trust_env=False
        )

    def sas(self, container: str, permissions: str = ALL, hours: float = 24) -> str:
        """A signature for a container and all in it, as a query without its question mark."""
        now = datetime.now(UTC)
        # (a clock that lags behind is let in)
        start, end = (_moment(at) for at in (now - timedelta(minutes=15), now + timedelta(hours=hours)))
        ordered = "".join(letter for letter in ALL if letter in permissions)
        signed = [ordered, start, end, f"/blob/{ACCOUNT}/{container}", "", "", "https", VERSION, "c", "", ""]
        text = "\n".join([*signed, *[""] * 5])
        digest = hmac.digest(base64.b64decode(self.account_key), text.encode(), hashlib.sha256)
        values = {"sv": VERSION, "st": start, "se": end, "sr": "c", "sp": ordered, "spr": "https"}
        return urlencode(values | {"sig": base64.b64encode(digest).decode()})

    def url(self, container: str, path: str = "", sas: bool = True, permissions: str = ALL) -> str:
        """A blob's address, or that of the container, as clients know it."""
        address = f"https://{BLOB_HOST}/{container}" + (f"/{quote(path)}" if path else "")
        return f"{address}?{self.sas(container, permissions)}" if sas else address

    def ensure_container(self, container: str) -> None:
        """Make a container where there is none."""
        answer = self._call("PUT", container, query={"restype": "container"}, accept=(201, 409))
        if answer.status_code == 409 and "ContainerAlreadyExists" not in answer.text:
            answer.raise_for_status()

    def exists(self, container: str, path: str) -> bool:
        """Whether there is such a blob."""
        return self._call("HEAD", container, path, accept=(200, 404)).status_code == 200

    def upload(self, container: str, path: str, content: bytes | Path) -> None:
        """Write a blob, new or in place of the one there: bytes, or what a file holds."""
        if isinstance(content, Path):
            with content.open("rb") as file:
                self._upload(container, path, file, content.stat().st_size)
        else:
            self._put(container, path, content)

    def append(self, container: str, path: str, content: bytes) -> None:
        """Write behind the end of a blob, which is begun where there is none: that is how logs grow."""
        more = {"comp": "appendblock"}
        answer = self._call("PUT", container, path, more, content=content, accept=(201, 404))
        if answer.status_code == 404:
            begin = {"x-ms-blob-type": "AppendBlob", "x-ms-blob-content-type": "text/plain; charset=utf-8"}
            self._call("PUT", container, path, headers=begin, accept=(201,))
            self._call("PUT", container, path, more, content=content, accept=(201,))

    def download(self, container: str, path: str) -> bytes:
        """What a blob holds; raises FileNotFoundError where there is none."""
        answer = self._call("GET", container, path, accept=(200, 404))
        if answer.status_code == 404:
            raise FileNotFoundError(f"{container}/{path}")
        return answer.content

    def download_all(self, container: str, prefix: str, folder: Path) -> int:
        """Write every blob below a prefix to a folder, by its name behind the prefix; returns how many.

        A blob that is called just as the prefix is written by the last part of its name.
        """
        found = self.list(container, prefix)
        for name, _, _ in found:
            target = folder / (name.removeprefix(prefix).lstrip("/") or name.rpartition("/")[2])
            if not target.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"blob {name}: its name leads out of the folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file, self._client.stream("GET", self._address(container, name)) as answer:
                answer.raise_for_status()
                for piece in answer.iter_bytes():
                    file.write(piece)
        return len(found)

    def list(self, container: str, prefix: str = "") -> list[tuple[str, int, str]]:
        """Name, size and MD5 (base64; empty where it is not known) of every blob whose name begins so."""
        return list(self._pages(container, prefix))

    def delete(self, container: str, path: str) -> None:
        """Remove a blob, if there is one."""
        self._call("DELETE", container, path, accept=(202, 404))

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _pages(self, container: str, prefix: str) -> Iterator[tuple[str, int, str]]:
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix, "marker": marker}
            query["maxresults"] = str(PAGE)
            page = ElementTree.fromstring(self._call("GET", container, query=query, accept=(200,)).content)
            for blob in page.iter("Blob"):
                size, md5 = (blob.findtext(f"Properties/{name}") or "" for name in ("Content-Length", "Content-MD5"))
                yield blob.findtext("Name") or "", int(size or 0), md5
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return

    def _upload(self, container: str, path: str, file: BinaryIO, size: int) -> None:
        if size <= PIECE:
            self._put(container, path, file.read())
            return
        blocks = []
        while piece := file.read(PIECE):
            blocks.append(base64.b64encode(f"{len(blocks):08}".encode()).decode())
            self._call("PUT", container, path, {"comp": "block", "blockid": blocks[-1]}, content=piece, accept=(201,))
        body = "".join(f"<Latest>{block}</Latest>" for block in blocks)
        content = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{body}</BlockList>'.encode()
        self._call("PUT", container, path, {"comp": "blocklist"}, content=content, accept=(201,))

    def _put(self, container: str, path: str, content: bytes) -> None:
        self._call("PUT", container, path, content=content, headers={"x-ms-blob-type": "BlockBlob"}, accept=(201,))

    def _address(self, container: str, path: str, query: dict[str, str] | None = None) -> str:
        tail = f"/{quote(path)}" if path else ""
        return f"/{container}{tail}?{urlencode(query or {})}&{self.sas(container)}"

    def _call(
        self,
        method: str,
        container: str,
        path: str = "",
        query: dict[str, str] | None = None,
        *,
        accept: tuple[int, ...],
        content: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Raises httpx.HTTPError for any other status than those accepted."""
        told = {"x-ms-version": VERSION, "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True)} | (headers or {})
        if not path and method == "PUT":
            # a container is made with the account's key: no signature for a container allows that
            told["Authorization"] = f"SharedKey {ACCOUNT}:{self._shared_key(method, container, query or {}, told)}"
            address = f"/{container}?{urlencode(query or {})}"
        else:
            address = self._address(container, path, query)
        answer = self._client.request(method, address, content=content, headers=told)
        if answer.status_code not in accept:
            answer.raise_for_status()
            raise httpx.HTTPStatusError(f"unexpected {answer.status_code}", request=answer.request, response=answer)
        return answer

    def _shared_key(self, method: str, container: str, query: dict[str, str], headers: dict[str, str]) -> str:
        named = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
        # (the account twice: once its own, once the beginning of a path on loopback)
        resource = f"/{ACCOUNT}/{ACCOUNT}/{container}" + "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        text = "\n".join([method, *[""] * 11]) + f"\n{named}{resource}"
        digest = hmac.digest(base64.b64decode(self.account_key), text.encode(), hashlib.sha256)
        return base64.b64encode(digest).decode()


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
