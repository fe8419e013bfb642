"""The locks agree with pyproject.toml, with each other and with what the Dockerfile says of itself; no engine needed.

pytest tests/docker/test_locks.py
"""

import hashlib
import itertools
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
DOCKER = REPO / "docker"
#: Written by docker/lock.sh; `make test` installs them all into one environment.
RESOLVED = ["runtime.lock", "dev.lock", "azure.lock", "test.lock"]
LOCKS = [*RESOLVED, "flow.lock", "chat.lock", "agent.lock", "torch-cpu.lock", "torch-cu129.lock"]
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def locked(name: str) -> list[Requirement]:
    """The requirements of a lock, hashes and comments left out."""
    lines = (line for line in (DOCKER / name).read_text().splitlines() if re.match(r"[A-Za-z0-9]", line))
    return [Requirement(line.removesuffix("\\").strip()) for line in lines]


def pins(name: str) -> dict[str, set[str]]:
    """{package: versions} of a lock; several versions where they depend on the Python."""
    found: dict[str, set[str]] = {}
    for requirement in locked(name):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        found.setdefault(canonicalize_name(requirement.name), set()).add(specifier.version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_a_hash_and_no_source_of_one_machine(name: str) -> None:
    text = (DOCKER / name).read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    assert entries
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert all(line.startswith("--extra-index-url https://download.pytorch.org/whl/") for line in options), options
    assert not re.search(r"file:|--find-links|--index-url (?!https://download\.pytorch\.org)|@ ", text)


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("runtime.lock", PYPROJECT["dependency-groups"]["runtime"]),
        ("dev.lock", PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]),
        ("azure.lock", PYPROJECT["dependency-groups"]["azure"]),
        ("test.lock", PYPROJECT["dependency-groups"]["test"]),
        ("flow.lock", PYPROJECT["dependency-groups"]["flow"]),
        ("chat.lock", PYPROJECT["dependency-groups"]["chat"]),
        ("agent.lock", PYPROJECT["dependency-groups"]["agent"]),
    ],
)
def test_lock_satisfies_pyproject(lock: str, wanted: list[str]) -> None:
    versions = pins(lock)
    for requirement in map(Requirement, wanted):
        if requirement.name == "torch":
            continue
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in {lock}; run: make lock"
        outside = [version for version in versions[name] if version not in requirement.specifier]
        assert not outside, f"{requirement} excludes {outside} of {lock}; run: make lock"


@pytest.mark.parametrize("name", ["torch-cpu.lock", "torch-cu129.lock"])
def test_torch_locks_hold_the_torch_of_pyproject(name: str) -> None:
    (torch,) = [Requirement(line) for line in PYPROJECT["dependency-groups"]["runtime"] if line.startswith("torch==")]
    (version,) = pins(name)["torch"]
    assert version.split("+")[0] in torch.specifier
    metadata = tomllib.loads((DOCKER / "torch-metadata.toml").read_text())
    assert [entry["version"] for entry in metadata["dependency-metadata"]] == [version.split("+")[0]]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(RESOLVED, 2)))
def test_locks_agree_where_they_overlap(one: str, other: str) -> None:
    first, second = pins(one), pins(other)
    shared = first.keys() & second.keys()
    assert "certifi" in shared
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}


def test_runtime_lock_has_what_torch_needs_and_nothing_of_cuda() -> None:
    names = pins("runtime.lock").keys()
    assert {"filelock", "sympy", "networkx", "jinja2", "fsspec", "setuptools", "typing-extensions"} <= names
    assert not [name for name in names if re.match(r"torch$|triton|nvidia-|cuda-", name)]


def test_dockerfile_states_the_digest_of_the_runtime_lock() -> None:
    dockerfile = (DOCKER / "runtime.Dockerfile").read_text()
    (stated,) = re.findall(r'phikit\.runtime\.lock\.sha256="([0-9a-f]{64})"', dockerfile)
    actual = hashlib.sha256((DOCKER / "runtime.lock").read_bytes()).hexdigest()
    assert stated == actual, "docker/runtime.lock changed by hand; run: make lock"
