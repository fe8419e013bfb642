"""The runtime image as the command line sees it: there, missing, or built from another lock."""

import hashlib

import pytest
import yaml

from devtools import image
from devtools.errors import BadInput
from devtools.settings import ROOT, Settings

pytestmark = pytest.mark.docker
OURS = "phikit-runtime:cpu"


def test_every_image_has_its_service_in_compose():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {name: services[service]["image"] for name, service in image.IMAGES.items()} == {
        name: name for name in image.IMAGES
    }


def test_an_image_of_another_lock_is_stale(engine, runtime_image, tmp_path):
    (tmp_path / "docker").mkdir()
    lock = tmp_path / "docker" / "runtime.lock"
    lock.write_text("changed")
    assert image.state(engine, runtime_image, tmp_path) == "stale"
    label = engine.images.get(runtime_image).labels[image.LOCK_LABEL]
    real = ROOT / "docker" / "runtime.lock"
    assert image.state(engine, runtime_image) == (
        "ready" if label == hashlib.sha256(real.read_bytes()).hexdigest() else "stale"
    )


def test_a_foreign_image_that_is_missing_is_named_with_its_fix(engine):
    assert image.state(engine, "phikit-no-such-image:latest") == "missing"
    with pytest.raises(BadInput, match="docker pull phikit-no-such-image:latest"):
        image.ensure(engine, "phikit-no-such-image:latest", Settings())
