"""Whom the page answers: nobody's page of another site, and without a login nobody under a name that may lead anywhere.

pytest tests/flows/test_page_guard.py
"""

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.flows.parts import page

NOBODY = "http://127.0.0.1:1/score"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    with page(tmp_path_factory.mktemp("guard"), NOBODY, names="chat.example, other.example") as address:
        yield address


def status(address: str, method: str = "GET", path: str = "/export/chats.jsonl", **headers: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, headers=headers)
    return connection.getresponse().status


def test_its_own_names_and_addresses_are_answered(address):
    port = urlsplit(address).port
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:80", "10.1.2.3", "chat.example:80"):
        # (404: nothing is there to export yet)
        assert status(address, Host=host) == 404, host


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{7860}", "127.0.0.1.evil.example", "[::1", ""])
def test_no_other_name_is(address, host):
    assert status(address, Host=host) == 421
    assert status(address, path="/", Host=host) == 421


def test_another_sites_page_is_refused(address):
    own = urlsplit(address).netloc
    assert status(address, path="/", Origin=f"http://{own}") == 200
    for origin in ("http://evil.example", "null", f"http://{own}.evil.example"):
        assert status(address, path="/", Origin=origin) == 403
        assert status(address, "POST", "/gradio_api/queue/join", Origin=origin) == 403


def test_files_are_not_taken(address):
    assert status(address, "POST", "/gradio_api/upload") == 404


def test_who_has_a_login_reaches_it_under_any_name(tmp_path):
    with page(tmp_path, NOBODY, logins="ada:a long password") as address:
        assert status(address, Host="chat.example") == 401
        assert status(address, Host="chat.example", Authorization="Basic YWRhOmEgbG9uZyBwYXNzd29yZA==") == 404
