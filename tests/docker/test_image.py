"""The built CPU image: the locked versions, no code, any uid, a compiler that torch.compile can use.

pytest tests/docker/test_image.py
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.models.images import Image
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.docker

INVENTORY = """
import importlib.metadata, json
from packaging.markers import default_environment
packages = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
print(json.dumps({"packages": packages, "environment": default_environment()}))
"""


def test_holds_exactly_the_locked_versions(run: Callable[..., str]) -> None:
    found = json.loads(run(["python", "-c", INVENTORY]))
    installed = {canonicalize_name(name): version for name, version in found["packages"].items()}
    wanted = {}
    for lock in ("torch-cpu.lock", "runtime.lock"):
        for line in (REPO / "docker" / lock).read_text().splitlines():
            if re.match(r"[A-Za-z0-9]", line):
                requirement = Requirement(line.removesuffix("\\").strip())
                if requirement.marker is None or requirement.marker.evaluate(found["environment"]):
                    (specifier,) = requirement.specifier
                    wanted[canonicalize_name(requirement.name)] = specifier.version
    installed["torch"] = installed["torch"].removesuffix("+cpu")
    # pip comes with the environment, not from a lock
    del installed["pip"]
    assert installed == wanted


def test_labels_say_what_it_was_made_from(image: Image) -> None:
    digest = hashlib.sha256((REPO / "docker" / "runtime.lock").read_bytes()).hexdigest()
    assert image.labels["phikit.runtime.lock.sha256"] == digest, "stale image; run: docker compose build runtime"
    assert image.labels["phikit.torch.lock"] == "torch-cpu.lock"
    assert image.labels["org.opencontainers.image.base.name"]


def test_holds_no_code(run: Callable[..., str]) -> None:
    names = ["fine_tune.py", "job.yaml", "phikit-*.dist-info", "runtime.lock", "torch-c*.lock"]
    search = " -o ".join(f"-name '{name}'" for name in names)
    found = run(["bash", "-c", rf"find /phikit -mindepth 1; find / -xdev \( {search} \)"], user="0:0")
    # (empty: where compose mounts a volume)
    assert found == "/phikit/first-run\n"


def test_stranger_has_a_name_and_a_home(run: Callable[..., str]) -> None:
    said = run(
        ["bash", "-c", "id -u; echo note >~/note && cat ~/note; python -c 'import getpass; print(getpass.getuser())'"]
    )
    assert said.split() == ["4321", "note", "phikit"]


def test_files_belong_to_the_caller(run: Callable[..., str], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    run(["bash", "-c", "echo done >/phikit/runs/file"], volumes={str(tmp_path): {"bind": "/phikit/runs", "mode": "rw"}})
    owner = (tmp_path / "file").stat()
    assert (owner.st_uid, owner.st_gid) == (4321, 4321)


def test_root_is_the_default_user_as_azure_wants(image: Image, run: Callable[..., str]) -> None:
    assert image.attrs["Config"]["User"] in ("", "root")
    assert run(["bash", "-c", "id -u; echo note >~/note && cat ~/note"], user="").split() == ["0", "note"]


def test_packages_import_offline(run: Callable[..., str]) -> None:
    said = run(
        ["python", "-c", "import torch, trl, peft, mlflow, bitsandbytes, azureml.mlflow; print(torch.__version__)"]
    )
    assert said.strip() == "2.13.0+cpu"


def test_torch_compile_works_for_a_stranger(run: Callable[..., str]) -> None:
    program = "import torch; f = torch.compile(lambda x: (x.sin() + x).sum()); print(float(f(torch.ones(8))))"
    assert float(run(["python", "-c", program])) == pytest.approx(8 * (0.8414709848 + 1), rel=1e-5)
