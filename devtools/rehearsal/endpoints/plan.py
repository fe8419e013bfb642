"""What a deployment is, read off its document and what that names: image, model, code, routes, probes, how many.

found = plan.read(rehearsal, deployment)      # raises WireError for a model, a code or an environment that is not there
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devtools.rehearsal.assets import addresses
from devtools.rehearsal.building import image_of
from devtools.rehearsal.endpoints import validation, wording
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import WireError, missing

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Containers that a deployment gets at most here, whatever its instance count is.
MOST_INSTANCES = 2
#: Where Azure puts models and code.
MODELS = "/var/azureml-app/azureml-models"
CODE = "/var/azureml-app"
#: Routes of an image that brings Azure's own inference server, for environments that say nothing of theirs.
ROUTES = {"livenessRoute": ("/", 5001), "readinessRoute": ("/", 5001), "scoringRoute": ("/score", 5001)}
#: The scoring route's name outside, whatever it is called in the container.
SCORE = "/score"
_ASSET = re.compile(r"(?:^|/)(models|environments|codes)/([^/]+)/versions/([^/]+)/?$", re.IGNORECASE)
_SHORT = re.compile(r"^azureml:([^:/]+):([^:/]+)$")


@dataclass(frozen=True)
class Probe:
    """When and how often a route is asked, and what that means."""

    path: str
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int


@dataclass(frozen=True)
class Folder:
    """Something of the storage that the container is given."""

    container: str
    path: str
    """Of a blob, or of all that begin so."""
    target: str
    """Where it is in the container."""
    name: str
    """What it is called below that."""


@dataclass(frozen=True)
class Plan:
    """All that is needed to start a deployment's containers."""

    image: str
    source: Document
    """The environment's properties: where the image comes from."""
    environment: dict[str, str]
    """What the containers find in theirs."""
    model: Folder | None
    code: Folder | None
    port: int
    scoring: str
    liveness: Probe
    readiness: Probe
    instances: int
    concurrent: int
    """Requests that one instance is given at once."""
    timeout: float
    """Seconds that a request may take."""


def read(rehearsal: Rehearsal, deployment: Document) -> Plan:
    """The plan of a deployment.

    Raises:
        WireError: what it names is not there, or cannot be started here.
    """
    told = deployment["properties"]
    environment = _environment(rehearsal, told.get("environmentId"))
    routes = _routes(environment)
    settings = told["requestSettings"]
    return Plan(
        image=image_of(environment),
        source=environment,
        environment=_variables(rehearsal, told),
        model=_model(rehearsal, told),
        code=_code(rehearsal, told),
        port=routes["scoringRoute"][1],
        scoring=routes["scoringRoute"][0],
        liveness=_probe(routes["livenessRoute"][0], told["livenessProbe"]),
        readiness=_probe(routes["readinessRoute"][0], told["readinessProbe"]),
        instances=min(deployment["sku"]["capacity"], MOST_INSTANCES),
        concurrent=settings["maxConcurrentRequestsPerInstance"],
        timeout=validation.seconds(settings["requestTimeout"]),
    )


def asset(rehearsal: Rehearsal, kind: str, identifier: str) -> tuple[str, str, dict[str, Any]]:
    """Name, version and properties of an asset by its id; raises WireError where there is none."""
    short, long = _SHORT.match(identifier), _ASSET.search(identifier)
    if long and long[1].lower() == kind:
        name, version = long[2], long[3]
    elif short:
        name, version = short[1], short[2]
    elif identifier.lower().startswith("azureml://registries/"):
        raise WireError(501, "NotEmulated", f"{identifier}: the rehearsal has no registries of models or environments")
    else:
        raise wording.user_error(f"{identifier!r} is no id of {kind}.")
    document = rehearsal.store.get(kind, f"{name}/{version}")
    if document is None:
        raise missing(kind.rstrip("s").capitalize(), f"{name}:{version}")
    return name, version, document["properties"]


def _environment(rehearsal: Rehearsal, identifier: str | None) -> dict[str, Any]:
    if not identifier:
        raise WireError(
            501,
            "NotEmulated",
            "the deployment names no environment: the rehearsal builds no image for an MLflow model; give it one",
        )
    *_, properties = asset(rehearsal, "environments", identifier)
    return properties


def _routes(environment: dict[str, Any]) -> dict[str, tuple[str, int]]:
    told = environment.get("inferenceConfig") or {}
    routes = dict(ROUTES)
    for name in ROUTES:
        if route := told.get(name):
            path, port = str(route.get("path") or ROUTES[name][0]), str(route.get("port") or ROUTES[name][1])
            if not port.isdecimal():
                raise wording.user_error(f"{name}: port {port} is no number.")
            routes[name] = ("/" + path.lstrip("/"), int(port))
    ports = {port for _, port in routes.values()}
    if len(ports) > 1:
        raise WireError(
            501,
            "NotEmulated",
            f"the environment's routes are on several ports ({', '.join(map(str, sorted(ports)))}): the rehearsal "
            "knows one port a container",
        )
    return routes


def _probe(path: str, told: dict[str, Any]) -> Probe:
    return Probe(
        path=path,
        initial_delay=validation.seconds(told["initialDelay"]),
        period=validation.seconds(told["period"]),
        timeout=validation.seconds(told["timeout"]),
        success_threshold=told["successThreshold"],
        failure_threshold=told["failureThreshold"],
    )


def _model(rehearsal: Rehearsal, told: dict[str, Any]) -> Folder | None:
    if not told.get("model"):
        return None
    name, version, properties = asset(rehearsal, "models", told["model"])
    root = (told.get("modelMountPath") or MODELS).rstrip("/")
    return _folder(rehearsal, properties["modelUri"], f"{root}/{name}/{version}")


def _code(rehearsal: Rehearsal, told: dict[str, Any]) -> Folder | None:
    configuration = told.get("codeConfiguration") or {}
    if not configuration.get("codeId"):
        return None
    *_, properties = asset(rehearsal, "codes", configuration["codeId"])
    return _folder(rehearsal, properties["codeUri"], CODE)


def _folder(rehearsal: Rehearsal, uri: str, target: str) -> Folder:
    place = addresses.blob(rehearsal, uri)
    if place is None:
        raise WireError(501, "NotEmulated", f"{uri}: is not in the rehearsal's storage, and it goes nowhere else")
    container, path = place
    path = path.strip("/")
    return Folder(container, path, target, path.rpartition("/")[2] or container)


def _variables(rehearsal: Rehearsal, told: dict[str, Any]) -> dict[str, str]:
    """What the container finds in its environment: Azure's own variables, then the deployment's."""
    own: dict[str, str] = {}
    if model := _model(rehearsal, told):
        own["AZUREML_MODEL_DIR"] = model.target
    if code := _code(rehearsal, told):
        own["AML_APP_ROOT"] = f"{code.target}/{code.name}"
        own["AZUREML_ENTRY_SCRIPT"] = told["codeConfiguration"].get("scoringScript") or ""
    return own | {name: str(value) for name, value in (told.get("environmentVariables") or {}).items()}
