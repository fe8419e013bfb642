"""The scoring server with a fault in its engine: the model fails for good once it has run some passes.

PHIKIT_SERVE_ENGINE=onnx python -m tests.serving.dying_server
"""

import itertools
import sys
from typing import Any

import serving.engines
from serving.__main__ import main
from serving.onnx_engine import OnnxEngine
from serving.transformers_engine import TransformersEngine

#: Passes that succeed: enough to load and to begin an answer.
PASSES = 30


def failing(function: Any) -> Any:
    """The function, until it fails."""
    passes = itertools.count()

    def fail(*arguments: Any, **options: Any) -> Any:
        if next(passes) >= PASSES:
            raise MemoryError("the fault of this test")
        return function(*arguments, **options)

    return fail


class DyingOnnxEngine(OnnxEngine):
    """Its session fails while it decodes."""

    def start(self, deliver: Any) -> None:
        super().start(deliver)
        self._session.decode = failing(self._session.decode)


class DyingTransformersEngine(TransformersEngine):
    """Its model fails in a forward pass."""

    def _load(self) -> Any:
        model = super()._load()
        model.forward = failing(model.forward)
        return model


def choose(model: Any, settings: Any) -> Any:
    """The engine that was asked for, with the fault."""
    if settings.engine == "onnx":
        return DyingOnnxEngine(model, settings.precision, settings)
    return DyingTransformersEngine(model, settings)


if __name__ == "__main__":
    serving.engines.choose = choose
    sys.exit(main())
