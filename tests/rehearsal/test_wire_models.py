"""Every answer that the emulator gave so far, held against azure-ai-ml's own models of the wire.

The models of 1.35 are those of the newest API version for every older one that it sends, so a field that only an older
version has is not looked at here.
"""

import re
import uuid
from collections import Counter
from pathlib import Path

import pytest
from azure.ai.ml._restclient.arm_ml_service import models
from azure.ai.ml._restclient.dataset_dataplane import models as data_models
from azure.ai.ml._restclient.model_dataplane import models as model_models
from azure.ai.ml._restclient.runhistory import models as history_models
from azure.ai.ml.entities import AmlCompute, Data, Environment, Model
from azure.ai.ml.entities._assets import Code

from devtools.rehearsal import API_HOST, MANAGEMENT_HOST
from tests.rehearsal.wire_models import findings

PROVIDER = "/providers/Microsoft.MachineLearningServices"
WORKSPACE = re.compile(rf"^/subscriptions/[^/]+/resourceGroups/[^/]+{PROVIDER}/workspaces/[^/]+", re.IGNORECASE)
#: What a call about the workspace is answered with; a list: that many in `value`; None: nothing that has a model.
ANSWERS = {
    "": models.Workspace,
    "computes": [models.ComputeResource],
    "computes/*": models.ComputeResource,
    "datastores": [models.Datastore],
    "datastores/*": models.Datastore,
    "datastores/*/listSecrets": models.DatastoreSecrets,
    "environments": [models.EnvironmentContainer],
    "environments/*": models.EnvironmentContainer,
    "environments/*/versions": [models.EnvironmentVersion],
    "environments/*/versions/*": models.EnvironmentVersion,
    "codes/*/versions": [models.CodeVersion],
    "codes/*/versions/*": models.CodeVersion,
    "codes/*/versions/*/startPendingUpload": models.PendingUploadResponseDto,
    "data": [models.DataContainer],
    "data/*": models.DataContainer,
    "data/*/versions": [models.DataVersionBase],
    "data/*/versions/*": models.DataVersionBase,
    "models": [models.ModelContainer],
    "models/*": models.ModelContainer,
    "models/*/versions": [models.ModelVersion],
    "models/*/versions/*": models.ModelVersion,
    "jobs": [models.JobBase],
    "jobs/*": models.JobBase,
    "jobs/*/cancel": None,
    "onlineEndpoints": [models.OnlineEndpoint],
    "onlineEndpoints/*": models.OnlineEndpoint,
    "onlineEndpoints/*/listKeys": models.EndpointAuthKeys,
    "onlineEndpoints/*/regenerateKeys": None,
    "onlineEndpoints/*/token": models.EndpointAuthToken,
    "onlineEndpoints/*/deployments": [models.OnlineDeployment],
    "onlineEndpoints/*/deployments/*": models.OnlineDeployment,
    "onlineEndpoints/*/deployments/*/getLogs": models.DeploymentLogs,
    "onlineEndpoints/*/deployments/*/skus": [models.SkuResource],
}
#: The same for what belongs to the subscription.
LOCATIONS = {
    "usages": [models.Usage],
    "vmSizes": models.VirtualMachineSizeListResult,
    "quotas": [models.ResourceQuota],
    "mfeOperationsStatus": None,
    "mfeOperationResults": None,
}
#: And for the workspace's own services, by what stands before and behind the workspace.
SERVICES = {
    ("history", "rundata"): history_models.GetRunDataResult,
    ("data", "dataversion/batchGetResolvedUris"): data_models.BatchDataUriResponse,
    ("modelregistry", "models/batchGetResolvedUris"): model_models.BatchModelPathResponseDto,
}
#: What a model requires and the service leaves out, by the end of the finding.
LEFT_OUT = ("properties.credentials.secrets: is missing, and AccountKeyDatastoreCredentials requires it",)


def wildcard(tail: str) -> str:
    """`computes/cpu/listNodes` as `computes/*/listNodes`: every second part is a name."""
    parts = tail.strip("/").split("/")
    return "/".join("*" if number % 2 else part for number, part in enumerate(parts))


def known(table: dict, key: str):
    return next(one for name, one in table.items() if name.lower() == key.lower())


def declared(call: dict):
    """The model of a call's answer; raises StopIteration when nothing is known of the call."""
    path = call["path"]
    if call["host"] == API_HOST:
        match = re.match(r"^/(\w+)/v[\d.]+(/.*)$", path)
        inside = match and WORKSPACE.match(match[2])
        tail = match[2][inside.end() :].strip("/") if inside else ""
        if match and match[1] == "history" and re.fullmatch(r"(experiments/[^/]+/)?runs/[^/]+/details", tail):
            return history_models.RunDetails
        return SERVICES.get((match[1], tail)) if match else None
    if inside := WORKSPACE.match(path):
        if "/providers/Microsoft.Authorization/".lower() in path.lower():
            return None
        tail = path[inside.end() :].strip("/")
        if tail.lower().endswith("/listnodes"):
            return {"nodes": models.AmlComputeNodeInformation}
        return known(ANSWERS, wildcard(tail))
    if location := re.search(rf"{PROVIDER}/locations/[^/]+/(\w+)", path, re.IGNORECASE):
        return known(LOCATIONS, location[1])
    if path.lower().endswith(f"{PROVIDER}/workspaces".lower()):
        return [models.Workspace]
    # subscriptions, groups, roles, the registry, the storage account: azure-ai-ml has no models of these
    return None


def problems(call: dict) -> list[str]:
    answer, status = call["response"], call["status"]
    if not isinstance(answer, dict | list) or call["host"] not in (MANAGEMENT_HOST, API_HOST):
        return []
    if status >= 400:
        error = answer.get("error") if isinstance(answer, dict) else None
        if call["host"] == API_HOST and error is None:
            return []
        complete = isinstance(error, dict) and error.get("code") and error.get("message")
        return list(findings(answer, models.ErrorResponse)) if complete else [f"no error of ARM's shape: {answer}"]
    model = declared(call)
    if isinstance(model, list):
        return [one for value in answer["value"] for one in findings(value, model[0])]
    if isinstance(model, dict):
        return [one for key, inner in model.items() for value in answer[key] for one in findings(value, inner)]
    return list(findings(answer, model)) if model else []


@pytest.fixture(scope="module")
def exchanges(ml_client, rehearsal, tmp_path_factory) -> list[dict]:
    """What was said in this session, after a round of every asset, so that there is something when this runs alone."""
    _round(ml_client, tmp_path_factory.mktemp("round"))
    return list(rehearsal.calls())


def _round(ml_client, folder: Path) -> None:
    name = f"round-{uuid.uuid4().hex[:8]}"
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: own\n")
    ml_client.workspaces.get(ml_client.workspace_name)
    list(ml_client.workspaces.list())
    list(ml_client.compute.list_usage())
    list(ml_client.compute.list_sizes())
    list(ml_client.datastores.list(include_secrets=True))
    for operations, asset in [
        (ml_client.environments, Environment(name=name, version="1", image="python:3.11")),
        (ml_client.data, Data(name=name, version="1", path=str(folder), type="uri_folder")),
        (ml_client.models, Model(name=name, version="1", path=str(folder), type="mlflow_model")),
    ]:
        operations.create_or_update(asset)
        operations.get(name, label="latest")
        list(operations.list())
    codes = ml_client._operation_container.all_operations["codes"]
    codes.create_or_update(Code(name=str(uuid.uuid4()), version="1", path=str(folder)))
    cluster = AmlCompute(name=name[:20], size="Standard_DS3_v2", min_instances=1, max_instances=1)
    ml_client.compute.begin_create_or_update(cluster).result()
    list(ml_client.compute.list_nodes(cluster.name))
    list(ml_client.compute.list())
    ml_client.compute.begin_delete(cluster.name).result()


def test_every_call_was_emulated(exchanges):
    # (a test that asks for an unknown one on purpose says so in its path)
    lost = {(call["method"], call["host"], call["path"]) for call in exchanges if not call["emulated"]}
    assert not {one for one in lost if "not-emulated" not in one[2].lower()}


def test_every_answer_fits_its_model(exchanges):
    wrong: Counter[str] = Counter()
    for call in exchanges:
        try:
            found = problems(call)
        except StopIteration:
            found = ["nothing is known of this call: add it to this test's tables"]
        for one in (one for one in found if not one.endswith(LEFT_OUT)):
            wrong[f"{call['method']} {call['host']}{call['path']} {call['status']}: {one}"] += 1
    assert not wrong, "\n".join(sorted(wrong)[:40])


def test_there_was_something_to_check(exchanges):
    seen = Counter()
    for call in exchanges:
        if call["status"] < 400 and isinstance(call["response"], dict):
            model = declared(call)
            seen[getattr(model[0] if isinstance(model, list) else model, "__name__", str(model))] += 1
    expected = {"Workspace", "ComputeResource", "Datastore", "DatastoreSecrets", "EnvironmentVersion", "CodeVersion"}
    expected |= {"DataVersionBase", "ModelVersion", "ModelContainer", "PendingUploadResponseDto", "Usage"}
    assert expected <= seen.keys()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({}, None),
        ({"properties": None}, "properties: is missing"),
        ({"properties": {"modelUri": 5}}, "properties.modelUri: no str"),
        ({"properties": {"isArchived": "no"}}, "properties.isArchived: no bool"),
        ({"properties": {"flavors": {"a": []}}}, "properties.flavors.a: no object"),
        ({"properties": {"provisioningState": "Fine"}}, "properties.provisioningState: 'Fine' is none of"),
        ({"systemData": {"createdAt": "yesterday"}}, "systemData.createdAt: no time"),
    ],
)
def test_the_check_itself(change, finding):
    answer = {"id": "a", "name": "1", "type": "b", "properties": {"modelUri": "c", "flavors": {}}} | change
    found = list(findings(answer, models.ModelVersion))
    assert (not found) if finding is None else found[0].startswith(finding)


def test_the_check_follows_what_a_value_says_it_is():
    settings = {"minNodeCount": 0, "maxNodeCount": "1"}
    compute = {"properties": {"computeType": "AmlCompute", "properties": {"scaleSettings": settings}}}
    assert list(findings(compute, models.ComputeResource)) == [
        "properties.properties.scaleSettings.maxNodeCount: no int: '1'"
    ]
