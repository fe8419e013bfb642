"""An emulator a module that runs deployments as processes, and what deploys to it."""

from collections.abc import Iterator

import pytest

from devtools.rehearsal import session
from devtools.rehearsal.store import Store
from tests.rehearsal.conftest import Running
from tests.rehearsal.endpoints.small_serving import Serving
from tests.rehearsal.raw import Arm


@pytest.fixture(scope="module")
def runner() -> str:
    """What runs the deployments: process or docker."""
    return "process"


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory, runner) -> Iterator[Running]:
    """An emulator of the module's own: its tests may restart it."""
    home = tmp_path_factory.mktemp("endpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIKIT_REHEARSAL_RUNNER", runner)
        session.ensure_up(home)
        store = Store(home / "state.db")
        try:
            yield Running(home, store)
        finally:
            session.end(home)
            store.close()


@pytest.fixture(scope="module")
def serving(ml_client, tmp_path_factory) -> Serving:
    return Serving(ml_client, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def arm(ml_client) -> Arm:
    return Arm()
