"""An ONNX export with its KV cache: prompts and next tokens in, logits out, rows of any lengths side by side.

    folder = Path("runs/latest/model/artifacts/onnx-int4")
    session = OnnxSession(folder, Shape(folder), slots=16, context=1024, threads=2)
    logits = session.prefill(row=0, tokens=[1, 2, 3], past=0)

Runs on onnxruntime alone. The cache has one row a slot; the graph's GroupQueryAttention writes into it in place, as
past and present are bound to the same memory, and takes each row's length from the sum of its attention mask. So rows
of different lengths are decoded together, and a new prompt is a pass of its own row only: nothing is padded.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.engine import EngineFailed

#: Inputs that a graph may have besides the cache.
INPUTS = {"input_ids", "attention_mask"}


class Shape:
    """What genai_config.json says of an export: the shape of its cache, and the names of its inputs and outputs."""

    def __init__(self, folder: Path) -> None:
        """Read it.

        Raises:
            EngineFailed: it is missing, or not what the exporter writes.
        """
        file = folder / "genai_config.json"
        try:
            model = json.loads(file.read_text(encoding="utf-8"))["model"]
            decoder = model["decoder"]
            self.layers: int = decoder["num_hidden_layers"]
            self.heads: int = decoder["num_key_value_heads"]
            self.width: int = decoder["head_size"]
            self.vocabulary: int = model["vocab_size"]
            self.context: int = model["context_length"]
            names = decoder["inputs"] | decoder["outputs"]
            self.inputs: dict[str, str] = decoder["inputs"]
            self.logits: str = names["logits"]
            # of each layer: its key and value, as input and as output
            self.cache = [
                [
                    (names[f"past_{part}_names"] % layer, names[f"present_{part}_names"] % layer)
                    for part in ("key", "value")
                ]
                for layer in range(self.layers)
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineFailed(f"{file}: cannot be used ({error!r}); export the model again") from error

    @property
    def token_bytes(self) -> int:
        """Bytes of cache that a token takes."""
        return 2 * 4 * self.layers * self.heads * self.width


class OnnxSession:
    """The loaded graph and its cache of `slots` rows of `context` tokens."""

    def __init__(self, folder: Path, shape: Shape, slots: int, context: int, threads: int) -> None:
        """Load the graph.

        Raises:
            EngineFailed: it cannot be loaded, or asks for inputs that are not known here.
        """
        # read when the library is loaded: it would keep an id of this machine in the home folder, and report
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # passes differ in shape all the time: patterns planned for one would hold memory for each
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        # between two passes its threads give the cores to whoever sends the tokens out
        options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises several, without a base of their own
            raise EngineFailed(f"{folder / 'model.onnx'}: cannot be loaded ({error})") from error
        self._shape = shape
        cache = {name for layer in shape.cache for name, _ in layer}
        unknown = {value.name for value in self._session.get_inputs()} - INPUTS - cache
        if unknown:
            raise EngineFailed(
                f"{folder / 'model.onnx'}: asks for {', '.join(sorted(unknown))}, which this engine does not give; "
                "export the model again"
            )
        rows = (slots, shape.heads, context, shape.width)
        self._memory: list[mmap.mmap] = []
        self._cache = [[self._buffer(rows) for _ in layer] for layer in shape.cache]
        self._logits = np.empty((slots, 1, shape.vocabulary), np.float32)

    def prefill(self, row: int, tokens: Sequence[int], past: int) -> np.ndarray:
        """Take a prompt, or the next piece of it, into a row of the cache.

        Args:
            past: tokens that the row holds already.

        Returns:
            Logits after the last token, shape (vocabulary,); valid until the next pass.
        """
        ids = np.array([tokens], np.int64)
        mask = np.ones((1, past + len(tokens)), np.int64)
        return self._run(row, row + 1, ids, mask)[0]

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
        """Take one more token into each of the first rows.

        Args:
            tokens: one for each row, from row 0 on.
            lengths: tokens that each row holds already.

        Returns:
            Logits, shape (rows, vocabulary); valid until the next pass.
        """
        ids = np.array(tokens, np.int64)[:, None]
        ends = np.array(lengths)[:, None] + 1
        mask = (np.arange(ends.max())[None, :] < ends).astype(np.int64)
        return self._run(0, len(ids), ids, mask)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy what a row holds into another one."""
        for layer in self._cache:
            for part in layer:
                part[target, :, :length] = part[source, :, :length]

    def row(self, row: int) -> list[np.ndarray]:
        """What a row holds: of each layer its keys, then its values, shape (heads, context, width)."""
        return [part[row] for layer in self._cache for part in layer]

    def release(self, row: int) -> None:
        """Give a row's memory back to the system; it reads as zeros when it is next used."""
        for memory, part in zip(self._memory, self.row(row), strict=True):
            size = part.nbytes
            # (only whole pages can be given back)
            begin = -(-row * size // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (row + 1) * size // mmap.PAGESIZE * mmap.PAGESIZE
            if end > begin:
                memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _buffer(self, rows: tuple[int, ...]) -> np.ndarray:
        # pages that no token has reached are never touched, so they take no memory: as long as they are small ones. (A
        # shared mapping, the default, would keep them when they are given back)
        memory = mmap.mmap(-1, int(np.prod(rows)) * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._memory.append(memory)
        return np.frombuffer(memory, np.float32).reshape(rows)

    def _run(self, first: int, end: int, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        binding = self._session.io_binding()
        for name, value in (("input_ids", ids), ("attention_mask", mask)):
            binding.bind_input(self._shape.inputs[name], "cpu", 0, np.int64, value.shape, value.ctypes.data)
        for names, layer in zip(self._shape.cache, self._cache, strict=True):
            for (past, present), part in zip(names, layer, strict=True):
                rows: Any = part[first:end]
                binding.bind_input(past, "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
                binding.bind_output(present, "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
        # bound memory of ours: copying the outputs would copy the whole cache
        logits = self._logits[: end - first]
        binding.bind_output(self._shape.logits, "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        return logits[:, 0]
