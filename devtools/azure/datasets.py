"""The two files of a dataset as data assets of the workspace: uploaded once, by their content.

train, test = ensure(workspace, dataset)        # "azureml:phikit-train:1a2b3c4d5e6f7a8b"

The version is the content's digest: the same file is there already, and a changed one never takes its place.
"""

from __future__ import annotations

from pathlib import Path

from devtools import data
from devtools.azure.progress import say
from devtools.azure.refusals import is_missing, told
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace, uploading

TRAIN, TEST = "phikit-train", "phikit-test"
#: Characters of a digest that make a version.
SHORT = 16


def ensure(workspace: Workspace, dataset: data.Dataset) -> tuple[str, str]:
    """The names of both assets, uploaded where they are not there yet; raises KitError where storage refuses it."""
    return _ensure(workspace, TRAIN, dataset.train_file), _ensure(workspace, TEST, dataset.eval_file)


def _ensure(workspace: Workspace, name: str, file: Path) -> str:
    from azure.ai.ml.entities import Data
    from azure.core.exceptions import AzureError

    digest = data.digest(file)
    version = digest[:SHORT]
    with told(f"data {file.name}"):
        try:
            workspace.client.data.get(name, version)
        except AzureError as error:
            if not is_missing(error):
                raise
            say(f"data: uploading {data.near(file)} as {name}:{version}")
            asset = Data(name=name, version=version, path=str(file), type="uri_file", tags=ours(sha256=digest))
            with uploading():
                workspace.client.data.create_or_update(asset)
        else:
            say(f"data: {data.near(file)} is there as {name}:{version}")
    return f"azureml:{name}:{version}"
