"""A server with a key and little patience, which is as healthy after every bad request as it was before."""

from collections.abc import Iterator

import pytest

from tests.serving.bad_requests.refusals import CANARY, KEY, PATIENCE
from tests.serving.server import GOOD, Server, serving


@pytest.fixture(scope="module")
def server(exported_model, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"engine": "onnx", "precision": "float32", "key": f"an-older-key,{KEY}", "patience": PATIENCE}
    with serving(exported_model, folder, **settings) as server:
        assert server.ask("/invocations", GOOD["/invocations"]).status == 200
        yield server
        server.is_healthy()
        server.end()
        assert CANARY not in server.out + server.err
        assert "Traceback" not in server.err


@pytest.fixture(autouse=True)
def nothing_is_left_in_work(server) -> Iterator[None]:
    yield
    server.until_idle()
