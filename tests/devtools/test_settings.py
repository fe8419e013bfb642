"""Settings: where they come from, that each is documented, and that no secret shows."""

import re
from dataclasses import fields

import flows.page.settings
import serving.settings
from devtools.settings import ROOT, SERVING, Settings, unknown_variables, variables


def test_the_example_documents_every_setting_and_nothing_else():
    lines = (ROOT / ".env.example").read_text().splitlines()
    documented = [line.partition("=")[0] for line in lines if re.match(r"[A-Z]", line)]
    assert sorted(documented) == sorted(variables())


def test_the_example_has_a_comment_before_each_setting_and_no_value():
    comment = False
    for line in (ROOT / ".env.example").read_text().splitlines():
        if line.startswith("#"):
            comment = not line.startswith("# ---")
        elif line:
            assert comment, f"{line} has no comment"
            assert line.endswith("="), f"{line} has a value: a copy of the file must change nothing"
        else:
            comment = False


def test_the_environment_wins_over_the_file_and_empty_is_unset(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("BASE_IMAGE=from-file\nHF_HOME=from-file\nHF_ENDPOINT=\n")
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BASE_IMAGE", "from-environment")
    settings = Settings.load(tmp_path)
    assert settings.environ() == {"BASE_IMAGE": "from-environment", "HF_HOME": "from-file"}
    assert settings.pick("HF_HOME", "HF_TOKEN") == {"HF_HOME": "from-file"}
    assert settings.hub_cache().name == "from-file"
    assert settings.hub_cache().is_absolute()


def test_a_copied_example_sets_nothing(tmp_path, monkeypatch):
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    assert Settings.load(tmp_path) == Settings()


def test_secrets_are_not_in_the_repr():
    secrets = {name: f"hidden-{name}" for name, secret in variables().items() if secret}
    assert {"HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PHIKIT_SERVE_KEY"} <= secrets.keys()
    names = {field.metadata["variable"]: field.name for field in fields(Settings)}
    settings = Settings(**{names[name]: value for name, value in secrets.items()})
    assert settings.environ() == secrets
    assert "hidden" not in repr(settings)


def test_a_misspelt_setting_is_found(tmp_path):
    (tmp_path / ".env").write_text("HF_TOKNE=x\n")
    assert unknown_variables(tmp_path) == {"HF_TOKNE": "did you mean HF_TOKEN?"}


def test_the_server_s_settings_are_those_that_the_server_reads():
    named = {name for name in variables() if name.startswith(SERVING)}
    assert named == set(serving.settings.variables().values())
    assert SERVING == serving.settings.PREFIX


def test_what_the_server_is_handed_is_its_own_and_nothing_else():
    settings = Settings(serve_queue="7", hf_token="hidden", compose_user="1:1")
    assert settings.serving() == {"PHIKIT_SERVE_QUEUE": "7"}


def test_the_page_s_settings_are_those_that_the_page_reads():
    named = {name for name in variables() if name.startswith(flows.page.settings.PREFIX)}
    assert named | {flows.page.settings.FLOW_URI} == set(flows.page.settings.variables().values())
