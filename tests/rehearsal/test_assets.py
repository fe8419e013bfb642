"""Environments, codes, data and models through the SDK: what is made, found, reused, refused."""

import uuid
from pathlib import Path

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import BuildContext, Data, Environment, Model
from azure.ai.ml.entities._assets import Code
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import ContainerClient

from devtools.rehearsal import API_HOST, BLOB_HOST, WORKSPACE, resource_id
from tests.rehearsal.raw import Arm

BASE = resource_id("workspaces", WORKSPACE)
MLMODEL = """
flavors:
  python_function:
    loader_module: mlflow.transformers
    python_version: 3.11.9
  transformers:
    source_model_name: tiny
    pipeline: {task: text-generation}
"""


@pytest.fixture(scope="module")
def arm(ml_client) -> Arm:
    return Arm()


def fresh(what: str) -> str:
    """A name that nothing has."""
    return f"{what}-{uuid.uuid4().hex[:8]}"


def written(ml_client: MLClient) -> set[str]:
    """The names of all blobs of the default datastore, with their times."""
    from azure.ai.ml._artifacts._artifact_utilities import get_datastore_info
    from azure.ai.ml._utils._storage_utils import get_storage_client

    client = get_storage_client(**get_datastore_info(ml_client.datastores, "workspaceblobstore"))
    return {(blob.name, blob.etag) for blob in client.container_client.list_blobs()}


@pytest.fixture
def table(tmp_path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text(f'{{"messages": [], "id": "{uuid.uuid4()}"}}\n')
    return file


@pytest.fixture
def mlflow_folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "inner" / "weights.bin").write_bytes(uuid.uuid4().bytes)
    return folder


def test_environment(ml_client):
    name = fresh("env")
    made = ml_client.environments.create_or_update(
        Environment(
            name=name, version="3", image="localhost:5000/runtime@sha256:" + "0" * 64, tags={"made-by": "phikit"}
        )
    )
    assert (made.name, made.version) == (name, "3")
    found = ml_client.environments.get(name, version="3")
    assert found.image == made.image
    assert found.tags == {"made-by": "phikit"}
    assert found.creation_context.created_by
    assert ml_client.environments.get(name, label="latest").version == "3"
    assert [one.version for one in ml_client.environments.list(name=name)] == ["3"]
    assert name in {one.name for one in ml_client.environments.list()}


def test_an_environment_without_a_version_gets_the_next_one_when_its_content_changes(ml_client):
    name = fresh("env")
    versions = [
        ml_client.environments.create_or_update(Environment(name=name, image=image, description=about)).version
        for image, about in [("python:3.11", "a"), ("python:3.11", "b"), ("python:3.12", "b")]
    ]
    assert versions == ["1", "1", "2"]
    assert ml_client.environments.get(name, "1").description == "b"
    assert ml_client.environments.get(name, label="latest").image == "python:3.12"


def test_an_environment_keeps_its_image(ml_client):
    name = fresh("env")
    ml_client.environments.create_or_update(Environment(name=name, version="1", image="python:3.11"))
    with pytest.raises(ResourceExistsError, match="already exists"):
        ml_client.environments.create_or_update(Environment(name=name, version="1", image="python:3.12"))


def test_an_environment_to_be_built(ml_client, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\n")
    made = ml_client.environments.create_or_update(
        Environment(
            name=fresh("built"), version="1", build=BuildContext(path=str(tmp_path), dockerfile_path="Dockerfile")
        )
    )
    assert made.build.dockerfile_path == "Dockerfile"
    assert f"https://{BLOB_HOST}/" in made.build.path


@pytest.mark.parametrize(("name", "version"), [("AzureML-mine", "1"), ("has blank", "1"), ("-a", "1"), ("a", "v@1")])
def test_names_that_no_environment_may_have(ml_client, name, version):
    with pytest.raises(HttpResponseError) as refused:
        ml_client.environments.create_or_update(Environment(name=name, version=version, image="python:3.11"))
    assert refused.value.status_code == 400
    assert refused.value.error.code == "UserError"


def test_an_asset_that_is_not_there(ml_client):
    for asset in (ml_client.environments, ml_client.data, ml_client.models):
        with pytest.raises(ResourceNotFoundError):
            asset.get("nobody", version="1")


def test_data_is_uploaded_once(ml_client, table):
    name = fresh("data")

    def create(version: str) -> Data:
        return ml_client.data.create_or_update(Data(name=name, version=version, path=str(table), type="uri_file"))

    first = create("1")
    assert first.path.startswith(f"azureml://subscriptions/{BASE.split('/')[2]}/resourcegroups/")
    there = written(ml_client)
    assert create("1").path == first.path
    assert create("2").path == first.path
    assert written(ml_client) == there
    # another content is another file
    table.write_text("{}\n")
    assert create("3").path != first.path
    assert len(written(ml_client)) == len(there) + 1


def test_data_keeps_its_path(ml_client, table):
    name = fresh("data")
    ml_client.data.create_or_update(Data(name=name, version="1", path=str(table), type="uri_file"))
    table.write_text("changed\n")
    with pytest.raises(ResourceExistsError, match="dataUri cannot be changed"):
        ml_client.data.create_or_update(Data(name=name, version="1", path=str(table), type="uri_file"))


def test_latest_is_the_newest_version(ml_client, table):
    name = fresh("data")
    for version in ("10", "9", "own"):
        ml_client.data.create_or_update(Data(name=name, version=version, path=str(table), type="uri_file"))
    assert ml_client.data.get(name, label="latest").version == "own"
    assert [one.version for one in ml_client.data.list(name=name)] == ["own", "9", "10"]
    assert ml_client.data.create_or_update(Data(name=name, path=str(table), type="uri_file")).version == "11"


def test_a_version_of_data_has_30_characters_at_most(ml_client, table):
    with pytest.raises(HttpResponseError, match="1 to 30 characters"):
        ml_client.data.create_or_update(Data(name="long", version="1" * 31, path=str(table), type="uri_file"))


def test_data_in_a_datastore_that_is_not_there(ml_client):
    with pytest.raises(ResourceNotFoundError, match="Datastore nobody"):
        ml_client.data.create_or_update(
            Data(name=fresh("data"), version="1", path="azureml://datastores/nobody/paths/a", type="uri_folder")
        )


def test_archived_data_is_out_of_the_list(ml_client, table):
    from azure.ai.ml.constants import ListViewType

    name = fresh("data")
    for version in ("1", "2"):
        ml_client.data.create_or_update(Data(name=name, version=version, path=str(table), type="uri_file"))
    ml_client.data.archive(name, version="1")
    assert [one.version for one in ml_client.data.list(name=name)] == ["2"]
    archived = ml_client.data.list(name=name, list_view_type=ListViewType.ARCHIVED_ONLY)
    assert [one.version for one in archived] == ["1"]
    ml_client.data.restore(name, version="1")
    assert len(list(ml_client.data.list(name=name))) == 2
    ml_client.data.archive(name)
    assert name not in {one.name for one in ml_client.data.list()}
    ml_client.data.restore(name)
    assert name in {one.name for one in ml_client.data.list()}


def test_pages_of_versions(arm, ml_client, table):
    name = fresh("data")
    for version in ("1", "2", "3"):
        ml_client.data.create_or_update(Data(name=name, version=version, path=str(table), type="uri_file"))
    first = arm.get(f"{BASE}/data/{name}/versions", params={"$top": "2", "$orderBy": "createdtime asc"}).json()
    assert [one["name"] for one in first["value"]] == ["1", "2"]
    second = arm.get(first["nextLink"]).json()
    assert [one["name"] for one in second["value"]] == ["3"]
    assert "nextLink" not in second


def test_code_is_uploaded_once(ml_client, tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "main.py").write_text(f"print('{uuid.uuid4()}')\n")
    codes = ml_client._operation_container.all_operations["codes"]
    first = codes.create_or_update(Code(name=str(uuid.uuid4()), version="1", path=str(folder)))
    assert first.path.startswith(f"https://{BLOB_HOST}/code-")
    assert first.path.endswith("/src")
    again = codes.create_or_update(Code(name=str(uuid.uuid4()), version="1", path=str(folder)))
    assert again.id == first.id


def test_model_from_a_folder_and_back(ml_client, mlflow_folder, tmp_path):
    name = fresh("model")
    made = ml_client.models.create_or_update(
        Model(name=name, path=str(mlflow_folder), type="mlflow_model", tags={"run": "sample"}, properties={"rank": "8"})
    )
    assert (made.version, made.type) == ("1", "mlflow_model")
    assert made.flavors["python_function"]["python_version"] == "3.11.9"
    found = ml_client.models.get(name, label="latest")
    assert (found.path, found.tags, found.properties) == (made.path, {"run": "sample"}, {"rank": "8"})
    ml_client.models.download(name, "1", download_path=str(tmp_path / "back"))
    back = tmp_path / "back" / name / "model"
    assert (back / "MLmodel").read_text() == MLMODEL
    assert (back / "inner" / "weights.bin").read_bytes() == (mlflow_folder / "inner" / "weights.bin").read_bytes()
    # the same again is the next version, without an upload
    assert (
        ml_client.models.create_or_update(Model(name=name, path=str(mlflow_folder), type="mlflow_model")).version == "2"
    )
    assert [one.version for one in ml_client.models.list(name=name)] == ["2", "1"]
    assert name in {one.name for one in ml_client.models.list()}
    ml_client.models.archive(name, version="2")
    assert [one.version for one in ml_client.models.list(name=name)] == ["1"]


def test_a_folder_without_a_model_is_none(ml_client, tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(HttpResponseError, match="There is no MLmodel file"):
        ml_client.models.create_or_update(
            Model(
                name=fresh("model"),
                version="1",
                path="azureml://datastores/workspaceblobstore/paths/nothing/here/",
                type="mlflow_model",
            )
        )


def test_a_model_of_a_job_that_is_not_there(ml_client):
    with pytest.raises(ResourceNotFoundError, match="The job nobody was not found"):
        ml_client.models.create_or_update(
            Model(name=fresh("model"), version="1", path="azureml://jobs/nobody/outputs/model", type="custom_model")
        )


@pytest.fixture
def job(ml_client, rehearsal, mlflow_folder) -> str:
    """A job that has ended with a model, as the store keeps it, and the model where such a job leaves it."""
    name = fresh("job")
    store = ml_client.datastores.get("workspaceblobstore", include_secrets=True)
    address = f"https://{BLOB_HOST}/{store.container_name}?{store.credentials.sas_token}"
    with ContainerClient.from_container_url(address) as container:
        for file in (file for file in mlflow_folder.rglob("*") if file.is_file()):
            container.upload_blob(f"azureml/{name}/model/{file.relative_to(mlflow_folder)}", file.read_bytes())
    outputs = {"model": {"jobOutputType": "mlflow_model", "mode": "ReadWriteMount", "uri": None}}
    rehearsal.store.put("jobs", name, {"name": name, "properties": {"status": "Completed", "outputs": outputs}})
    yield name
    rehearsal.store.delete("jobs", name)


@pytest.mark.parametrize("path", ["azureml://jobs/{}/outputs/model", "azureml://jobs/{}/outputs/model/paths/"])
def test_model_from_a_job(ml_client, job, tmp_path, path):
    name = fresh("model")
    made = ml_client.models.create_or_update(Model(name=name, path=path.format(job), type="mlflow_model"))
    assert made.path.endswith(f"/workspaces/{WORKSPACE}/datastores/workspaceblobstore/paths/azureml/{job}/model/")
    assert made.job_name == job
    assert set(made.flavors) == {"python_function", "transformers"}
    ml_client.models.download(name, made.version, download_path=str(tmp_path / "back"))
    assert (tmp_path / "back" / name / "model" / "MLmodel").read_text() == MLMODEL


def test_an_output_that_the_job_has_not(ml_client, job):
    with pytest.raises(ResourceNotFoundError, match=f"The job {job} has no output weights; it has: model"):
        ml_client.models.create_or_update(
            Model(name=fresh("model"), path=f"azureml://jobs/{job}/outputs/weights", type="mlflow_model")
        )


def test_a_model_keeps_its_path(ml_client, mlflow_folder):
    name = fresh("model")
    ml_client.models.create_or_update(Model(name=name, version="1", path=str(mlflow_folder), type="mlflow_model"))
    (mlflow_folder / "more.txt").write_text("more")
    with pytest.raises(ResourceExistsError):
        ml_client.models.create_or_update(Model(name=name, version="1", path=str(mlflow_folder), type="mlflow_model"))


def test_ids_are_resolved(arm, ml_client, table, mlflow_folder):
    data = ml_client.data.create_or_update(Data(name=fresh("data"), version="1", path=str(table), type="uri_file"))
    model = ml_client.models.create_or_update(
        Model(name=fresh("model"), version="1", path=str(mlflow_folder), type="mlflow_model")
    )
    lost = "azureml://locations/eastus2/workspaces/w/data/nobody/versions/1"
    identifier = f"azureml://locations/eastus2/workspaces/w/data/{data.name}/versions/1"
    found = ml_client.jobs._dataset_dataplane_operations.get_batch_dataset_uris([identifier, lost]).values_property
    assert {key: value.uri for key, value in found.items()} == {identifier: data.path}
    # (by hand: the SDK's own request for models ends in a TypeError of its own before it is sent)
    address = f"https://{API_HOST}/modelregistry/v1.0{BASE}/models/batchGetResolvedUris"
    values = arm.call("POST", address, json={"values": [model.id, lost]}).json()["values"]
    assert values == {model.id: {"path": model.path, "type": "mlflow_model"}}


def test_storage_that_refuses_to_write(ml_client, rehearsal, table):
    name = fresh("data")
    rehearsal.refuse("storage-write")
    with pytest.raises(HttpResponseError) as refused:
        ml_client.data.create_or_update(Data(name=name, version="1", path=str(table), type="uri_file"))
    rehearsal.refuse_nothing()
    assert refused.value.status_code == 403
    assert refused.value.error_code == "AuthorizationPermissionMismatch"
    # nothing is half made, and the next try goes through
    with pytest.raises(ResourceNotFoundError):
        ml_client.data.get(name, "1")
    assert (
        ml_client.data.create_or_update(Data(name=name, version="1", path=str(table), type="uri_file")).version == "1"
    )


def test_code_where_storage_refuses_to_write(ml_client, rehearsal, tmp_path):
    (tmp_path / "main.py").write_text(f"print('{uuid.uuid4()}')\n")
    codes = ml_client._operation_container.all_operations["codes"]
    code = {"version": "1", "path": str(tmp_path)}
    rehearsal.refuse("storage-write", times=1)
    with pytest.raises(HttpResponseError, match="AuthorizationPermissionMismatch"):
        codes.create_or_update(Code(name=str(uuid.uuid4()), **code))
    assert codes.create_or_update(Code(name=str(uuid.uuid4()), **code)).path
