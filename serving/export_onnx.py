"""Export a model directory to ONNX, for CPU endpoints, and refuse a quantised one that has lost too much.

    python -m serving.export_onnx runs/latest/model --precision int4 --held-out data/test_data.jsonl
    python -m serving.export_onnx runs/latest/model --precision float32

The export joins the model directory as artifacts/onnx-<precision>/; it is built beside and renamed, so that a server
never sees half of one; of several precisions all are published, or none. int4 and int8 must pass a gate: against
float32, on held-out conversations, perplexity may grow by 5 % and 90 % of the greedy answers must stay the same, word
for word; an answer that differs need not be worse, but past that the model is another one. int4 is tried with scales
over 128 weights, which is fastest, then over 32.

Exit codes: 0 exported, 1 refused by the gate or failed, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from serving.chat import Chat
from serving.engine import EngineFailed
from serving.errors import BadInput
from serving.model_folder import ONNX_PRECISIONS, ModelFolder, find, read
from serving.onnx_builder import Failed, build, context_of
from serving.quality import ANSWER, Quality, Question, as_json, compare, read_questions

#: Weights that share a scale, tried in order: wide ones are faster, narrow ones nearer to the model. Of int8, 64 gives
#: the same answers whatever else is in the batch.
BLOCKS = {"int4": (128, 32), "int8": (64,)}
MOST_RATIO = 1.05
LEAST_AGREEMENT = 0.9
QUESTIONS = 200


@dataclass(frozen=True)
class Built:
    """An export that may be published."""

    precision: str
    folder: Path
    quality: Quality | None
    """None: nobody asked, or it is float32, which the others are compared with."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; see the module's description."""
    asked = _parser().parse_args(arguments)
    # Ctrl-C in a container arrives as SIGTERM too
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    # nothing here asks a hub, and nothing reports to anybody
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    try:
        export(asked)
    except BadInput as error:
        for finding in error.findings:
            print(f"error: {finding}", file=sys.stderr)
        return 2
    except (Failed, EngineFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was changed", file=sys.stderr)
        return 130
    return 0


def export(asked: argparse.Namespace) -> None:
    """Export every precision asked for, or none.

    Raises:
        BadInput: what was asked for cannot be used.
        Failed: the exporter failed, or the gate refuses a precision.
    """
    model = read(find(asked.model))
    precisions = list(dict.fromkeys(asked.precision or ["int4"]))
    if findings := _findings(asked, model, precisions):
        raise BadInput(findings)
    questions: list[Question] = []
    if asked.held_out:
        questions = read_questions(asked.held_out, Chat(model), context_of(model.weights), asked.questions)
    with _workshop(model.path / "artifacts") as work:
        reference = None
        if "float32" in precisions or (questions and "float32" not in model.onnx):
            reference = _build(model, "float32", None, work)
        built = []
        for precision in precisions:
            if precision == "float32":
                _describe(reference, asked, precision, None, None, [])
                built.append(Built(precision, reference, None))
            else:
                built.append(
                    _quantise(model, precision, reference or model.onnx.get("float32"), questions, work, asked)
                )
        # it takes milliseconds from here on: Ctrl-C comes too late
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for each in built:
            _publish(each.folder, model.path / "artifacts" / f"onnx-{each.precision}")
    _table(built, model.path / "artifacts")


def _findings(asked: argparse.Namespace, model: ModelFolder, precisions: list[str]) -> list[str]:
    """What keeps the export from beginning."""
    findings = []
    if not model.has_safetensors:
        findings.append(f"{model.weights}: holds no safetensors to export from")
    if not os.access(model.path / "artifacts", os.W_OK):
        findings.append(f"{model.path}: cannot be written to; change its permissions")
    if not asked.force and not asked.held_out and any(precision != "float32" for precision in precisions):
        findings.append("--held-out: is needed to judge a quantised export; name a JSONL file, or give --force")
    if asked.questions < 1:
        findings.append(f"--questions {asked.questions}: must be at least 1; --force publishes without any")
    if not asked.max_perplexity_ratio > 0:
        findings.append(f"--max-perplexity-ratio {asked.max_perplexity_ratio}: must be above 0")
    if not 0 <= asked.min_agreement <= 1:
        findings.append(f"--min-agreement {asked.min_agreement}: must be 0 to 1")
    findings += [
        f"{package}: is not installed; export where the runtime image's packages are"
        for package in ("onnxruntime_genai", "onnxruntime", "onnx", "torch")
        if importlib.util.find_spec(package) is None
    ]
    return findings


def _quantise(
    model: ModelFolder,
    precision: str,
    reference: Path | None,
    questions: list[Question],
    work: Path,
    asked: argparse.Namespace,
) -> Built:
    """Build and judge a quantised export.

    Raises:
        Failed: the gate refuses it.
    """
    quality, found = None, []
    for block in (asked.block_size,) if asked.block_size else BLOCKS[precision]:
        folder = _build(model, precision, block, work)
        if not questions:
            break
        print(f"comparing {precision} with float32 on {len(questions)} held-out conversations", flush=True)
        quality = compare(model, reference, folder, questions)
        found = quality.findings(asked.max_perplexity_ratio, asked.min_agreement)
        if not found:
            break
        print(f"{precision}, block size {block}: {'; '.join(found)}", flush=True)
    if found and not asked.force:
        raise Failed(f"{precision} is not published: {'; '.join(found)}. Publish it all the same with --force")
    _describe(folder, asked, precision, block, quality, found)
    return Built(precision, folder, quality)


def _describe(
    folder: Path,
    asked: argparse.Namespace,
    precision: str,
    block: int | None,
    quality: Quality | None,
    found: list[str],
) -> None:
    """Write quality.json."""
    facts = {
        "precision": precision,
        "block_size": block,
        "max_perplexity_ratio": asked.max_perplexity_ratio,
        "min_agreement": asked.min_agreement,
        "passed": None if quality is None else not found,
        "forced": precision != "float32" and (quality is None or bool(found)),
        "held_out": asked.held_out and asked.held_out.name,
        "answer_tokens_compared": ANSWER,
        **{f"version.{name}": metadata.version(name) for name in ("onnxruntime", "onnxruntime-genai")},
    }
    (folder / "quality.json").write_text(as_json(quality, facts), encoding="utf-8")


def _build(model: ModelFolder, precision: str, block: int | None, work: Path) -> Path:
    """An export in a folder of its own."""
    print(f"exporting {precision}" + (f", block size {block}" if block else ""), flush=True)
    folder = work / f"{precision}-{block}"
    build(model.weights, precision, block, folder, work / "cache")
    return folder


def _publish(folder: Path, target: Path) -> None:
    """Put a finished export in its place; an earlier one goes."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{target}", flush=True)


@contextlib.contextmanager
def _workshop(artifacts: Path) -> Iterator[Path]:
    """A folder beside the exports, on the same file system; gone afterwards, whatever happens.

    Raises:
        Failed: another export of this model is at work.
    """
    lock = os.open(artifacts, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"{artifacts}: another export of this model is running; wait for it") from None
        except OSError:
            # a file system without locks
            pass
        _tidy(artifacts)
        work = Path(tempfile.mkdtemp(prefix=".onnx-work-", dir=artifacts))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _tidy(artifacts: Path) -> None:
    """Clear up after a run that was killed; an export that it had put aside goes back."""
    for left in artifacts.glob(".onnx-*"):
        target = artifacts / left.name.removeprefix(".").removesuffix(".old")
        if left.name.endswith(".old") and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _table(built: list[Built], artifacts: Path) -> None:
    print(f"\n{'precision':<10}{'MB':>8}{'perplexity':>12}{'of float32':>12}{'same answers':>14}")
    for each in built:
        size = sum(file.stat().st_size for file in (artifacts / f"onnx-{each.precision}").iterdir()) / 1e6
        figures = ""
        if quality := each.quality:
            figures = f"{quality.perplexity:>12.4g}{quality.perplexity_ratio:>12.3f}{quality.agreement:>14.1%}"
        print(f"{each.precision:<10}{size:>8.1f}{figures}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.export_onnx", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="MLflow model directory")
    parser.add_argument(
        "--precision", action="append", choices=ONNX_PRECISIONS, help="may be given several times; default int4"
    )
    parser.add_argument("--held-out", type=Path, help="JSONL file of conversations that the model was not trained on")
    parser.add_argument("--force", action="store_true", help="publish whatever the gate says")
    parser.add_argument("--max-perplexity-ratio", type=float, default=MOST_RATIO, help="default %(default)s")
    parser.add_argument("--min-agreement", type=float, default=LEAST_AGREEMENT, help="0 to 1; default %(default)s")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="conversations at most; default %(default)s")
    parser.add_argument("--block-size", type=int, choices=(16, 32, 64, 128, 256), help="weights that share a scale")
    return parser


if __name__ == "__main__":
    sys.exit(main())
