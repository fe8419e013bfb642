"""The flow and the page as they really run, each in its own environment on a free port, ended by their process ids.

with flow(folder, scoring.url) as chat_flow, page(folder, chat_flow) as chat: ...
"""

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.tracking_server import free_port

ROOT = Path(__file__).parents[2]
#: The environments of flows/ lie beside the kit's own, wherever make has put that.
FLOW_PYTHON, CHAT_PYTHON, AGENT_PYTHON = (
    ROOT / f"{os.environ.get('VENV', '.venv')}-{name}" / "bin" / "python" for name in ("flow", "chat", "agent")
)
#: Seconds after which a test gives up; a loaded machine must not fail it.
DEADLINE = 120
#: What skips say, for the summary (tests/e2e/conftest.py).
NO_PARTS, NO_BROWSER = "no environment of the chat", "no Chromium"


def absent(reason: str) -> None:
    """Skip the test that asks; in CI (the variable is set) fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must have it", pytrace=False)
    pytest.skip(reason)


def needs(python: Path, target: str) -> None:
    """Skip or fail without that environment."""
    if not python.exists():
        absent(f"{NO_PARTS}: {python.parents[1].name} is missing; run: make {target}")


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without the kit's settings, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PHIKIT_")}
    return kept | {name: str(value) for name, value in settings.items()}


def prompt_flow(folder: Path, **settings: object) -> dict[str, str]:
    """The environment of a Prompt flow program whose home is `folder`/home; MLflow hears nothing of it."""
    needs(FLOW_PYTHON, "setup-flow")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "pf.yaml").write_text("telemetry:\n  enabled: false\ntrace:\n  destination: none\n")
    told = {"PF_HOME_DIRECTORY": home, "PF_TRACING_SKIP_LOCAL_SETUP": "true", "PF_DISABLE_TRACING": "true"}
    made = environment(**told, **settings)
    made.pop("MLFLOW_TRACKING_URI", None)
    return made


@contextlib.contextmanager
def running(command: list[str], log: Path, ready: Callable[[], bool], **settings: object) -> Iterator[subprocess.Popen]:
    """A process from when it is ready to the end of the block; what it says goes to `log`."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + DEADLINE
        while not ready():
            assert process.poll() is None, f"ended with {process.returncode}:\n{log.read_text()[-4000:]}"
            assert time.monotonic() < end, f"not ready within {DEADLINE} s:\n{log.read_text()[-4000:]}"
            time.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def status(url: str, headers: dict[str, str] | None = None) -> int:
    """The status that an address answers with; 0 when it does not."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextlib.contextmanager
def flow(folder: Path, scoring: str, base: str = "") -> Iterator[str]:
    """The address of the chat flow's /score, as `make flow-serve` starts it, over one or two scoring servers."""
    needs(FLOW_PYTHON, "setup-flow")
    port = free_port()
    command = [str(FLOW_PYTHON.with_name("pf")), "flow", "serve", "--source", "flows/chat", "--engine", "fastapi"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--skip-open-browser"]
    told = {
        "PHIKIT_ENDPOINT_URI": f"{scoring}/score",
        "PHIKIT_BASE_ENDPOINT_URI": f"{base}/score" if base else "",
        "PF_TRACING_SKIP_LOCAL_SETUP": "true",
        "PF_DISABLE_TRACING": "true",
        "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    }
    address = f"http://127.0.0.1:{port}"
    with running(command, folder / "flow.log", lambda: status(f"{address}/health") == 200, **told):
        yield f"{address}/score"


@contextlib.contextmanager
def page(folder: Path, flow_uri: str, history: dict[str, str] | None = None, **settings: object) -> Iterator[str]:
    """The address of the chat page, over that store or a file in `folder`; settings are PHIKIT_CHAT_…'s."""
    needs(CHAT_PYTHON, "setup-chat")
    log = folder / "page.log"
    told = {f"PHIKIT_CHAT_{name.upper()}": value for name, value in {"port": 0, **settings}.items()}
    told |= {"PHIKIT_FLOW_URI": flow_uri}
    told |= history or {"PHIKIT_HISTORY": f"sqlite:{folder / 'conversations.db'}"}

    def address() -> str:
        found = re.search(r"listening on (http://[^\s]+)", log.read_text())
        return found[1] if found else ""

    def ready() -> bool:
        return bool(address()) and status(f"{address()}/health") == 200

    with running([str(CHAT_PYTHON), "-m", "flows.page"], log, ready, **told):
        yield address()
