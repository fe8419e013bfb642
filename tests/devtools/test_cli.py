"""The command line itself: how fast it starts, what its help shows, how it says that something is wrong."""

import os
import re
import subprocess
import sys
import time

import click
import pytest

from devtools.cli import cli
from devtools.settings import ROOT

#: Packages that take a noticeable time to import, or that not every environment has.
HEAVY = ["docker", "rich", "yaml", "dotenv", "requests", "torch", "transformers", "datasets", "mlflow", "pyarrow"]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


def test_the_command_line_imports_nothing_heavy():
    loaded = f"import sys, devtools.cli; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_help_is_there_within_a_quarter_of_a_second():
    def seconds() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "devtools.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
        return time.perf_counter() - begin

    # the quickest of some: other programs may keep the machine busy, none makes this one quicker
    assert min(seconds() for _ in range(5)) < 0.25


@pytest.mark.parametrize("path", commands(cli), ids=" ".join)
def test_every_help_has_examples_that_name_real_commands_and_options(path):
    done = subprocess.run(
        [sys.executable, "-m", "devtools.cli", *path, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.search("examples:", done.stdout, re.IGNORECASE)
    for example in re.findall(r"^ +(?:\w+=\S+ )?phikit (.+?)(?: {2,}.*)?$", done.stdout, re.MULTILINE):
        command: click.Command = cli
        words = example.split()
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert known >= {word for word in words if word.startswith("--")} or "arguments" in known, example


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["trian"], 2, "Did you mean 'train'?"),
        (["train", "--on-bad", "ignore"], 2, "'fail', 'drop'"),
        (["train", "--recipe", "tiny_cpuu"], 2, "error: --recipe tiny_cpuu: unknown; did you mean tiny_cpu?"),
        (["train", "--recipe", "no/such.yaml"], 2, "error: --recipe no/such.yaml: there is no such file"),
        (["train", "--set", "learning_rate"], 2, "error: --set learning_rate: is not key=value"),
        (["train", "--set", "a=1", "--set", "a=2"], 2, "error: --set a=2: a is set twice"),
        (["train", "--set", "a=[1"], 2, "error: --set a=[1: the value is not YAML"),
        (["train", "--set", "a=.nan"], 2, "error: --set a=.nan: the value is not a finite number"),
        (["train", "--name", "../out"], 2, "error: --name ../out: must be letters"),
        (["train", "--name", "latest"], 2, "error: --name latest"),
        (["train", "--model", "./no-model"], 2, "error: --model ./no-model: does not exist"),
        (["train", "--model", "./training"], 2, "error: --model ./training: holds no config.json"),
        (["runs", "rm", "nothing"], 2, "error: runs/nothing: there is no such run"),
        (["data", "check", "no-such.jsonl"], 2, "error: no-such.jsonl: no such file"),
        (["train", "--data", "no-such.jsonl"], 2, "error: no-such.jsonl: no such file"),
        (["serve"], 2, "error: runs/latest: no run is finished yet; train one (make local-train)"),
        (["serve", "--run", "nothing"], 2, "error: runs/nothing: there is no such run"),
        (["serve", "--model", "training"], 2, "error: --model training: no MLmodel file there"),
        (["serve", "--engine", "vllm"], 2, "'auto', 'transformers', 'onnx'"),
        (["serve", "--port", "70000"], 2, "1<=x<=65535"),
        (["export", "--run", "nothing"], 2, "error: runs/nothing: there is no such run"),
        (["export", "--format", "gguf"], 2, "'gguf' is not 'onnx'"),
    ],
)
def test_bad_input_is_a_line_and_exit_code_2(checkout, arguments, code, line):
    backend = ["--backend", "venv"] if arguments[0] in ("train", "serve", "export") else []
    before = sorted(checkout.root.rglob("*"))
    done = checkout.phikit(*arguments, *backend, DOCKER_HOST="unix:///no/engine.sock")
    assert done.returncode == code
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(checkout.root.rglob("*")) == before


def test_every_finding_comes_at_once(checkout):
    done = checkout.phikit("train", "--backend", "venv", "--recipe", "x", "--set", "y", "--name", "/", "--model", "./z")
    assert done.returncode == 2
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 4


def test_asking_for_docker_without_an_engine_fails_in_one_line(checkout):
    done = checkout.phikit("train", "--backend", "docker", DOCKER_HOST="unix:///no/engine.sock")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Docker engine answers: start one")
    assert len(done.stderr.splitlines()) == 1


def test_without_an_engine_the_virtual_environment_is_taken_and_said(checkout):
    done = checkout.phikit("backend", DOCKER_HOST="unix:///no/engine.sock")
    assert (done.returncode, done.stdout) == (0, "venv\n")
    assert done.stderr == "no Docker engine answers: using the virtual environment\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["runs"], ["--help"], ["runs", "rm", "nothing"]], ids=" ".join)
def test_a_reader_that_has_gone_is_no_traceback(checkout, arguments, unbuffered):
    checkout.write("runs/one/job.json", "{}")
    reader, output = os.pipe()
    # (before the program writes: `phikit runs | head` as it is when head is quick)
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "devtools.cli", *arguments],
            cwd=checkout.root,
            env=checkout.environment | {"PYTHONUNBUFFERED": unbuffered},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(output)
    # what goes wrong before anything is written is told as ever
    told = {2: "error: runs/nothing: there is no such run; `phikit runs` lists them\n", 1: ""}
    assert done.returncode == (2 if "rm" in arguments else 1)
    assert done.stderr == told[done.returncode]
