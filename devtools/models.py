"""Which MLflow model directory a command means: --model, --run, PHIKIT_SERVE_MODEL, or the newest whole run's.

python -c 'from devtools import models; print(models.choose(None, None))'
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from devtools import data
from devtools.errors import BadInput
from devtools.runs import LATEST, Run, Runs
from devtools.settings import ROOT

MLMODEL = "MLmodel"
#: Folders between a registered model's mount and its MLmodel file, at most.
DEPTH = 3
#: Key of a model's metadata: the SHA-256 of the conversations that its run was judged on.
HELD_OUT_DIGEST = "data.eval.sha256"


def choose(run: str | None, model: str | None, setting: str | None = None, root: Path = ROOT) -> Path:
    """The model directory, absolute, links resolved: what was asked for, else `setting`, else that of runs/latest.

    Raises BadInput when both were asked for, or what is meant is no model directory.
    """
    if run and model:
        raise BadInput("--run and --model: name one of them")
    if run and run != LATEST:
        return _model_of(Runs(root / "runs").get(run), f"runs/{run}")
    if model or (setting and not run):
        option, named = ("--model", model) if model else ("PHIKIT_SERVE_MODEL", setting)
        folder = Path(named).expanduser()
        if not folder.is_dir():
            problem = "is a file" if folder.is_file() else "there is no such folder"
            raise BadInput(f"{option} {named}: {problem}; name an MLflow model directory, such as runs/{LATEST}/model")
        return _below(folder, f"{option} {named}")
    link = root / "runs" / LATEST
    if not link.exists():
        raise BadInput(f"runs/{LATEST}: no run is finished yet; train one (make local-train), or name --run or --model")
    return _model_of(Run(link.resolve()), f"runs/{LATEST}")


def held_out(model: Path, root: Path = ROOT) -> Path | None:
    """The file of conversations that the model's run was judged on and not trained on; None where it is gone.

    It is known by its digest: a file that changed since, or another dataset's, is never taken for it.
    """
    digest = _metadata(model).get(HELD_OUT_DIGEST)
    if not digest:
        return None
    recorded = Run(model.parent).job.get("files", {}).get("eval_file")
    places = [Path(recorded)] if recorded else []
    places += [root / "data" / data.TEST, *sorted((root / "data").glob(f"*/{data.TEST}"))]
    return next((file for file in places if file.is_file() and data.digest(file) == digest), None)


def open_up(model: Path) -> None:
    """Give a model's files the permissions that the caller's umask would: their writers left some to the owner alone.

    A server that runs as somebody else (compose.yaml's does) must be able to read them.
    """
    mask = os.umask(0o077)
    os.umask(mask)
    for path in (model, *model.rglob("*")) if model.is_dir() else ():
        # (what belongs to somebody else stays as they have it)
        if not path.is_symlink() and path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | ((0o555 if path.is_dir() else 0o444) & ~mask))


def _below(folder: Path, said: str) -> Path:
    """The model directory at `folder`, or below it as deep as the server looks."""
    for depth in range(DEPTH + 1):
        found = sorted(folder.glob("/".join(["*"] * depth + [MLMODEL])))
        if len(found) > 1:
            names = ", ".join(str(file.parent.relative_to(folder)) for file in found[:5])
            raise BadInput(f"{said}: holds several models ({names}); name one of them")
        if found:
            return found[0].parent.resolve()
    raise BadInput(f"{said}: no {MLMODEL} file there; name an MLflow model directory, such as runs/{LATEST}/model")


def _model_of(run: Run, name: str) -> Path:
    model = run.folder / "model"
    if not (model / MLMODEL).is_file():
        raise BadInput(f"{name}: has no model, the run is {run.state}; give its training again, or name another --run")
    return model.resolve()


def _metadata(model: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load((model / MLMODEL).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}  # the program that reads it says what is wrong with it
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return metadata if isinstance(metadata, dict) else {}
