"""What tests of the flows share: stores of conversations, SQLite's and Cosmos DB's, behind one fixture."""

from collections.abc import Iterator

import pytest

from tests.flows.stores import Emulator, Store, cosmos_store, emulating, sqlite_store


@pytest.fixture(scope="session")
def emulator(tmp_path_factory) -> Iterator[Emulator]:
    """Cosmos DB's emulator, for the whole session."""
    with emulating(tmp_path_factory.mktemp("cosmos")) as running:
        yield running


@pytest.fixture(params=["sqlite", "cosmos"])
def store(request, tmp_path) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "sqlite":
        made = sqlite_store(tmp_path / "kept" / "conversations.db")
    else:
        made = cosmos_store(request.getfixturevalue("emulator"))
    yield made
    made.close()


@pytest.fixture
def history(store):
    """The store, opened."""
    return store.open()
