"""What tests of several folders share: models, the Docker engine, and a say in the summary when there is none."""

import os
from collections.abc import Iterator

import pytest

from devtools.errors import KitError
from devtools.local import engine as connect
from devtools.settings import Settings

# (one of each for the whole session: here, rather than in every folder)
from tests.serving.models import exported_model, random_model, tiny_model  # noqa: F401

NO_ENGINE = "no Docker engine"
# Several processes that compute at once share the cores; threads that spin while they wait would take them from each
# other (on two cores a training beside two idle servers takes half as long again). Before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def engine() -> Iterator:
    """A client of the Docker engine. Without one the test is skipped; in CI (the variable is set) it fails.

    Nor is there one in the dev container: the engine whose socket it has mounts folders and publishes ports of the
    machine outside.
    """
    client, reason = None, "this is the dev container; run them outside"
    if not os.environ.get("IN_DEVCONTAINER"):
        try:
            client = connect(Settings.load())
        except KitError as error:
            reason = str(error)
    if client is None and os.environ.get("CI"):
        pytest.fail(f"{NO_ENGINE}, and CI must have one: {reason}", pytrace=False)
    if client is None:
        pytest.skip(f"{NO_ENGINE}: {reason}")
    yield client
    client.close()


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_ENGINE in str(report.longrepr)]
    if skipped:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{len(skipped)} tests need a Docker engine beside them, and there is none here: start one and run again"
        )
