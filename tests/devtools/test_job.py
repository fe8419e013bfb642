"""The job file: what is read from it, what is refused, and that values reach the program as they were given."""

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from devtools.errors import BadInput
from devtools.job import Job
from devtools.settings import ROOT

NASTY = [
    "plain",
    "two words",
    "it's",
    'say "hi"',
    "$HOME `id` $(id)",
    "a;b|c&d>e",
    "back\\slash",
    "*",
    "",
    "ünïcödé",
    "a\nb",
]


def write_job(folder: Path, command: str, **more: object) -> Path:
    job = {"type": "command", "command": command, "environment": {"image": "none"}, **more}
    file = folder / "job.yaml"
    file.write_text(json.dumps(job), encoding="utf-8")
    return file


def argv_of(command: str) -> list[str]:
    """What a program is really handed when bash runs the command."""
    printer = "python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    done = subprocess.run(
        ["bash", "-c", command.replace("program", printer, 1)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("form", ["program ${{inputs.x}}", 'program "${{inputs.x}}"', "program --x=${{ inputs.x }}"])
def test_values_reach_the_program_unchanged(tmp_path, form, value):
    job = Job.read(write_job(tmp_path, form, inputs={"x": "default"}))
    assert argv_of(job.resolve({"x": value}, {}).command)[0].removeprefix("--x=") == value


@pytest.mark.parametrize("value", [value for value in NASTY if "'" not in value])
def test_values_in_single_quotes_stay_raw(tmp_path, value):
    job = Job.read(write_job(tmp_path, "program \\' '${{inputs.x}}' \"'\" ${{inputs.x}}", inputs={"x": "default"}))
    assert argv_of(job.resolve({"x": value}, {}).command) == ["'", value, "'", value]


def test_a_single_quote_in_single_quotes_is_refused(tmp_path):
    job = Job.read(write_job(tmp_path, "program '${{inputs.x}}'", inputs={"x": "default"}))
    with pytest.raises(BadInput, match=r"inputs\.x: holds a single quote"):
        job.resolve({"x": "'; touch owned; '"}, {})


def test_defaults_come_from_the_file_and_booleans_stay_yaml(tmp_path):
    job = Job.read(
        write_job(tmp_path, "program ${{inputs.a}} ${{inputs.b}} ${{inputs.c}}", inputs={"a": 3, "b": True, "c": 0.5})
    )
    assert argv_of(job.resolve({"a": 4}, {}).command) == ["4", "true", "0.5"]


def test_paths_count_from_the_job_file(tmp_path):
    (tmp_path / "rows file.jsonl").write_text("{}\n")
    file = write_job(
        tmp_path,
        "program ${{inputs.rows}} ${{outputs.run}}",
        inputs={"rows": {"type": "uri_file", "path": "rows file.jsonl"}},
        outputs={"run": {"type": "uri_folder"}},
    )
    resolved = Job.read(file).resolve({}, {"run": tmp_path / "a run"})
    assert argv_of(resolved.command) == [str(tmp_path / "rows file.jsonl"), str(tmp_path / "a run")]
    assert resolved.reads == {"rows": tmp_path / "rows file.jsonl"}
    assert resolved.writes == {"run": tmp_path / "a run"}


def test_every_finding_is_reported_at_once(tmp_path):
    file = write_job(
        tmp_path,
        "program ${{inputs.recipee}} ${{search_space.lr}} $[[--x ${{inputs.x}}]]",
        type="sweep",
        code="nowhere",
        environment="azureml:named@latest",
        inputs={
            "recipe": "r",
            "x": [1],
            "y": {"type": "table"},
            "z": {"type": "uri_file", "path": "azureml://elsewhere"},
        },
        outputs={"run": {"type": "uri_fold"}},
    )
    with pytest.raises(BadInput) as caught:
        Job.read(file)
    text = "\n".join(caught.value.findings)
    assert all(finding.startswith(f"{file}: ") for finding in caught.value.findings)
    for part in (
        "type: is 'sweep'",
        "code: there is no folder",
        "environment.image: is missing",
        "inputs.x: is a list",
        "inputs.y.type: 'table' is not supported",
        "inputs.z.path: azureml://elsewhere lies elsewhere",
        "outputs.run.type: 'uri_fold' is not supported; did you mean uri_folder?",
        "unknown placeholder ${{inputs.recipee}}; did you mean inputs.recipe?",
        "unknown placeholder ${{search_space.lr}}",
        "$[[...]] (an optional input) is not understood",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("inputs", "outputs", "finding"),
    [
        ({"rows": Path("missing.jsonl")}, {"run": Path("r")}, "input rows: there is no missing.jsonl"),
        ({"rows": Path()}, {"run": Path("r")}, "is a folder, must be a file"),
        ({"rows": 3}, {"run": Path("r")}, "input rows: is a int, must be a path"),
        ({}, {"run": Path("r")}, "input rows: names no path"),
        ({"name": Path("job.yaml")}, {"run": Path("r")}, "this input is a plain value, not a file"),
        ({"nam": "x"}, {"run": Path("r")}, "input nam: the job has none; did you mean name?"),
        ({}, {}, "output run: has no folder"),
        ({"name": "a\0b"}, {"run": Path("r")}, "NUL"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(tmp_path, inputs, outputs, finding):
    file = write_job(tmp_path, "true", inputs={"name": "n", "rows": {"type": "uri_file"}}, outputs={"run": {}})
    with pytest.raises(BadInput, match=finding):
        Job.read(file).resolve(inputs, outputs)


@pytest.mark.parametrize("content", ["", "[]", "type: command\n  command: [", "\xff"])
def test_a_file_that_is_no_job_is_one_finding(tmp_path, content):
    (tmp_path / "job.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput) as caught:
        Job.read(tmp_path / "job.yaml")
    assert len(caught.value.findings) == 1
    assert "\n" not in caught.value.findings[0]


def test_a_missing_job_file_is_one_finding(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        Job.read(tmp_path / "job.yaml")


def test_the_kits_own_job_file_resolves(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(textwrap.dedent("""{"messages": []}\n"""))
    overrides = json.dumps({"learning_rate": 1e-3, "note": "it's"}).replace("'", "\\u0027")
    resolved = Job.read(ROOT / "training" / "job.yaml").resolve(
        {"train_file": rows, "eval_file": rows, "overrides": overrides}, {"run": tmp_path, "model": tmp_path / "model"}
    )
    argv = argv_of(resolved.command.replace("python fine_tune.py", "program"))
    given = dict(zip(argv[::2], argv[1::2], strict=True))
    assert json.loads(given["--overrides"]) == {"learning_rate": 1e-3, "note": "it's"}
    assert given["--train-file"] == str(rows)
    assert given["--model_output_dir"] == str(tmp_path / "model")
