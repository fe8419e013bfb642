"""The store: documents by ARM id, in order, across a restart, from many threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from devtools.rehearsal.store import Store

W = "/subscriptions/S/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state" / "store.db")
    yield store
    store.close()


def test_ids_are_compared_without_regard_to_case(store):
    store.put(f"{W}/Jobs/One", {"name": "One"})
    assert store.get(f"{W}/jobs/ONE/") == {"name": "One"}
    assert store.get(f"{W}/jobs/two") is None


def test_children_are_direct_and_in_order_of_creation(store):
    for name in ("b", "a", "c"):
        store.put(f"{W}/models/{name}", {"name": name})
        store.put(f"{W}/models/{name}/versions/1", {"name": "1"})
    store.put(f"{W}/models/b", {"name": "b", "again": True})
    store.put(f"{W}/models_b/x", {"name": "x"})
    assert [document["name"] for document in store.children(f"{W}/models")] == ["b", "a", "c"]
    assert len(store.below(f"{W}/models")) == 6
    assert store.children(f"{W}/models/a/versions") == [{"name": "1"}]
    # an underscore is no wildcard
    store.put(f"{W}/modelsXb/y", {"name": "y"})
    assert store.children(f"{W}/models_b") == [{"name": "x"}]


def test_delete_says_whether_there_was_one(store):
    store.put(f"{W}/models/m", {})
    store.put(f"{W}/models/m/versions/1", {})
    assert store.delete(f"{W}/models/m")
    assert not store.delete(f"{W}/models/m")
    assert store.delete_below(f"{W}/models/m") == 1
    assert not store.below(W)


def test_what_was_put_survives_a_restart(store, tmp_path):
    store.put(f"{W}/jobs/one", {"status": "Running"})
    # (not closed: as after a kill)
    again = Store(tmp_path / "state" / "store.db")
    assert again.get(f"{W}/jobs/one") == {"status": "Running"}
    again.close()


def test_a_document_that_was_got_is_a_copy(store):
    store.put("/a", {"list": []})
    store.get("/a")["list"].append(1)
    assert store.get("/a") == {"list": []}


def test_threads_may_use_it_together(store):
    def work(number):
        store.put(f"{W}/jobs/{number}", {"number": number})
        return store.get(f"{W}/jobs/{number}")["number"]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(200))) == list(range(200))
    assert len(store.children(f"{W}/jobs")) == 200
