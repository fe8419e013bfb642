"""Export a model directory to ONNX, for CPU endpoints, and refuse a quantised one that has lost too much.

    python -m serving.export_onnx runs/latest/model --precision int4 --held-out data/test_data.jsonl
    python -m serving.export_onnx runs/latest/model --precision float32

The export joins the model directory as artifacts/onnx-<precision>/; it is built beside and renamed, so that a server
never sees half of one. int4 and int8 must pass a gate: against float32, on held-out conversations, perplexity may grow
by 5 % and 90 % of the greedy answers must stay word for word the same; an answer that differs need not be worse, but
past that the model is another one. int4 is tried with scales over 128 weights, which is fastest, then over 32.

Exit codes: 0 exported, 1 refused by the gate or failed, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from serving.chat import Chat
from serving.engine import EngineFailed
from serving.errors import BadInput
from serving.model_folder import ModelFolder, find, read
from serving.quality import LONGEST, Quality, as_json, compare, read_questions

#: The exporter's names of the precisions.
NAMES = {"int4": "int4", "int8": "int8", "float32": "fp32"}
#: Weights that share a scale, tried in order: wide ones are faster, narrow ones nearer to the model. Of int8, 64 gives
#: the same answers whatever else is in the batch.
BLOCKS = {"int4": (128, 32), "int8": (64,), "float32": (None,)}
MOST_RATIO = 1.05
LEAST_AGREEMENT = 0.9
QUESTIONS = 200


class Failed(Exception):
    """The export did not come about; nothing was changed."""


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
    """Export each precision asked for, in order.

    Raises:
        BadInput: what was asked for cannot be used.
        Failed: the exporter failed, or the gate refuses a precision.
    """
    model = read(find(asked.model))
    # float32 last: until then it lies where the others are compared with it
    precisions = sorted(dict.fromkeys(asked.precision or ["int4"]), key=lambda precision: precision == "float32")
    findings = []
    if not model.has_safetensors:
        findings.append(f"{model.weights}: holds no safetensors to export from")
    if not os.access(model.path / "artifacts", os.W_OK):
        findings.append(f"{model.path}: cannot be written to; change its permissions")
    if not asked.force and not asked.held_out and any(precision != "float32" for precision in precisions):
        findings.append("--held-out: is needed to judge a quantised export; name a JSONL file, or give --force")
    if findings:
        raise BadInput(findings)
    questions = []
    if asked.held_out:
        questions = read_questions(asked.held_out, Chat(model), model.context, asked.questions)
    with _workshop(model) as work:
        reference = model.onnx.get("float32")
        if questions and reference is None:
            reference = _build(model, "float32", None, work)
        done = []
        for precision in precisions:
            done.append(_one(model, precision, reference, questions, work, asked))
    _table(done)


def _one(
    model: ModelFolder, precision: str, reference: Path | None, questions: list, work: Path, asked: argparse.Namespace
) -> tuple[str, float, Quality | None]:
    """Build, judge and publish one precision."""
    blocks = (asked.block_size,) if asked.block_size and precision != "float32" else BLOCKS[precision]
    quality, found = None, []
    for block in blocks:
        if precision == "float32" and reference is not None and reference.parent == work:
            folder = reference
        else:
            folder = _build(model, precision, block, work)
        if precision == "float32" or not questions:
            break
        print(f"comparing {precision} with float32 on {len(questions)} held-out conversations", flush=True)
        quality = compare(model, reference, folder, questions)
        found = quality.findings(asked.max_perplexity_ratio, asked.min_agreement)
        if not found:
            break
        print(f"{precision}, block size {block}: {'; '.join(found)}", flush=True)
    if found and not asked.force:
        raise Failed(f"{precision} is not published: {'; '.join(found)}. Publish it all the same with --force")
    facts = {
        "precision": precision,
        "block_size": block,
        "max_perplexity_ratio": asked.max_perplexity_ratio,
        "min_agreement": asked.min_agreement,
        "passed": None if quality is None else not found,
        "forced": bool(asked.force and (found or quality is None) and precision != "float32"),
        "held_out": asked.held_out and asked.held_out.name,
        "answer_tokens_compared": LONGEST,
        **{f"version.{name}": metadata.version(name) for name in ("onnxruntime", "onnxruntime-genai")},
    }
    (folder / "quality.json").write_text(as_json(quality, facts), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    _publish(folder, model.path / "artifacts" / f"onnx-{precision}")
    return precision, size, quality


def _build(model: ModelFolder, precision: str, block: int | None, work: Path) -> Path:
    """Run the exporter into a folder of its own."""
    folder = work / f"{precision}-{block}"
    shutil.rmtree(folder, ignore_errors=True)
    print(f"exporting {precision}" + (f", block size {block}" if block else ""), flush=True)
    options = ["hf_token=false", "prune_lm_head=true"]
    if block:
        # one product for both halves of the MLP: fewer, larger passes over the weights
        options += [f"block_size={block}", "fuse_mlp_gate_up=true"]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "--input", str(model.weights)]
    command += ["--output", str(folder), "--precision", NAMES[precision], "--execution_provider", "cpu"]
    command += ["--cache_dir", str(work / "cache"), "--extra_options", *options]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode or not (folder / "model.onnx").is_file():
        words = [line for line in process.stdout.splitlines() if line.strip()][-3:]
        raise Failed(f"the exporter failed on {model.weights}: {' / '.join(words)}")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        # the server reads those of the weights' folder: one tokenizer, one template
        (folder / name).unlink(missing_ok=True)
    return folder


def _publish(folder: Path, target: Path) -> None:
    """Put a finished export in its place; an earlier one goes."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{target}", flush=True)


@contextlib.contextmanager
def _workshop(model: ModelFolder) -> Iterator[Path]:
    """A folder beside the exports, on the same file system; gone afterwards, whatever happens."""
    artifacts = model.path / "artifacts"
    for left in artifacts.glob(".onnx-*"):
        # of a run that was killed
        if left.name.startswith(".onnx-work-"):
            shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".onnx-work-", dir=artifacts))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _table(done: list[tuple[str, float, Quality | None]]) -> None:
    print(f"\n{'precision':<10}{'MB':>8}{'perplexity':>12}{'of float32':>12}{'same answers':>14}")
    for precision, size, quality in done:
        figures = f"{'':>38}"
        if quality:
            figures = f"{quality.perplexity:>12.4g}{quality.perplexity_ratio:>12.3f}{quality.agreement:>14.1%}"
        print(f"{precision:<10}{size:>8.1f}{figures}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.export_onnx", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="MLflow model directory")
    parser.add_argument("--precision", action="append", choices=NAMES, help="may be given several times; default int4")
    parser.add_argument("--held-out", type=Path, help="JSONL file of conversations that the model was not trained on")
    parser.add_argument("--force", action="store_true", help="publish whatever the gate says")
    parser.add_argument("--max-perplexity-ratio", type=float, default=MOST_RATIO, help="default %(default)s")
    parser.add_argument("--min-agreement", type=float, default=LEAST_AGREEMENT, help="0 to 1; default %(default)s")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="conversations at most; default %(default)s")
    parser.add_argument("--block-size", type=int, choices=(16, 32, 64, 128, 256), help="weights that share a scale")
    return parser


if __name__ == "__main__":
    sys.exit(main())
