"""An emulator of the tests' own, in a folder of its own, really started; and the real SDK signed in to it."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtools.errors import KitError
from devtools.rehearsal import recorder, session
from devtools.rehearsal.refusals import Refusals
from devtools.rehearsal.store import Store
from devtools.settings import Settings, inherited


@dataclass
class Running:
    """The emulator that runs, and what a client of it needs."""

    home: Path
    store: Store

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a program to it."""
        return inherited() | session.environment(self.home)

    @property
    def outside(self) -> dict[str, str]:
        """Those of a person who calls `phikit rehearsal run` for it."""
        away = session.environment(self.home).keys() - {"PATH"}
        kept = {name: value for name, value in inherited().items() if name not in away}
        return kept | {"PHIKIT_REHEARSAL_HOME": str(self.home)}

    def refuse(self, name: str, times: int | None = None, **options: object) -> None:
        """As `phikit rehearsal refuse`."""
        Refusals(self.store).switch_on(name, times, **options)

    def refuse_nothing(self) -> None:
        """As `phikit rehearsal refuse --none`."""
        Refusals(self.store).switch_off()

    def calls(self) -> list[dict]:
        """The exchanges so far."""
        return list(recorder.read(self.home / recorder.FILE))


@pytest.fixture(scope="session", autouse=True)
def node() -> None:
    """The rehearsal's storage needs Node.js; without it these tests are skipped with the reason, in CI they fail."""
    if shutil.which("node") is None:
        reason = "NOT TESTED: no Node.js, which the rehearsal's storage (Azurite) runs on"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("rehearsal")
    session.ensure_up(home)
    store = Store(home / "state.db")
    try:
        yield Running(home, store)
    finally:
        session.end(home)
        store.close()


@pytest.fixture(autouse=True)
def nothing_is_refused(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test switched on ends with it."""
    yield
    if "rehearsal" in request.fixturenames:
        request.getfixturevalue("rehearsal").refuse_nothing()


@pytest.fixture(scope="module")
def signed_in(rehearsal: Running) -> Iterator[Running]:
    """This process's environment is that of a client, until the module's last test is done."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in session.environment(rehearsal.home).items():
            patch.setenv(name, value)
        yield rehearsal


@pytest.fixture(scope="module")
def ml_client(signed_in: Running):
    """The real SDK, unpatched."""
    from azure.ai.ml import MLClient
    from azure.identity import EnvironmentCredential

    return MLClient(
        EnvironmentCredential(),
        subscription_id=os.environ["AZURE_SUBSCRIPTION_ID"],
        resource_group_name=os.environ["AZURE_RESOURCE_GROUP"],
        workspace_name=os.environ["AZURE_WORKSPACE"],
    )


@pytest.fixture(scope="session")
def runtime_image(engine) -> str:
    """The image that jobs and endpoints run in."""
    from devtools import image

    name = "phikit-runtime:cpu"
    try:
        image.ensure(engine, name, Settings.load())
    except KitError as error:
        pytest.fail(f"{name} cannot be built: {error}", pytrace=False)
    return name
