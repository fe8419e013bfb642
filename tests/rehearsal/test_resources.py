"""What ARM resources share: ids, bodies, frames and lists."""

import pytest
from starlette.requests import Request

from devtools.rehearsal.errors import WireError
from devtools.rehearsal.resources import body, listing, resource, resource_id

W = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


def request(path=W, query=b"", content=b""):
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": [], "server": ("h", 443)}
    made = Request(scope | {"scheme": "https"})
    made.state.body = content
    return made


def document(name, moment):
    return {"name": name, "systemData": {"createdAt": moment, "lastModifiedAt": moment}}


def names(query):
    found = [document("a", "2026-01-01"), document("c", "2026-01-03"), document("b", "2026-01-02")]
    return [one["name"] for one in listing(request(query=query), found)["value"]]


def test_a_list_honours_order_and_count():
    assert names(b"") == ["a", "c", "b"]
    assert names(b"$orderBy=createdtime%20desc&$top=1") == ["c"]
    assert names(b"$orderBy=createdtime%20asc&$skip=1") == ["b", "c"]


def test_a_count_that_is_none_is_refused():
    with pytest.raises(WireError, match="numbers"):
        names(b"$top=many")


def test_the_id_of_a_data_plane_s_path():
    assert resource_id(request(f"/history/v1.0{W}/runs/r")) == f"{W}/runs/r"


@pytest.mark.parametrize("content", [b"", b"[1]", b"{"])
def test_a_body_is_a_json_object(content):
    with pytest.raises(WireError) as caught:
        body(request(content=content))
    assert caught.value.status == 400


def test_a_resource_keeps_the_moment_of_its_creation():
    first = resource(f"{W}/jobs/j", "jobs", {"a": 1})
    second = resource(f"{W}/jobs/j", "jobs", {"a": 2}, first, tags={"x": "y"})
    assert (second["name"], second["type"]) == ("j", "Microsoft.MachineLearningServices/workspaces/jobs")
    assert second["systemData"]["createdAt"] == first["systemData"]["createdAt"]
    assert second["tags"] == {"x": "y"}
