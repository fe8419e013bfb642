"""Recipes: the one home of hyperparameters, as YAML of TRL's and PEFT's own keys, read by TRL's own parser.

    python recipe.py                                             # validates every recipe of this folder
    python fine_tune.py --recipe tiny_cpu --overrides '{"learning_rate": 1.0e-3}' …

A recipe's keys are the fields of three dataclasses: TRL's `SFTConfig` (training), TRL's `ModelConfig` (model, LoRA,
quantisation) and the kit's `EvaluationConfig`. Every finding is collected before any is reported.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from errors import BadInput, exit_code
from model import TINY

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

FOLDER = Path(__file__).parent / "recipes"

#: Keys that other versions of these libraries, and the tutorial, used; and what they are called today.
RENAMED = {
    "max_seq_length": "max_length",
    "warmup_ratio": "warmup_steps (a value below 1 is a share of all steps)",
    "evaluation_strategy": "eval_strategy",
    "torch_dtype": "dtype",
    "gradient_checkpointing": "activation_checkpointing",
    "r": "lora_r",
    "target_modules": "lora_target_modules",
}

#: Keys that the kit sets itself, or that it refuses; and what to do instead.
RESERVED = {
    "output_dir": "give the run folder with --run-dir",
    "report_to": "tracking is set by MLFLOW_TRACKING_URI",
    "resume_from_checkpoint": "a run resumes by itself",
    "trust_remote_code": "code from a model hub is never run",
    "push_to_hub": "the kit exports an MLflow model",
    "chat_template_path": "the template comes with the tokenizer",
    "data_seed": "use seed",
    "packing_strategy": "packing keeps conversations whole and apart",
    "padding_free": "packing wastes as little, and keeps rows",
    "completion_only_loss": "use assistant_only_loss",
    "truncation_mode": "a conversation over max_length loses its end",
    "pad_to_multiple_of": "packed rows have max_length",
    "eos_token": "it comes with the tokenizer",
    "pad_token": "it comes with the tokenizer",
    "dataset_text_field": "data has messages",
    "dataset_kwargs": "data is encoded by the kit",
    "model_init_kwargs": "use dtype, attn_implementation and the quantisation keys",
    "save_only_model": "a run could not go on from such a checkpoint",
    "use_cpu": "the GPU is used where there is one; CUDA_VISIBLE_DEVICES= hides it",
    "disable_tqdm": "progress is the kit's own",
    "ignore_data_skip": "a run that goes on sees the batches it would have seen",
}

#: Lowest allowed value of a number, and whether that value itself is allowed.
LOWEST: dict[str, tuple[float, bool]] = {
    "learning_rate": (0, False),
    "num_train_epochs": (0, False),
    "per_device_train_batch_size": (1, True),
    "per_device_eval_batch_size": (1, True),
    "gradient_accumulation_steps": (1, True),
    "max_length": (8, True),
    "warmup_steps": (0, True),
    "weight_decay": (0, True),
    "max_grad_norm": (0, True),
    "logging_steps": (0, False),
    "save_steps": (0, False),
    "save_total_limit": (1, True),
    "lora_r": (1, True),
    "lora_alpha": (0, False),
    "lora_dropout": (0, True),
    "num_eval_questions": (1, True),
    "eval_max_new_tokens": (1, True),
    "seed": (0, True),
}


@dataclass
class EvaluationConfig:
    """How the model is questioned before and after training; the kit's only keys of its own."""

    num_eval_questions: int = field(
        default=64, metadata={"help": "Held-out questions asked before and after; the first ones of the eval file."}
    )
    eval_max_new_tokens: int = field(default=128, metadata={"help": "Longest answer, in tokens."})
    save_base: bool = field(
        default=False,
        metadata={"help": "Keep the model as it was before, too, as <run>/base: an MLflow model like the tuned one."},
    )


@dataclass(frozen=True)
class Recipe:
    """A validated recipe.

    `sft` and `model` are TRL's own configs, `evaluation` the kit's, `values` the merged mapping as written, and `notes`
    what had to be changed for this machine, one sentence each.
    """

    name: str
    sft: SFTConfig
    model: ModelConfig
    evaluation: EvaluationConfig
    values: dict[str, Any]
    notes: tuple[str, ...]


def recipe_path(name: str) -> Path:
    """The file of a recipe given by its name in `recipes/` or by a path. Raises `BadInput` where there is none."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or a path to a .yaml file"
        raise BadInput(f"recipe {name!r}: not found; {hint}")
    return path


def read_recipe(name: str) -> tuple[Path, dict[str, Any]]:
    """A recipe's file and its mapping, as written. Raises `BadInput` where it is no mapping in YAML."""
    path = recipe_path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path}: a recipe is a mapping of keys to values")
    return path, values


def load_recipe(name: str, overrides: dict[str, Any] | None = None, output_dir: str | Path = "checkpoints") -> Recipe:
    """Read, merge, validate and parse a recipe.

    Args:
        name: name in `recipes/`, or a path to a YAML file.
        overrides: keys that replace the recipe's.
        output_dir: where the trainer keeps its checkpoints.

    Raises:
        BadInput: with every finding about keys, types and ranges.
    """
    path, values = read_recipe(name)
    values |= overrides or {}

    from trl import ModelConfig, SFTConfig, TrlParser

    parser = TrlParser((SFTConfig, ModelConfig, EvaluationConfig))
    findings = _findings(values, parser, path.name)
    if findings:
        raise BadInput(findings)
    machine, notes = _adapt_to_machine(values)
    fixed = {
        "output_dir": str(output_dir),
        "report_to": "none",
        # NaN must reach the log, where it is turned into advice
        "logging_nan_inf_filter": False,
        # a resumed run must see the batches that it would have seen
        "ignore_data_skip": False,
        "disable_tqdm": True,
        "use_cpu": not _has_gpu(),
    }
    parser.set_defaults_with_config(**(values | machine | fixed))
    try:
        sft, model, evaluation = parser.parse_args_into_dataclasses(args=[])
    except (ValueError, TypeError, ImportError) as error:
        raise BadInput(f"{path.name}: {' '.join(str(error).split())}") from error
    return Recipe(path.stem, sft, model, evaluation, values, notes)


def _findings(values: dict[str, Any], parser: Any, where: str) -> list[str]:
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    findings = []
    for key, value in values.items():
        if key in RESERVED:
            findings.append(f"{where}: {key}: not a recipe's business; {RESERVED[key]}")
        elif key not in actions or key in RENAMED:
            near = RENAMED.get(key) or next(iter(difflib.get_close_matches(str(key), actions, n=1)), None)
            findings.append(f"{where}: {key}: unknown key" + (f"; did you mean {near}?" if near else ""))
        elif (problem := _type_problem(actions[key], value)) is not None:
            findings.append(f"{where}: {key}: {problem}")
        elif key in LOWEST and value is not None:
            low, allowed = LOWEST[key]
            if not (float(value) > low or (allowed and float(value) == low)):
                findings.append(f"{where}: {key}: {value} must be {'at least' if allowed else 'above'} {low}")
    if not values.get("model_name_or_path"):
        findings.append(f"{where}: model_name_or_path: is empty, expected a hub name, a folder or {TINY}")
    if values.get("packing") and "flash" in str(values.get("attn_implementation")):
        findings.append(
            f"{where}: attn_implementation: packed conversations would see each other with flash attention; use sdpa"
        )
    for key in ("load_in_4bit", "load_in_8bit"):
        if values.get(key) and not values.get("use_peft"):
            findings.append(f"{where}: {key}: quantised weights cannot be trained; add use_peft: true")
        if values.get(key) and values.get("model_name_or_path") == TINY:
            findings.append(f"{where}: {key}: {TINY} is built on the spot, in full precision; choose another model")
        elif values.get(key) and values.get("save_base"):
            findings.append(f"{where}: save_base: weights that are loaded quantised cannot be kept; leave it out")
    return findings


def _type_problem(action: Any, value: Any) -> str | None:
    """What is wrong with a value for the parser's field, in words; None when it fits."""
    if value is None:
        return None if action.default is None else f"is empty, expected {_type_name(action)}"
    if isinstance(value, list):
        return None if action.nargs in ("+", "*") else f"a list, expected {_type_name(action)}"
    if isinstance(value, dict):
        return (
            None if action.dest.endswith(("kwargs", "_args", "config")) else f"a mapping, expected {_type_name(action)}"
        )
    if action.nargs in ("+", "*"):
        return f"{value!r} must be a list"
    try:
        parsed = action.type(value if isinstance(value, str) else str(value)) if action.type else value
    except Exception:  # each field's own converter, and what it raises is up to it
        return f"{value!r} is not {_type_name(action)}"
    if action.choices and parsed not in action.choices and value not in action.choices:
        return f"{value!r} is not one of {', '.join(map(str, action.choices))}"
    if isinstance(parsed, float) and not abs(parsed) < float("inf"):
        return f"{parsed} is no number to train with"
    return None


def _type_name(action: Any) -> str:
    names = {"int": "a whole number", "float": "a number", "str": "a text", "string_to_bool": "true or false"}
    return names.get(getattr(action.type, "__name__", ""), "of the right type")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32: it has AVX-512 BF16 or AMX instructions."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _adapt_to_machine(values: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a machine without a GPU changes, and a sentence on each change.

    Weights stay float32 there, and bf16 (products in bfloat16, sums and weights in float32) stays on only where the
    CPU has instructions for it.
    """
    # TRL's own defaults are a GPU's: say each of the two that it would otherwise turn on
    machine: dict[str, Any] = {
        "bf16": values.get("bf16", False),
        "activation_checkpointing": values.get("activation_checkpointing", False),
    }
    if _has_gpu():
        return machine, ()
    notes = []
    if values.get("dtype") in ("bfloat16", "float16"):
        machine["dtype"] = "float32"
        notes.append("no GPU: weights are kept in float32")
    if values.get("fp16") or (values.get("bf16") and not fast_bfloat16()):
        machine |= {"bf16": False, "fp16": False}
        notes.append("no GPU, and a CPU without bfloat16 instructions: products are float32")
    return machine, tuple(notes)


def main() -> int:
    """Validate every recipe of the folder."""
    findings = []
    for path in sorted(FOLDER.glob("*.yaml")):
        try:
            load_recipe(path.stem)
            print(f"{path.stem}: ok")
        except BadInput as error:
            findings += error.findings
    if findings:
        raise BadInput(findings)
    return 0


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
