"""The program and one whole run of it, against which interrupted ones are compared."""

from collections.abc import Callable

import pytest

from tests.flows.parts import NO_BROWSER, NO_PARTS
from tests.training.conftest import refused  # noqa: F401 - a fixture
from tests.training.program import Program


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Program:
    """fine_tune.py with its data in one folder."""
    return Program(tmp_path_factory.mktemp("fine tune"))


@pytest.fixture(scope="session")
def whole(program) -> str:
    """The name of an uninterrupted run."""
    result = program.run("whole")
    assert result.returncode == 0, result.stderr
    return "whole"


@pytest.fixture(scope="session")
def curve(program) -> Callable[[str], dict[str, list[tuple[int, float]]]]:
    """A run's losses by step, as it tracked them; where steps were done twice, what was said last."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{program.runs / 'mlflow.db'}")

    def read(name: str) -> dict[str, list[tuple[int, float]]]:
        experiment = client.get_experiment_by_name("phikit")
        (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
        assert run.info.status == "FINISHED"
        found = {}
        for metric in ("train/loss", "eval/loss"):
            history = client.get_metric_history(run.info.run_id, metric)
            found[metric] = sorted({entry.step: entry.value for entry in history}.items())
        return found

    return read


def pytest_terminal_summary(terminalreporter) -> None:
    """Say loudly that the browser's tests were skipped: nothing else here opens the page as a person does."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    missing = [reason for reason in skipped if NO_BROWSER in reason or NO_PARTS in reason]
    if missing:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(missing)} tests of the chat page need what is not here; -ra names it")
