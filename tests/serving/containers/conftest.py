"""The runtime image, built from the locks as they are."""

import pytest

from devtools import image
from devtools.settings import Settings
from tests.serving.containers.requests import IMAGE


@pytest.fixture(scope="session")
def runtime(engine) -> str:
    """The image's name, once it is built from the locks as they are."""
    image.ensure(engine, IMAGE, Settings.load())
    return IMAGE
