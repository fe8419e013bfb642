"""Which engine serves a model directory here: by setting, or `auto` by what the directory holds and the hardware.

    engine = choose(model, settings)

On a CPU an ONNX export is taken where there is one, the smallest precision first: it passed its quality gate when it
was exported. Without one, or on a GPU, the transformers engine takes the safetensors.
"""

from __future__ import annotations

import importlib.util

from serving.engine import Engine
from serving.errors import BadInput
from serving.model_folder import ONNX_PRECISIONS, ModelFolder
from serving.settings import PREFIX, Settings

TRANSFORMERS_PRECISIONS = ("float32", "bfloat16")


def choose(model: ModelFolder, settings: Settings) -> Engine:
    """The engine, not started yet.

    Raises:
        BadInput: the settings ask for what the directory or the environment does not have.
    """
    name = _name(model, settings)
    if name == "onnx":
        from serving.onnx_engine import OnnxEngine

        precision = _onnx_precision(model, settings)
        if importlib.util.find_spec("onnxruntime") is None:
            raise BadInput(f"{PREFIX}ENGINE onnx: onnxruntime is not installed; choose transformers")
        return OnnxEngine(model, precision, settings)
    if not model.has_safetensors:
        raise BadInput(f"{PREFIX}ENGINE transformers: no safetensors in {model.weights}; choose onnx")
    if settings.precision not in ("auto", *TRANSFORMERS_PRECISIONS):
        raise BadInput(
            f"{PREFIX}PRECISION {settings.precision!r}: the transformers engine has auto, "
            f"{', '.join(TRANSFORMERS_PRECISIONS)}"
        )
    if importlib.util.find_spec("torch") is None:
        raise BadInput(f"{PREFIX}ENGINE transformers: torch is not installed; export the model to ONNX and choose onnx")
    from serving.transformers_engine import TransformersEngine

    return TransformersEngine(model, settings)


def _name(model: ModelFolder, settings: Settings) -> str:
    if settings.engine != "auto":
        return settings.engine
    if not model.has_safetensors:
        return "onnx"
    wanted = settings.precision == "auto" or settings.precision in model.onnx
    if model.onnx and wanted and importlib.util.find_spec("onnxruntime") is not None and not _has_gpu():
        return "onnx"
    return "transformers"


def _onnx_precision(model: ModelFolder, settings: Settings) -> str:
    if settings.precision == "auto" and model.onnx:
        return next(iter(model.onnx))
    if settings.precision in model.onnx:
        return settings.precision
    wanted = "int4" if settings.precision == "auto" else settings.precision
    if wanted not in ONNX_PRECISIONS:
        raise BadInput(f"{PREFIX}PRECISION {wanted!r}: the onnx engine has auto, {', '.join(ONNX_PRECISIONS)}")
    raise BadInput(
        f"{model.path}: holds no ONNX export in {wanted}; make one: phikit export --format onnx --precision {wanted}"
    )


def _has_gpu() -> bool:
    """Whether torch would find a CUDA device; torch is not imported for it where there is no driver."""
    from pathlib import Path

    if not Path("/proc/driver/nvidia").exists() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
