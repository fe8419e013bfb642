"""The server's settings: what they default to, what is refused, and that all of it is said at once."""

from dataclasses import fields
from pathlib import Path

import pytest

from serving.errors import BadInput
from serving.settings import PREFIX, Settings, variables
from tests.serving.server import run

#: A value of each setting that is refused.
WRONG = {
    "port": ["-1", "65536", "http", "1.5"],
    "anonymous": ["yes", "2"],
    "engine": ["vllm"],
    "slots": ["0", "-1", "many"],
    "context": ["0"],
    "kv_memory": ["0", "-1", "nan", "inf", "2GB"],
    "threads": ["-1"],
    "queue": ["-1"],
    "deadline": ["0", "nan", "1 minute"],
    "patience": ["0", "-2"],
    "drain": ["-1", "inf"],
    "max_body": ["0", "1e6"],
    "max_items": ["0"],
    "max_tokens": ["0"],
}


def findings(**told: str) -> list[str]:
    with pytest.raises(BadInput) as refused:
        Settings.load({PREFIX + name.upper(): value for name, value in told.items()})
    return refused.value.findings


def test_nothing_told_is_a_machine_of_ones_own():
    settings = Settings.load({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.key) == ("127.0.0.1", 5001, ())


def test_each_setting_has_its_variable_and_its_type():
    told = {
        "model": "a folder",
        "host": "::1",
        "port": "0",
        "name": "mine",
        "key": "first-key, second-key",
        "anonymous": "true",
        "engine": "onnx",
        "precision": "int4",
        "slots": "2",
        "context": "64",
        "kv_memory": "0.5",
        "threads": "3",
        "queue": "0",
        "deadline": "2.5",
        "patience": "1",
        "drain": "0",
        "max_body": "10",
        "max_items": "4",
        "max_tokens": "5",
    }
    assert set(told) == {field.name for field in fields(Settings)} == set(variables())
    settings = Settings.load({PREFIX + name.upper(): value for name, value in told.items()})
    assert settings == Settings(
        Path("a folder"), "::1", 0, "mine", ("first-key", "second-key"), True, "onnx", "int4",
        2, 64, 0.5, 3, 0, 2.5, 1.0, 0.0, 10, 4, 5,
    )  # fmt: skip


def test_empty_counts_as_unset():
    assert Settings.load(dict.fromkeys(variables().values(), "")) == Settings()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_that_cannot_be_used_is_named_with_its_variable(name, value):
    (finding,) = findings(**{name: value})
    assert finding.startswith(PREFIX + name.upper())


def test_azure_names_the_model_where_nobody_else_does():
    assert Settings.load({"AZUREML_MODEL_DIR": "/mounted"}).model == Path("/mounted")
    assert Settings.load({"AZUREML_MODEL_DIR": "/mounted", PREFIX + "MODEL": "mine"}).model == Path("mine")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.invalid"])
def test_others_reach_it_with_a_key_or_by_word_only(host):
    (finding,) = findings(host=host)
    assert finding.startswith(PREFIX + "HOST")
    assert PREFIX + "KEY" in finding
    assert PREFIX + "ANONYMOUS" in finding
    assert Settings.load({PREFIX + "HOST": host, PREFIX + "KEY": "long enough"}).host == host
    assert Settings.load({PREFIX + "HOST": host, PREFIX + "ANONYMOUS": "1"}).host == host


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.3.2.1", "::1"])
def test_loopback_needs_no_key(host):
    assert Settings.load({PREFIX + "HOST": host}).host == host


@pytest.mark.parametrize("key", ["short", "long enough,short", "schlüssel-lang", "new\nline key", ",", " , "])
def test_a_poor_key_is_refused_and_never_repeated(key):
    (finding,) = findings(key=key)
    assert finding.startswith(PREFIX + "KEY")
    assert not {part.strip() for part in key.split(",") if part.strip()} & set(finding.split())


def test_the_key_is_left_out_where_settings_are_shown():
    assert "canary" not in repr(Settings.load({PREFIX + "KEY": "canary-key"}))


def test_an_unknown_setting_is_named():
    (finding,) = findings(slotts="3")
    assert finding.startswith("PHIKIT_SERVE_SLOTTS")


def test_the_program_says_all_at_once_and_ends_with_2():
    result = run(port="x", engine="vllm", slots=0, host="0.0.0.0", deadline="nan", speed=9)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: PHIKIT_SERVE_") for line in lines)
    named = {line.removeprefix("error: PHIKIT_SERVE_").replace(":", " ").split()[0] for line in lines}
    assert named == {"PORT", "ENGINE", "SLOTS", "HOST", "DEADLINE", "SPEED"}
    assert result.stdout == ""


def test_a_host_that_others_reach_needs_a_key_before_anything_is_loaded(tmp_path):
    result = run(host="0.0.0.0", model=tmp_path)
    assert result.returncode == 2
    assert [line.split(" ")[1] for line in result.stderr.splitlines()] == ["PHIKIT_SERVE_HOST"]
