"""Every recipe on disk is valid and says how it is run; what is wrong with a recipe is said, all of it at once.

python -m pytest tests/training/test_recipe.py
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from errors import BadInput
from memory import recipe_memory
from recipe import FOLDER, RENAMED, RESERVED, load_recipe, main, read_recipe, recipe_path

RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

#: The tutorial's hyperparameters (T10 and T12) under the names that TRL and transformers have for them today.
TUTORIAL = {
    "model_name_or_path": "microsoft/Phi-3.5-mini-instruct",
    "dtype": "bfloat16",
    "attn_implementation": "eager",
    "packing": True,
    "max_length": 2048,
    "bf16": True,
    "eval_strategy": "epoch",
    "learning_rate": 5.0e-6,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.2,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "activation_checkpointing": True,
    "logging_steps": 20,
    "save_steps": 500,
    "seed": 0,
}


def problems(overrides: dict, name: str = "tiny_cpu") -> list[str]:
    with pytest.raises(BadInput) as caught:
        load_recipe(name, overrides)
    return [finding.removeprefix(f"{name}.yaml: ") for finding in caught.value.findings]


def header(name: str) -> str:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def commands(name: str, kind: str) -> list[str]:
    """The commands of a kind in a recipe's header: the kind's own line and those below it that name no kind."""
    return re.search(rf"^#   {kind} +(.+(?:\n#    +\S.*)*)", header(name), re.M)[1].replace("\n#", "\n").split("\n")


def test_recipes_of_the_issue_are_there():
    wanted = {"tiny_cpu", "phi3_5_mini_full", "phi3_5_mini_lora", "phi3_5_mini_qlora", "phi3_mini_4k_lora"}
    assert wanted <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid(name):
    recipe = load_recipe(name, output_dir="somewhere")
    assert recipe.name == name
    assert recipe.sft.output_dir == "somewhere"
    assert recipe.sft.report_to == []
    written = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert recipe.values == written
    adapted = {"dtype", "bf16", "lr_scheduler_type"}
    for key in set(written) - adapted:
        (config,) = [config for config in (recipe.sft, recipe.model, recipe.evaluation) if hasattr(config, key)]
        assert getattr(config, key) == written[key], key


@pytest.mark.parametrize("name", RECIPES)
def test_header_commands(name):
    assert header(name).startswith(f"# {name}: ")
    assert any("make " in line for line in commands(name, "launch"))
    (direct,) = commands(name, "directly")
    options = ("--train-file", "--eval-file", "--run-dir", "--model_output_dir")
    assert direct.startswith(f"python fine_tune.py --recipe {name} ")
    assert all(option in direct for option in options)
    for line in [*commands(name, "launch"), *commands(name, "override")]:
        assert set(re.findall(r"RECIPE=(\w+)", line)) <= {name}
        assert name == "tiny_cpu" or f"RECIPE={name}" in line, "tiny_cpu is the default, the others are named"
    pairs = [pair for line in commands(name, "override") for pair in re.findall(r"(\w+)=([^\s\"=]+)[\s\"]", line + " ")]
    overrides = {key: yaml.safe_load(value) for key, value in pairs if key.islower()}
    assert overrides, "the override command changes something"
    for key, value in load_recipe(name, overrides).values.items():
        assert value == overrides.get(key, value)


def test_header_memory_is_what_memory_py_prints():
    printed = subprocess.run(
        [sys.executable, "memory.py"], cwd=FOLDER.parent, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()
    assert sorted(line.partition(":")[0] for line in printed) == RECIPES
    for line in printed:
        name, _, memory = line.partition(": ")
        assert commands(name, "memory") == [memory]
        assert recipe_memory(read_recipe(name)[1]).line() == memory


def test_full_recipe_is_the_tutorials():
    recipe = load_recipe("phi3_5_mini_full")
    assert {key: recipe.values.get(key) for key in TUTORIAL} == TUTORIAL
    # what else it says is no hyperparameter of the training, but the tutorial's defaults and the kit's evaluation
    others = {"assistant_only_loss", "save_strategy", "save_total_limit", "num_eval_questions", "eval_max_new_tokens"}
    assert set(recipe.values) - set(TUTORIAL) == others
    assert (recipe.values["assistant_only_loss"], recipe.values["save_strategy"]) == (False, "steps")
    assert not recipe.model.use_peft
    assert recipe.sft.get_warmup_steps(1000) == 200, "a value below 1 is a share of the steps"


def test_recipe_by_path_and_overrides_win(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model_name_or_path: tiny\nlearning_rate: 1.0e-3\nseed: 7\n")
    recipe = load_recipe(str(path), {"seed": 9, "num_eval_questions": 5})
    assert (recipe.name, recipe.sft.learning_rate, recipe.sft.seed) == ("mine", 1.0e-3, 9)
    assert recipe.evaluation.num_eval_questions == 5
    assert recipe.values == {
        "model_name_or_path": "tiny",
        "learning_rate": 1.0e-3,
        "seed": 9,
        "num_eval_questions": 5,
    }
    assert (recipe.sft.bf16, recipe.sft.activation_checkpointing) == (False, False), "off unless the recipe says so"


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lerning_rate", "learning_rate"),
        ("num_train_epoch", "num_train_epochs"),
        ("lora_rr", "lora_r"),
        ("num_eval_question", "num_eval_questions"),
        *RENAMED.items(),
    ],
)
def test_unknown_key_is_answered_with_the_nearest(key, near):
    assert problems({key: 1}) == [f"{key}: unknown key; did you mean {near}?"]


def test_key_like_nothing_known():
    assert problems({"zzzzzzzz": 1, 5: 1}) == ["zzzzzzzz: unknown key", "5: unknown key"]


@pytest.mark.parametrize("key", RESERVED)
def test_reserved_key(key):
    (line,) = problems({key: True})
    assert line == f"{key}: not a recipe's business; {RESERVED[key]}"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("learning_rate", "fast", "'fast' is not a number"),
        ("learning_rate", None, "is empty, expected a number"),
        ("num_eval_questions", None, "is empty, expected a whole number"),
        ("model_name_or_path", None, "is empty, expected a hub name, a folder or tiny"),
        ("learning_rate", [1.0e-3], "a list, expected a number"),
        ("learning_rate", True, "True is not a number"),
        ("learning_rate", float("nan"), "nan is no number"),
        ("learning_rate", float("inf"), "inf is no number"),
        ("seed", 1.5, "1.5 is not a whole number"),
        ("packing", "maybe", "'maybe' is not true or false"),
        ("packing", {"on": 1}, "a mapping, expected true or false"),
        ("lora_target_modules", "qkv_proj", "must be a list"),
        ("lr_scheduler_type", "cos", "'cos' is not one of"),
        ("eval_strategy", "epch", "'epch' is not one of"),
        ("optim", "adamx", "'adamx' is not one of"),
        ("learning_rate", -1.0e-3, "-0.001 must be above 0"),
        ("learning_rate", 0, "0 must be above 0"),
        ("num_train_epochs", 0, "0 must be above 0"),
        ("per_device_train_batch_size", 0, "0 must be at least 1"),
        ("gradient_accumulation_steps", -1, "-1 must be at least 1"),
        ("max_length", 7, "7 must be at least 8"),
        ("warmup_steps", -0.1, "-0.1 must be at least 0"),
        ("num_eval_questions", 0, "0 must be at least 1"),
        ("seed", -1, "-1 must be at least 0"),
        ("load_in_4bit", True, "add use_peft: true"),
        ("load_in_8bit", True, "add use_peft: true"),
    ],
)
def test_wrong_value(key, value, words):
    lines = problems({key: value})
    assert lines[0].startswith(f"{key}: ") and words in lines[0]


def test_quantised_tiny_is_refused_before_it_is_trained():
    (line,) = problems({"load_in_4bit": True, "use_peft": True})
    assert line.startswith("load_in_4bit: tiny is built on the spot")
    (line,) = problems({"load_in_4bit": True, "use_peft": True, "model_name_or_path": "other", "save_base": True})
    assert line.startswith("save_base: weights that are loaded quantised cannot be kept")


def test_numbers_as_texts_are_read():
    # YAML reads 1e-3 as a text
    assert load_recipe("tiny_cpu", {"learning_rate": "1e-3"}).sft.learning_rate == 1.0e-3


def test_all_findings_at_once():
    lines = problems({"learning_rate": -1, "seed": "x", "packing_": True, "output_dir": "x", "load_in_4bit": True})
    assert [line.partition(":")[0] for line in lines] == [
        "learning_rate",
        "seed",
        "packing_",
        "output_dir",
        "load_in_4bit",
        "load_in_4bit",
    ]


def test_settings_that_contradict_each_other_are_one_line():
    (line,) = problems({"load_best_model_at_end": True, "save_strategy": "no", "eval_strategy": "epoch"})
    assert "\n" not in line and "strategy" in line


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [1\n", "text", b"\xff\xfe: 1"])
def test_file_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as caught:
        read_recipe(str(path))
    (line,) = caught.value.findings
    assert line.startswith(f"{path}: ") and "\n" not in line


def test_unknown_recipe():
    with pytest.raises(BadInput, match="did you mean 'tiny_cpu'"):
        recipe_path("tiny_cpuu")
    with pytest.raises(BadInput, match=f"known: {', '.join(RECIPES)}"):
        recipe_path("zzz")
    with pytest.raises(BadInput, match="not found"):
        recipe_path(str(Path("nowhere") / "mine.yaml"))


def test_program_validates_the_folder(capsys):
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: ok" for name in RECIPES]
