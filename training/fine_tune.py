"""Fine-tune a causal LM on a chat dataset: one command from two JSONL files to an MLflow model with a report.

    python fine_tune.py --recipe tiny_cpu --train-file data/train_data.jsonl --eval-file data/test_data.jsonl \
        --run-dir runs/first --model_output_dir runs/first/model
    python fine_tune.py … --overrides '{"num_train_epochs": 5}'          # recipe keys, changed for this run

It asks the held-out questions, trains, asks them again, exports and reports. Every step leaves what the next one needs
on disk: killed at any moment, the same command goes on from the last whole checkpoint. Exit codes: 0 done, 1 the run
failed, 2 bad input, 75 stopped by SIGTERM after a checkpoint, 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from errors import STOPPED, BadInput, RunFailed, exit_code

if TYPE_CHECKING:
    from recipe import Recipe


def parse_arguments() -> argparse.Namespace:
    """The command line; T14 of the tutorial names the files and the model's folder."""
    parser = argparse.ArgumentParser(
        description="Fine-tune a causal LM on a chat dataset.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join((__doc__ or "").split("\n")[2:6]),
    )
    parser.add_argument("--recipe", default="tiny_cpu", help="name in recipes/, or a path to a YAML file")
    parser.add_argument("--model", default="recipe", help="hub name, folder, or `recipe`: the one it names")
    parser.add_argument("--overrides", default="{}", help="recipe keys to change, as one YAML or JSON mapping")
    parser.add_argument("--train-file", type=Path, required=True, help="JSONL of conversations to learn from")
    parser.add_argument("--eval-file", type=Path, required=True, help="JSONL of held-out conversations")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of report, metrics and checkpoints")
    parser.add_argument("--model_output_dir", type=Path, required=True, help="folder of the MLflow model")
    return parser.parse_args()


def main() -> int:
    """Run the whole of it; see the module's text."""
    arguments = parse_arguments()
    _one_process_one_gpu()
    _quiet_libraries()
    from recipe import load_recipe
    from run import Run, Stopped
    from run_folder import digest, open_run, target_problem

    findings: list[str] = []
    recipe = None
    try:
        recipe = load_recipe(arguments.recipe, _overrides(arguments), arguments.run_dir / "checkpoints")
    except BadInput as error:
        findings += error.findings
    data = {}
    for name, path in (("train", arguments.train_file), ("eval", arguments.eval_file)):
        try:
            data[name] = digest(path)
        except OSError as error:
            findings.append(f"{path}: {error.strerror}; prepare one with `phikit data prepare`")
    if problem := target_problem(arguments.model_output_dir, arguments.run_dir):
        findings.append(problem)
    if findings or recipe is None:
        raise BadInput(findings)
    identity = json.dumps([recipe.values, data], sort_keys=True, default=str)
    with open_run(arguments.run_dir, hashlib.sha256(identity.encode()).hexdigest()) as run:
        try:
            run.write_state(model_dir=str(arguments.model_output_dir.resolve()))
            return Run(arguments, recipe, run, data).carry_out()
        except Stopped:
            print("stopped; the same command goes on")
            return STOPPED
        except Exception as error:
            _explain(error, recipe)
            raise


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        overrides = yaml.safe_load(arguments.overrides)
    except yaml.YAMLError as error:
        raise BadInput(f"--overrides: not a YAML mapping: {' '.join(str(error).split())}") from error
    if not isinstance(overrides, dict):
        raise BadInput(f"--overrides: expected a mapping such as {{seed: 1}}, got {arguments.overrides!r}")
    return overrides if arguments.model == "recipe" else overrides | {"model_name_or_path": arguments.model}


def _one_process_one_gpu() -> None:
    """Take the first of several GPUs, before torch looks; refuse to be one of several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput(
            f"WORLD_SIZE: {os.environ['WORLD_SIZE']} processes; this program is one: start it without torchrun"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def _explain(error: Exception, recipe: Recipe) -> None:
    """Turn the known ways of failing into a line that says what to change."""
    # (a library's own words may hide what it was told itself)
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    text = "; ".join(f"{type(one).__name__} {one}" for one in chain)
    args = recipe.sft
    if "OutOfMemory" in text or isinstance(error, MemoryError) or "can't allocate memory" in text:
        raise RunFailed(
            f"out of memory: lower per_device_train_batch_size (now {args.per_device_train_batch_size}) or max_length "
            f"(now {args.max_length}), set activation_checkpointing: true, or choose a LoRA recipe"
        ) from error
    full = ("No space left", "Errno 28", "os error 28", "file write failed", "failed writing file", "disk is full")
    if any(sign in text for sign in full):
        raise RunFailed(
            f"the disk is full: free some space in {args.output_dir}; "
            "the same command goes on from the last whole checkpoint"
        ) from error


def _quiet_libraries() -> None:
    """One voice: libraries' progress bars, hints and deprecations are not this program's output."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import logging

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # MLflow sets its loggers' levels as it is imported, and tells of each table that it makes
    # what it raises is told once, by us, and not by its own log before
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    for name in ("alembic", "bitsandbytes", "trl", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
