"""Environments: an image, or what one is built from. Any image is taken: a job that pulls it shows if it can be had."""

from __future__ import annotations

import re
from typing import Any

from devtools.rehearsal.assets.asset import Asset
from devtools.rehearsal.wire import Call, WireError

#: host/name:tag@digest, without blanks.
_IMAGE = re.compile(r"^[\w][\w.\-/:]*(@sha256:[0-9a-f]{64})?$")
#: Names that begin so are Azure's own.
RESERVED = ("azureml", "microsoft")


class Environments(Asset):
    """Environments, by name and version."""

    kind = "environments"
    title = "Environment"
    fixed = ("image", "build", "condaFile", "inferenceConfig", "osType")

    def checked(self, call: Call, sent: dict[str, Any]) -> dict[str, Any]:
        """Either an image (with or without a conda file on top) or a build context."""
        name = call.params["name"]
        if name.lower().startswith(RESERVED):
            raise WireError(
                400, "UserError", f"Environment name {name}: names that begin so are reserved for Azure's own."
            )
        image, build = sent.get("image"), sent.get("build")
        if bool(image) == bool(build):
            raise WireError(400, "UserError", f"Environment {name} must have either an image or a build context.")
        if image and not _IMAGE.match(str(image)):
            raise WireError(400, "UserError", f"Environment {name}: {image!r} is no name of an image.")
        if build:
            if not isinstance(build, dict) or not build.get("contextUri"):
                raise WireError(400, "UserError", f"Environment {name}: build.contextUri is required.")
            build = {"contextUri": build["contextUri"], "dockerfilePath": build.get("dockerfilePath") or "Dockerfile"}
        return {
            "environmentType": "UserCreated",
            "image": image,
            "build": build,
            "condaFile": sent.get("condaFile"),
            "inferenceConfig": sent.get("inferenceConfig"),
            "osType": sent.get("osType") or "Linux",
        }
