"""The MLflow model directory that is served: where its parts lie and what they say, read without loading any weights.

    python -c "from pathlib import Path; from serving.model_folder import read; print(read(Path('runs/latest/model')))"

model/MLmodel                        signature and lineage
model/artifacts/weights/             safetensors, config.json, tokenizer, chat template: for the transformers engine
model/artifacts/onnx-<precision>/    model.onnx, genai_config.json: for the onnx engine, once `phikit export` ran
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.errors import BadInput

#: Directories between AZUREML_MODEL_DIR and the MLmodel file: name, version, the folder's own name.
DEPTH = 3
#: Precisions that an ONNX export may have, the one that serves fastest first.
ONNX_PRECISIONS = ("int4", "int8", "float32")


@dataclass(frozen=True)
class ModelFolder:
    """What a model directory says of itself."""

    path: Path
    weights: Path
    """Folder with tokenizer and config, and with the safetensors unless the model is for the onnx engine alone."""
    onnx: dict[str, Path]
    """Folders of its ONNX exports by precision, in the order of ONNX_PRECISIONS."""
    context: int
    """Tokens that the model was made for."""
    ends: frozenset[int]
    """Token ids that end an answer."""
    facts: dict[str, str]
    """Lineage that the export recorded: run, base model, digests."""

    @property
    def has_safetensors(self) -> bool:
        return any(self.weights.glob("*.safetensors"))


def find(root: Path) -> Path:
    """The MLflow model directory at `root` or up to three levels below, as Azure mounts it.

    Raises:
        BadInput: none there, or several.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: there is no such folder; name an MLflow model directory, such as runs/latest/model")
    for depth in range(DEPTH + 1):
        found = sorted(path.parent for path in root.glob("/".join(["*"] * depth + ["MLmodel"])))
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found[:5])
            raise BadInput(f"{root}: holds several MLflow models ({names}); name one of them")
        if found:
            return found[0]
    raise BadInput(f"{root}: no MLmodel file there; name an MLflow model directory, such as runs/latest/model")


def read(path: Path) -> ModelFolder:
    """Read what lies in an MLflow model directory.

    Raises:
        BadInput: parts that are missing or unreadable.
    """
    mlmodel = _read(path / "MLmodel", yaml.safe_load, yaml.YAMLError)
    flavor = mlmodel.get("flavors", {}).get("python_function", {})
    artifact = flavor.get("artifacts", {}).get("model", {}).get("path")
    if not artifact:
        raise BadInput(
            f"{path / 'MLmodel'}: flavors.python_function.artifacts.model is missing: this is no model that "
            "`phikit train` exported; train it, or export it again"
        )
    weights = path / artifact
    config = _read(weights / "config.json", json.loads, ValueError)
    config = config.get("text_config", config)
    context = config.get("max_position_embeddings")
    if not isinstance(context, int):
        raise BadInput(f"{weights / 'config.json'}: max_position_embeddings is missing; export the model again")
    generation = weights / "generation_config.json"
    ends = _read(generation, json.loads, ValueError).get("eos_token_id") if generation.is_file() else None
    ends = config.get("eos_token_id") if ends is None else ends
    onnx = {
        precision: folder
        for precision in ONNX_PRECISIONS
        if (folder := path / "artifacts" / f"onnx-{precision}").joinpath("model.onnx").is_file()
    }
    model = ModelFolder(
        path=path,
        weights=weights,
        onnx=onnx,
        context=context,
        ends=frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends]),
        facts={key: str(value) for key, value in (mlmodel.get("metadata") or {}).items()},
    )
    if not model.has_safetensors and not model.onnx:
        raise BadInput(f"{weights}: no safetensors there, and no ONNX export beside it; export the model again")
    return model


def _read(file: Path, parse: Any, refusal: type[Exception]) -> dict[str, Any]:
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{file}: is missing; export the model again") from None
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error})") from error
    except refusal as error:
        raise BadInput(f"{file}: cannot be parsed ({str(error).splitlines()[0]}); export the model again") from error
    if not isinstance(content, dict):
        raise BadInput(f"{file}: is not a mapping; export the model again")
    return content
