"""The network, the hub and the tracking store: a task gets what it needs and no more."""

from pathlib import Path

import pytest

from devtools.connections import connect, local_model, tracking_store
from devtools.errors import BadInput
from devtools.settings import Settings


def test_nothing_is_connected_that_need_not_be(tmp_path):
    settings = Settings(hf_home=str(tmp_path / "absent"), hf_token="t")
    found = connect(settings, hub=False, store=tmp_path)
    assert found.network == "none"
    assert found.environment == {"HF_HUB_OFFLINE": "1"}
    assert found.writes == (tmp_path,)


def test_the_hub_brings_network_cache_and_token(tmp_path):
    found = connect(Settings(hf_home=str(tmp_path), hf_token="t"), hub=True)
    assert found.network == "on"
    assert found.environment == {"HF_HOME": str(tmp_path), "HF_TOKEN": "t"}
    assert found.writes == (tmp_path,)
    assert "'t'" not in repr(found)


def test_an_existing_cache_is_there_without_network(tmp_path):
    found = connect(Settings(hf_home=str(tmp_path), hf_hub_offline="1"), hub=True)
    assert found.network == "none"
    assert found.environment == {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    ("uri", "network"),
    [
        ("http://localhost:5000", "host"),
        ("http://127.0.0.1:5000", "host"),
        ("https://tracking.example.org", "on"),
        ("azureml://eastus2.api.example.org/x", "on"),
    ],
)
def test_a_tracking_server_brings_the_network(tmp_path, uri, network):
    settings = Settings(hf_home=str(tmp_path / "absent"), mlflow_tracking_uri=uri, mlflow_tracking_token="t")
    found = connect(settings, hub=False, store=tmp_path)
    assert found.network == network
    assert found.environment == {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_TOKEN": "t"}
    with pytest.raises(BadInput, match="--network off: MLFLOW_TRACKING_URI names a server"):
        connect(settings, hub=False, choice="off", store=tmp_path)


def test_local_stores_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "runs"
    assert tracking_store(Settings(), store) == (f"sqlite:///{store}/mlflow.db", store)
    for uri, expected, folder in [
        ("sqlite:///mine.db", f"sqlite:///{tmp_path}/mine.db", tmp_path),
        ("sqlite:////srv/mine.db", "sqlite:////srv/mine.db", Path("/srv")),
        ("mlruns", str(tmp_path / "mlruns"), tmp_path / "mlruns"),
        ("file:///srv/mlruns", "file:///srv/mlruns", Path("/srv/mlruns")),
    ]:
        assert tracking_store(Settings(mlflow_tracking_uri=uri), store) == (expected, folder)


def test_which_models_are_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert local_model("mine") == tmp_path / "mine"
    assert local_model("./mine") == Path(tmp_path / "mine")
    for name in ("recipe", "tiny", "owner/name", "microsoft/Phi-3.5-mini-instruct", "gpt2"):
        assert local_model(name) is None
    for name, problem in (
        ("./no", "does not exist"),
        ("./owner", "holds no config.json"),
        ("/a/b/c", "does not exist"),
    ):
        with pytest.raises(BadInput, match=problem):
            local_model(name)
