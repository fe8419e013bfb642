"""One training at a time in a run's folder, nothing left of a refused one, and models that appear whole.

python -m pytest tests/training/test_run_folder.py
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from errors import BadInput
from run_folder import FINISHED, digest, move_into_place, open_run, require_space, target_problem, write_json
from tests.training.program import TRAINING, small_disk, wait_for


def refusal(path: Path, fingerprint: str = "a") -> str:
    with pytest.raises(BadInput) as caught, open_run(path, fingerprint):
        pass
    (line,) = caught.value.findings
    return line


def tree(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def model(path: Path, word: str) -> Path:
    (path / "artifacts" / "weights").mkdir(parents=True)
    (path / "MLmodel").write_text(word)
    (path / "artifacts" / "weights" / "config.json").write_text(word)
    (path / f"only-{word}").write_text(word)
    return path


def test_state_is_kept_and_a_second_start_finds_it(tmp_path):
    folder = tmp_path / "runs" / "one"
    with open_run(folder, "a") as run:
        run.write_state(mlflow_run_id="x")
        run.cache.mkdir()
        run.before.write_text("{}")
    with open_run(folder, "a") as run:
        assert run.read_state() == {"fingerprint": "a", "state": "unfinished", "mlflow_run_id": "x"}
        assert run.before.exists()
        run.write_state(state=FINISHED)
        run.clean()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "run.json"]
    assert "this run is finished" in refusal(folder)


def test_run_of_other_inputs_is_refused_and_left_alone(tmp_path):
    with open_run(tmp_path, "a") as run:
        run.before.write_text("mine")
    before = tree(tmp_path)
    assert "holds a run of another recipe, model or dataset" in refusal(tmp_path, "b")
    assert tree(tmp_path) == before


def test_one_training_at_a_time(tmp_path):
    holder = "import sys; from run_folder import open_run; from pathlib import Path\n"
    holder += "with open_run(Path(sys.argv[1]), 'a'): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")],
        cwd=TRAINING,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    before = tree(tmp_path)
    assert "another training is writing this run" in refusal(tmp_path / "run")
    assert tree(tmp_path) == before
    process.kill()
    process.wait()
    with open_run(tmp_path / "run", "a") as run:
        assert run.read_state()["state"] == "unfinished", "the lock of a killed process is no lock"


def test_refused_run_leaves_nothing(tmp_path):
    def refuse(path: Path) -> None:
        with pytest.raises(BadInput), open_run(path, "a") as run:
            run.cache.mkdir()
            raise BadInput("no good")

    refuse(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # a folder that was there keeps what it held
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "job.json").write_text("{}")
    refuse(tmp_path / "there")
    assert sorted(tree(tmp_path / "there")) == [".lock", "job.json"]
    # and so does a run that had begun
    with open_run(tmp_path / "begun", "a") as run:
        run.before.write_text("{}")
    refuse(tmp_path / "begun")
    assert {"run.json", "before.json"} <= tree(tmp_path / "begun").keys()


def test_folders_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("kept")
    assert "is a file; give a folder as --run-dir" in refusal(tmp_path / "file")
    assert "cannot be written" in refusal(tmp_path / "file" / "below")
    assert "cannot be written" in refusal(Path("/proc/phikit-run"))
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text('{"fingerprint": "a", "st')
    assert "run.json: not readable; remove the folder" in refusal(tmp_path / "damaged")


def test_model_folder_that_cannot_be_one(tmp_path):
    run = tmp_path / "run"
    assert target_problem(run / "model", run) is None
    assert target_problem(tmp_path / "elsewhere" / "model", run) is None
    assert not (tmp_path / "elsewhere").exists(), "looking makes nothing"
    (tmp_path / "empty").mkdir()
    assert target_problem(tmp_path / "empty", run) is None
    (tmp_path / "file").write_text("")
    assert "is a file; give a folder as --model_output_dir" in target_problem(tmp_path / "file", run)
    assert "cannot be written" in target_problem(tmp_path / "file" / "model", run)
    theirs = model(tmp_path / "theirs", "old")
    assert "is not empty; give a new or empty folder" in target_problem(theirs, run)
    run.mkdir()
    (run / "run.json").write_text("{}")
    assert "is not empty" in target_problem(theirs, run), "another start's run has no right to it"
    (run / "run.json").write_text(json.dumps({"model_dir": str(theirs.resolve())}))
    assert target_problem(theirs, run) is None, "an unfinished run's own, from an earlier start"
    for holder in (run, tmp_path):
        assert "holds the run folder" in target_problem(holder, run)
    assert Path.cwd().is_dir() and target_problem(Path("model"), Path("run")) is None


def test_too_little_disk(tmp_path):
    require_space(tmp_path, 1000, "this run")
    with pytest.raises(BadInput, match=r"GB free, this run needs about 1000000\.0 GB; free some"):
        require_space(tmp_path, 10**15, "this run")


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    write_json(tmp_path / "a.json", {"é": 2})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"], "no half-written file either"


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a model"])
def test_model_appears_at_once(tmp_path, there):
    target = tmp_path / "model"
    if there == "an empty folder":
        target.mkdir()
    elif there == "a model":
        model(target, "old")
    source = model(tmp_path / "partial", "new")
    inode = (source / "MLmodel").stat().st_ino
    wanted = tree(source)
    move_into_place(source, target)
    assert tree(target) == wanted, "and nothing of an older one"
    assert (target / "MLmodel").stat().st_ino == inode, "renamed, not copied"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


MOVE = """
import os
from pathlib import Path
from run_folder import move_into_place
move_into_place(Path("partial"), Path("disk/model"))
files = [file for file in sorted(Path("disk/model").rglob("*")) if file.is_file()]
print(max(files, key=lambda file: file.stat().st_ctime_ns).name)
for file in files:
    print(file, file.read_text())
print(os.listdir("."))
"""


def test_model_is_copied_into_a_mount_with_mlmodel_last(tmp_path):
    source = model(tmp_path / "partial", "new")
    (source / "zzz").write_text("new")
    target = tmp_path / "disk" / "model"
    older = "mkdir disk/model/artifacts && echo old > disk/model/MLmodel && echo old > disk/model/artifacts/x"
    result = subprocess.run(
        [*small_disk(target, 8, older), sys.executable, "-c", MOVE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TRAINING)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    last, *files, left = result.stdout.splitlines()
    assert last == "MLmodel"
    assert files == [
        "disk/model/MLmodel new",
        "disk/model/artifacts/weights/config.json new",
        "disk/model/only-new new",
        "disk/model/zzz new",
    ]
    assert left == "['disk']"


def test_move_that_is_killed_leaves_no_model(tmp_path):
    source = model(tmp_path / "partial", "new")
    with (source / "aaa-large").open("wb") as large:
        large.truncate(3 << 30)  # takes a while to copy, but no disk before that
    target = tmp_path / "disk" / "model"
    process = subprocess.Popen(
        [*small_disk(target, 4000), sys.executable, "-c", MOVE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TRAINING)},
    )
    inside = Path(f"/proc/{process.pid}/root{target}")
    try:
        wait_for(lambda: (inside / "aaa-large").exists(), process)
        assert not (inside / "MLmodel").exists()
    finally:
        process.kill()
        process.wait()
    assert (source / "MLmodel").exists()
    shutil.rmtree(source)
