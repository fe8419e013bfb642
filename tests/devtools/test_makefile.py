"""The Makefile: it prints its verbs, hands values on as they are, and installs nothing twice."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from devtools.cli import cli
from devtools.settings import ROOT

TEXT = (ROOT / "Makefile").read_text()


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    # what an outer make told its children is not meant for this one
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    # (the dev container sets these two)
    for name in ("VENV", "BACKEND"):
        environment.pop(name, None)
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder with a set-up environment whose `phikit` writes down how it was called."""
    locks = [f"docker/{name}.lock" for name in ("dev", "torch-cpu", "runtime", "azure", "test")]
    for file in ("Makefile", "pyproject.toml", *locks):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text('#!/bin/sh\necho pip "$@" >> calls\n')
    (programs / "phikit").write_text(
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        "print('venv') if sys.argv[1] == 'backend' else print(json.dumps(sys.argv[1:]))\n"
        "print(os.environ.get('PHIKIT_SERVE_KEY', 'no key'), file=sys.stderr)\n"
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    for stamp in (".setup", ".setup-train", ".setup-azure", ".setup-test"):
        (tmp_path / ".venv" / stamp).touch()
    return tmp_path


def test_make_alone_prints_every_verb_in_groups():
    done = make(ROOT)
    assert done.returncode == 0
    targets = set(re.search(r"^\.PHONY: (.*)$", TEXT, re.MULTILINE)[1].split()) - {"help", "python"}
    printed = re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)
    assert sorted(printed) == sorted(targets)
    assert re.findall(r"^\S.*$", done.stdout, re.MULTILINE) == re.findall(r"^##@ (.*)$", TEXT, re.MULTILINE)


def test_verbs_and_commands_agree():
    targets = set(re.findall(r"^([a-z-]+):", TEXT, re.MULTILINE))
    used = {words[0] for words in (line.split() for line in re.findall(r"\$\(PHIKIT\) ([a-z ]+)", TEXT))}
    assert used == set(cli.commands)
    assert {name for name in used if name not in targets} == {"train", "backend", "azure", "rehearsal"}
    # each command for Azure is a target of its own, but those that are there for another command
    azure = {name.removeprefix("azure-") for name in targets if name.startswith("azure-")}
    assert azure - {"rehearse", "chat"} == set(cli.commands["azure"].commands) - {"connect"}


def test_every_command_for_azure_can_be_rehearsed(installed):
    done = make(installed, "azure-train", "NAME=first", "SET=seed=1", "GPU=1", "YES=1", "DATA=my chats.jsonl")
    words = ["train", "--recipe", "tiny_cpu", "--data", "my chats.jsonl", "--name", "first", "--gpu", "--yes"]
    assert json.loads(done.stdout) == ["azure", *words, "--set", "seed=1"]
    done = make(installed, "azure-deploy", "RUN=it's mine", "YES=1", "REHEARSE=1")
    wrapped = ["rehearsal", "run", "--", ".venv/bin/phikit", "azure", "deploy", "--run", "it's mine", "--yes"]
    assert json.loads(done.stdout) == wrapped
    assert json.loads(make(installed, "azure-invoke", "QUESTION=Who?").stdout) == ["azure", "invoke", "Who?"]
    assert json.loads(make(installed, "azure-chat").stdout) == ["chat", "--target", "azure"]


def test_values_reach_the_command_as_they_are(installed):
    done = make(
        installed,
        "local-train",
        "RECIPE=small_cpu",
        'DATA=it\'s my "chats".jsonl',
        "MODEL=./a model",
        "SET=learning_rate=1e-3 num_train_epochs=2",
        "NAME=one",
        "ON_BAD=drop",
        "BACKEND=venv",
    )
    assert done.returncode == 0, done.stderr
    words = json.loads(done.stdout)
    assert words[0] == "train"
    assert list(zip(words[1::2], words[2::2], strict=True)) == [
        ("--recipe", "small_cpu"),
        ("--backend", "venv"),
        ("--data", 'it\'s my "chats".jsonl'),
        ("--model", "./a model"),
        ("--name", "one"),
        ("--on-bad", "drop"),
        ("--set", "learning_rate=1e-3"),
        ("--set", "num_train_epochs=2"),
    ]


def test_options_that_are_not_given_are_left_to_the_command(installed):
    done = make(installed, "local-train")
    assert json.loads(done.stdout) == ["train", "--recipe", "tiny_cpu", "--backend", "auto"]
    done = make(installed, "data", "SOURCE=my chats.jsonl", "OUT=data/my chats")
    assert json.loads(done.stdout) == ["data", "prepare", "my chats.jsonl", "--out", "data/my chats"]


def test_a_model_is_served_and_exported_as_it_was_asked_for(installed):
    done = make(installed, "serve", "RUN=first", "PORT=5002", "ENGINE=onnx", "PRECISION=int4", "HOST=0.0.0.0", "GPU=1")
    assert json.loads(done.stdout) == [
        *("serve", "--backend", "auto", "--run", "first", "--host", "0.0.0.0", "--port", "5002"),
        *("--engine", "onnx", "--precision", "int4", "--gpu"),
    ]
    done = make(
        installed, "export", "MODEL=my model", "PRECISION=int4 float32", "HELD_OUT=my questions.jsonl", "FORCE=1"
    )
    assert json.loads(done.stdout) == [
        *("export", "--format", "onnx", "--backend", "auto", "--model", "my model"),
        *("--held-out", "my questions.jsonl", "--precision", "int4", "--precision", "float32", "--force"),
    ]
    assert json.loads(make(installed, "serve").stdout) == ["serve", "--backend", "auto"]
    assert json.loads(make(installed, "mlflow").stdout) == ["mlflow"]


def test_the_key_is_in_no_command_line(installed):
    done = make(installed, "serve", "KEY=it's-a $$ecret")
    assert done.stderr.splitlines()[-1] == "it's-a $ecret"
    assert "ecret" not in done.stdout
    # unset, not empty: .env may have one
    assert make(installed, "serve").stderr.splitlines()[-1] == "no key"
    assert make(installed, "runs", "KEY=it's-a $$ecret").stderr.splitlines()[-1] == "no key"


def test_only_a_changed_lock_installs_again(installed):
    assert make(installed, "setup", "setup-train", "setup-test").returncode == 0
    assert not (installed / "calls").exists()
    stamp = installed / ".venv" / ".setup"
    lock = installed / "docker" / "dev.lock"
    os.utime(lock, (stamp.stat().st_mtime + 5,) * 2)
    assert make(installed, "setup").returncode == 0
    calls = (installed / "calls").read_text()
    assert "--require-hashes --requirement docker/dev.lock" in calls
    assert "runtime.lock" not in calls


def test_an_old_python_is_refused_in_one_line(tmp_path):
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "dev.lock").touch()
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = make(tmp_path, "setup", "PYTHON=./old-python")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(
        "error: Python 3.11 or newer is needed, Python 3.9.2 is what ./old-python is"
    )
    assert not (tmp_path / ".venv").exists()
