"""Looks this machine over: what `local-train` needs, what is there, and what mends each gap.

phikit doctor                     # exit code 1 if local-train can run neither in a container nor in the environment
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devtools import image
from devtools.connections import tracking_store
from devtools.errors import KitError, nearest
from devtools.local import engine
from devtools.local_server import is_free
from devtools.settings import ROOT, Settings, unknown_variables
from devtools.training_run import PACKAGES

OK, WARN, FAIL = "ok", "warn", "fail"
GIB = 1 << 30
#: What a training of tiny_cpu takes (measured: 1.1 GiB resident, 60 MiB on disk), with room.
DISK_LEAST, MEMORY_LEAST = 1 * GIB, 1.5 * GIB
#: What an image or an environment adds on disk, and what a model of some 100 M parameters takes in memory.
DISK_SETUP, MEMORY_GOOD = 10 * GIB, 4 * GIB
#: What the training packages add to .venv (measured: 2.0 GiB), with room.
DISK_ENVIRONMENT = 3 * GIB
#: What listens on this machine: the variable that names its port, and the port without one.
PORTS = {
    "MLflow's page": ("PHIKIT_MLFLOW_PORT", "5000"),
    "the scoring server": ("PHIKIT_SERVE_PORT", "5001"),
    "the chat page": ("PHIKIT_CHAT_PORT", "7860"),
    "the chat flow": ("PHIKIT_FLOW_PORT", "8080"),
}
#: Characters of a key that the scoring server takes, at least.
KEY_LEAST = 8
TRACKING_SCHEMES = ("http", "https", "sqlite", "file", "azureml", "postgresql", "mysql", "databricks")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str
    level: str
    text: str
    fix: str = ""


def examine(settings: Settings, root: Path = ROOT) -> list[Finding]:
    """Every finding; changes nothing, and takes a second or two."""
    findings = [_python(), *_engine(settings), _environment()]
    by_area = {finding.area: finding for finding in findings}
    neither = by_area["image"].level == FAIL and by_area["environment"].level == FAIL
    if neither and shutil.disk_usage(root).free < DISK_ENVIRONMENT:
        fix = f"free {DISK_ENVIRONMENT / GIB:.0f} GiB for the training packages; or: {by_area['image'].fix}"
        findings.append(Finding("local-train", FAIL, "neither way is open: no image, and no training packages", fix))
    elif neither:
        findings = [_softened(finding) for finding in findings]
        text = "runs in the virtual environment, after make local-train has put the training packages there"
        findings.append(Finding("local-train", WARN, text, "nothing; or: " + by_area["image"].fix))
    else:
        # one way is enough: the other one's gap is worth knowing, and no failure
        findings = [_softened(finding) for finding in findings]
        way = "in the virtual environment" if by_area["image"].level == FAIL else "in a container"
        findings.append(Finding("local-train", OK, f"runs {way}"))
    findings += [_gpu(), _disk(root, by_area["image"].level != OK), _memory(), _folders(root)]
    findings += [_port(settings, purpose, *of) for purpose, of in PORTS.items()]
    return findings + _settings(settings, root)


def can_train(findings: list[Finding]) -> bool:
    """Whether local-train can run: nothing failed."""
    return all(finding.level != FAIL for finding in findings)


def _softened(finding: Finding) -> Finding:
    soft = finding.level == FAIL and finding.area in ("engine", "image", "environment")
    return Finding(finding.area, WARN, finding.text, finding.fix) if soft else finding


def _python() -> Finding:
    # an older Python than the kit can use never comes here: make, and pip, refuse it
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", OK, f"{version} in {sys.prefix}")


def _engine(settings: Settings) -> list[Finding]:
    compose, buildx = image.compose_version(), image.buildx_version()
    plugins = [
        Finding("compose", OK, compose)
        if compose
        else Finding(
            "compose", WARN, "docker compose is missing", "install Docker's compose plugin: it builds the image"
        ),
        Finding("buildx", OK, buildx)
        if buildx
        else Finding("buildx", WARN, "docker buildx is missing", "install Docker's buildx plugin: it builds the image"),
    ]
    try:
        client = engine(settings)
    except KitError as error:
        text, _, fix = str(error).partition(": ")
        missing = Finding("image", FAIL, "needs an engine", "start Docker")
        return [Finding("engine", FAIL, text, fix), *plugins, missing]
    found = [Finding("engine", OK, f"Docker {client.version()['Version']}"), *plugins]
    for name in image.IMAGES:
        state = image.state(client, name)
        if state == "ready":
            found.append(Finding("image", OK, f"{name} is built and fits the locks"))
        elif name.endswith(":cpu"):
            text = f"{name} {'is not built yet' if state == 'missing' else 'was built from another lock'}"
            level = WARN if compose and buildx else FAIL
            found.append(Finding("image", level, text, "make image (local-train does so by itself)"))
    # the CPU image's finding comes last: it is the one that decides
    return sorted(found, key=lambda finding: (finding.area == "image", ":cpu" in finding.text))


def _environment() -> Finding:
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        return Finding(
            "environment", FAIL, f"lacks {', '.join(missing)}", "make setup-train (only needed without Docker)"
        )
    return Finding("environment", OK, "has the training packages")


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if not program:
        return Finding("gpu", OK, "none: training runs on the CPU")
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode:
        return Finding("gpu", WARN, "nvidia-smi fails", "mend the NVIDIA driver, or go on without a GPU")
    return Finding("gpu", OK, "; ".join(done.stdout.strip().splitlines()))


def _disk(root: Path, image_missing: bool) -> Finding:
    free = shutil.disk_usage(root).free
    text = f"{free / GIB:.0f} GiB free at {root}"
    if free < DISK_LEAST:
        return Finding(
            "disk", FAIL, text, "free some: a small run needs 1 GiB (phikit runs rm NAME, docker system prune)"
        )
    if image_missing and free < DISK_SETUP:
        return Finding("disk", WARN, text, "free some: the image or environment takes up to 10 GiB while it is made")
    return Finding("disk", OK, text)


def _memory() -> Finding:
    available = _available_memory()
    if available is None:
        return Finding("memory", WARN, "cannot be told on this system", f"have {MEMORY_GOOD / GIB:.0f} GiB free")
    text = f"{available / GIB:.1f} GiB available"
    if available < MEMORY_LEAST:
        return Finding("memory", FAIL, text, f"close something: tiny_cpu needs {MEMORY_LEAST / GIB:.1f} GiB")
    if available < MEMORY_GOOD:
        return Finding("memory", WARN, text, "enough for tiny_cpu; larger recipes say what they need in their header")
    return Finding("memory", OK, text)


def _available_memory() -> int | None:
    """Bytes that a program could still get, the cgroup's limit included; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        available = min(available, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no cgroup of its own, or no limit
    return available


def _folders(root: Path) -> Finding:
    for name in ("runs", "data"):
        folder = root / name
        place = folder if folder.exists() else root
        if folder.exists() and not folder.is_dir():
            return Finding("folders", FAIL, f"{folder} is a file", "move it away: runs and data are kept in folders")
        if not os.access(place, os.W_OK | os.X_OK):
            return Finding("folders", FAIL, f"{place} is not writable", f"sudo chown -R $(id -u):$(id -g) {place}")
    return Finding("folders", OK, "runs/ and data/ are writable")


def _port(settings: Settings, purpose: str, variable: str, default: str) -> Finding:
    told = settings.environ().get(variable, default)
    if not told.isdigit() or not 0 < int(told) < 1 << 16:
        return Finding("ports", WARN, f"{variable}: {told} is no port ({purpose} wants it)", "name one: 1 to 65535")
    port = int(told)
    if is_free(port):
        return Finding("ports", OK, f"{port} is free ({purpose})")
    return Finding(
        "ports", WARN, f"{port} is taken ({purpose} wants it)", f"see who has it: ss -ltnp 'sport = :{port}'"
    )


def _settings(settings: Settings, root: Path) -> list[Finding]:
    findings: list[Finding] = []

    def warn(name: str, text: str, fix: str) -> None:
        findings.append(Finding("settings", WARN, f"{name}: {text}", fix))

    if file := settings.ca_path():
        if not file.is_file():
            warn("PHIKIT_CA_FILE", f"there is no file {file}", "name a PEM file, or unset it")
        elif b"-----BEGIN CERTIFICATE-----" not in file.read_bytes():
            warn(
                "PHIKIT_CA_FILE",
                f"{file} holds no certificate in PEM form",
                "convert it: openssl x509 -inform der -in FILE",
            )
    if settings.wheels and not any((root / settings.wheels).glob("*.whl")):
        warn("PHIKIT_WHEELS", f"{settings.wheels} is no folder with wheels", "name one, or unset it")
    if settings.mlflow_tracking_uri:
        scheme = settings.mlflow_tracking_uri.partition(":")[0].partition("+")[0]
        _, folder = tracking_store(settings, root / "runs")
        if folder is None and scheme not in TRACKING_SCHEMES:
            warn("MLFLOW_TRACKING_URI", f"{scheme!r} is no scheme that MLflow knows", nearest(scheme, TRACKING_SCHEMES))
    if settings.hf_home and not os.access(_existing(settings.hub_cache()), os.W_OK):
        warn("HF_HOME", f"{settings.hub_cache()} is not writable", "name a folder of yours, or unset it")
    if settings.serve_model and not Path(settings.serve_model).expanduser().is_dir():
        warn("PHIKIT_SERVE_MODEL", f"there is no folder {settings.serve_model}", "name a model directory, or unset it")
    if settings.serve_key and any(len(key.strip()) < KEY_LEAST for key in settings.serve_key.split(",")):
        warn("PHIKIT_SERVE_KEY", f"holds a key of fewer than {KEY_LEAST} characters", "make one: openssl rand -hex 24")
    for name, hint in unknown_variables(root).items():
        warn(".env", f"{name} is no setting of the kit", hint)
    told = ", ".join(sorted(settings.environ())) or "none, the defaults hold"
    return findings or [Finding("settings", OK, f"set: {told}")]


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
