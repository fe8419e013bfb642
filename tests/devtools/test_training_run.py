"""`phikit train`: what its options become, and what a job is told about where it comes from."""

import json
import subprocess

import pytest
import yaml

from devtools.errors import BadInput
from devtools.settings import ROOT, Settings
from devtools.training_run import Request, _overrides, code_version, one_line, train
from devtools.venv_backend import VenvBackend


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("0.5", 0.5),
        ("3", 3),
        ("true", True),
        ("no", "no"),
        ("Off", "Off"),
        ("'true'", "true"),
        ("null", None),
        ("", None),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("2026-11-22", "2026-11-22"),
        ("a=b", "a=b"),
        ("adamw_torch_fused", "adamw_torch_fused"),
    ],
)
def test_override_values_mean_what_people_mean(text, value):
    findings: list[str] = []
    (found,) = _overrides([f"key={text}"], findings).values()
    assert (found, type(found), findings) == (value, type(value), [])


def test_overrides_are_one_line_that_yaml_reads_back_and_that_fits_into_single_quotes():
    overrides = {"note": 'it\'s "two"\nlines', "rate": 1e-3, "modules": ["a"]}
    line = one_line(overrides)
    assert "\n" not in line
    assert "'" not in line
    assert yaml.safe_load(line) == json.loads(line) == overrides


def git(folder, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_code_version_is_the_commit_and_whether_it_was_changed(tmp_path):
    assert code_version(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert code_version(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_version(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert code_version(tmp_path) == f"{commit}-dirty"


def test_a_local_model_is_handed_over_by_its_whole_path(checkout):
    checkout.write("models/mine/config.json", "{}")
    done = checkout.phikit(
        "train", "--backend", "venv", "--model", "models/mine", "--set", "mode=facts", "--name", "one"
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads((checkout.root / "runs" / "one" / "facts.json").read_text())
    assert seen["argv"][seen["argv"].index("--model") + 1] == str(checkout.root / "models" / "mine")
    assert seen["environment"]["HF_HUB_OFFLINE"] == "1"


def test_a_hub_model_gets_the_hub(checkout):
    arguments = ("--backend", "venv", "--recipe", "phi3_5_mini_lora", "--set", "mode=facts", "--name", "one")
    done = checkout.phikit("train", *arguments, HF_TOKEN="t0ken")
    assert done.returncode == 0, done.stderr
    environment = json.loads((checkout.root / "runs" / "one" / "facts.json").read_text())["environment"]
    assert "HF_HUB_OFFLINE" not in environment
    assert environment["HF_TOKEN"] == "t0ken"
    assert environment["HF_HOME"] == str(checkout.root / "home" / ".cache" / "huggingface")


def test_a_recipe_file_of_ones_own_names_the_run(checkout):
    checkout.write("mine/careful.yaml", "model_name_or_path: tiny\n")
    done = checkout.phikit("train", "--backend", "venv", "--recipe", "mine/careful.yaml")
    assert done.returncode == 0, done.stderr
    (run,) = (checkout.root / "runs").glob("careful-*")
    assert json.loads((run / "job.json").read_text())["inputs"]["recipe"] == str(
        checkout.root / "mine" / "careful.yaml"
    )


def test_an_environment_without_the_packages_names_its_command(tmp_path):
    from devtools.backend import Task
    from devtools.errors import KitError

    with pytest.raises(KitError, match="lacks no_such_package: run `make setup-train`"):
        VenvBackend("").run(Task("x", "true", tmp_path, packages=("no_such_package",)))


def test_a_broken_job_file_is_reported_before_anything_runs(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "job.yaml").write_text("type: sweep\n")
    with pytest.raises(BadInput, match="type: is 'sweep', must be command"):
        train(Request(), VenvBackend(""), Settings(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training"]


def test_every_recipe_is_one_that_train_would_take():
    from devtools.training_run import _recipe

    for file in (ROOT / "training" / "recipes").glob("*.yaml"):
        findings: list[str] = []
        assert _recipe(file.stem, file.parent, findings) == (file.stem, file)
        assert findings == []
