"""What a task needs beyond this machine's files: the hub and its cache, the tracking store, and so the network.

A task gets the network only when it needs one; without it, hub libraries are told to look no further than the cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from devtools.errors import BadInput
from devtools.settings import Settings

CHOICES = ("auto", "on", "off")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HUB_VARIABLES = ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE")
TRACKING_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
#: Model names that mean no hub: the recipe's own, and the embedded model.
NO_HUB = ("recipe", "tiny")
PATH_LIKE = re.compile(r"^([.~/]|.*/.*/)")


@dataclass(frozen=True)
class Connections:
    """The part of a task that connects it: see the fields of the same names in backend.Task."""

    network: str = "none"
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    writes: Sequence[Path] = ()


def connect(settings: Settings, *, hub: bool, choice: str = "auto", store: Path | None = None) -> Connections:
    """Connections for a task that asks the hub if `hub` and, given a folder for the default `store`, tracks its run.

    `choice` is `--network`: auto, on or off. Raises BadInput when it is off and tracking needs the network.
    """
    environment: dict[str, str] = {}
    writes: list[Path] = []
    needed, loopback = hub and not settings.hf_hub_offline, False
    if store:
        uri, folder = tracking_store(settings, store)
        environment |= settings.pick(*TRACKING_VARIABLES)
        if settings.mlflow_tracking_uri:
            # else the training makes its own store there, and its artifacts' place with it
            environment["MLFLOW_TRACKING_URI"] = uri
        if folder:
            writes.append(folder)
        else:
            if choice == "off":
                raise BadInput("--network off: MLFLOW_TRACKING_URI names a server; leave one of them out")
            needed, loopback = True, urlsplit(uri).hostname in LOOPBACK
    network = "none"
    if choice == "on" or (choice == "auto" and needed):
        # a container's own loopback is not this machine's, where a server on localhost listens
        network = "host" if loopback else "on"
    cache = settings.hub_cache()
    if hub or choice == "on" or os.access(cache, os.W_OK | os.X_OK):
        writes.append(cache)
        environment |= settings.pick(*HUB_VARIABLES) | {"HF_HOME": str(cache)}
    if network == "none":
        environment["HF_HUB_OFFLINE"] = "1"
    return Connections(network, environment, tuple(dict.fromkeys(writes)))


def tracking_store(settings: Settings, default: Path) -> tuple[str, Path | None]:
    """The tracking URI, made absolute, and the folder that it writes to; None when it names a server."""
    uri = settings.mlflow_tracking_uri
    if not uri:
        return f"sqlite:///{default.absolute()}/mlflow.db", default.absolute()
    scheme = urlsplit(uri).scheme
    if scheme == "sqlite":
        file = Path(uri.partition(":///")[2]).absolute()
        return f"sqlite:///{file}", file.parent
    if scheme in ("", "file"):
        folder = Path(urlsplit(uri).path).absolute()
        return (folder.as_uri() if scheme else str(folder)), folder
    return uri, None


def local_model(name: str) -> Path | None:
    """The folder that a model name means, absolute, or None when it is a name of the hub or of the kit.

    Raises BadInput for a path that is no model folder.
    """
    path = Path(name).expanduser()
    if name in NO_HUB:
        return None
    if (path / "config.json").is_file():
        return path.absolute()
    if not PATH_LIKE.match(name):
        return None
    problem = "is a file" if path.is_file() else "holds no config.json" if path.is_dir() else "does not exist"
    raise BadInput(f"--model {name}: {problem}; name a model folder, or a model of the hub (owner/name)")
