"""A run's model exported to ONNX beside its weights, for the scoring server's CPU engine.

phikit export --format onnx
phikit export --run first --precision int4 --precision float32
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools import models
from devtools.backend import Backend, Task
from devtools.data import near
from devtools.errors import OK, BadInput
from devtools.settings import ROOT, Settings

PRECISIONS = ("int4", "int8", "float32")
#: Modules that serving/export_onnx.py imports beyond the standard library.
PACKAGES = ("onnxruntime_genai", "onnx_ir", "torch", "transformers")


@dataclass(frozen=True)
class Request:
    """What `phikit export` was asked for; the fields are its options."""

    run: str | None = None
    model: str | None = None
    precision: Sequence[str] = ()
    held_out: str | None = None
    force: bool = False
    arguments: Sequence[str] = ()
    """Options for serving/export_onnx.py alone."""


def export(request: Request, backend: Backend, settings: Settings, root: Path = ROOT) -> int:
    """Export as requested and return the exit code of what ran; raises BadInput before anything has run."""
    findings: list[str] = []
    model = None
    try:
        model = models.choose(request.run, request.model, settings.serve_model, root)
    except BadInput as error:
        findings += error.findings
    precisions = list(dict.fromkeys(request.precision)) or [PRECISIONS[0]]
    held_out = Path(request.held_out).expanduser().absolute() if request.held_out else None
    if held_out and not held_out.is_file():
        findings.append(f"--held-out {request.held_out}: there is no such file; name a JSONL file of conversations")
    if model and not request.held_out:
        held_out = models.held_out(model, root)
        if held_out is None and not request.force and precisions != ["float32"]:
            findings.append(
                f"--held-out: the conversations that {near(model)} was judged on are not in data/ any more; name a "
                "JSONL file of conversations that it was not trained on (or --force, to judge nothing)"
            )
    if findings or model is None:
        raise BadInput(findings)
    command = ["exec", "python", "-m", "serving.export_onnx", str(model)]
    command += [word for precision in precisions for word in ("--precision", precision)]
    command += ["--held-out", str(held_out)] if held_out else []
    command += ["--force"] if request.force else []
    task = Task(
        name="export",
        # (the package's parent is where it starts from)
        command=f"cd .. && {shlex.join([*command, *request.arguments])}",
        code=root / "serving",
        reads=(held_out,) if held_out else (),
        writes=(model,),
        packages=PACKAGES,
        grace=10,
    )
    code = backend.run(task)
    if code == OK:
        models.open_up(model)
    return code
