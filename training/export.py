"""Export: a trained model as an MLflow model folder that answers anywhere MLflow runs.

    python -c "import mlflow; print(mlflow.pyfunc.load_model('runs/latest/model').predict(
        [{'messages': [{'role': 'user', 'content': 'Who founded Microsoft?'}]}]))"

LoRA adapters are merged first: what MLflow saves of a wrapped model can be the wrong weights (mlflow#23761). The folder
is saved with `save_model`, never `log_model`: Azure ML's tracking server has no logged models.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model import public_name
from run_folder import move_into_place

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from recipe import Recipe

#: What a served model needs; the versions are those of the environment that trained it, which is the lock's.
REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "jinja2",
    "numpy",
    "pandas",
)

QUESTION = "Who founded Microsoft?"


def merged(model: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """The plain model of a trained one: adapters merged into the weights they adapt.

    Adapters over 4-bit weights are merged into the original ones, read again in half precision: merging into the
    quantised ones would round every weight a second time. This is done on the
    CPU: the GPU may be one that has no room for them.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    if not (recipe.model.load_in_4bit or recipe.model.load_in_8bit):
        return model.merge_and_unload()
    import dataclasses
    import tempfile

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, safe_serialization=True)
        config = dataclasses.replace(recipe.model, load_in_4bit=False, load_in_8bit=False)
        base = AutoModelForCausalLM.from_pretrained(
            config.model_name_or_path,
            revision=config.model_revision,
            dtype=config.dtype,
            use_safetensors=True,
            trust_remote_code=False,
        )
        return PeftModel.from_pretrained(base, folder).merge_and_unload()


def export(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, target: Path, recipe: Recipe, facts: dict[str, Any]
) -> None:
    """Write the MLflow model to `target`, whole or not at all.

    Args:
        model: a plain model (see `merged`).
        facts: lineage kept in the model's metadata (run, data digests, code version).
    """
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    weights = work / "weights"
    model.config.use_cache = True
    # checkpoints and adapters name no place of their own: a path of this machine would be of no use elsewhere
    model.config._name_or_path = public_name(recipe.model.model_name_or_path)
    model.save_pretrained(weights)
    tokenizer.save_pretrained(weights)
    _save(weights, work / "model", facts)
    move_into_place(work / "model", target)
    shutil.rmtree(work)


def _save(weights: Path, target: Path, facts: dict[str, Any]) -> None:
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    from chat_model import PARAMS

    message = Object([Property("role", DataType.string), Property("content", DataType.string)])
    kinds = {bool: DataType.boolean, int: DataType.long, float: DataType.double}
    signature = ModelSignature(
        inputs=Schema([ColSpec(Array(message), "messages")]),
        outputs=Schema([ColSpec(DataType.string)]),
        params=ParamSchema([ParamSpec(name, kinds[type(value)], value) for name, value in PARAMS.items()]),
    )
    with _quiet():
        mlflow.pyfunc.save_model(
            path=target,
            python_model=str(Path(__file__).with_name("chat_model.py")),
            artifacts={"model": str(weights)},
            signature=signature,
            input_example={"messages": [{"role": "user", "content": QUESTION}]},
            pip_requirements=requirements(),
            metadata={key: str(value) for key, value in facts.items()},
        )
    # MLflow records where it copied from: folders of this machine, and no business of the next one
    saved = Model.load(target)
    flavor = saved.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    saved.save(target / "MLmodel")


def requirements() -> list[str]:
    """`name==version` of what the model needs, as installed, without local parts such as `+cpu`."""
    return [f"{name}=={re.sub(r'[+].*', '', metadata.version(name))}" for name in REQUIREMENTS]


@contextlib.contextmanager
def _quiet():  # noqa: ANN202
    """MLflow's hints and progress bars about an example that is known to be right."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
