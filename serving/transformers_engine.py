"""The transformers engine: continuous batching by the library's own manager, on CPUs and GPUs, from the safetensors.

    PHIKIT_SERVE_ENGINE=transformers python -m serving

The manager generates greedily; what a request draws is drawn by serving/sampling.py in a logits processor, so that each
request has a temperature and a seed of its own. Blocks of the cache are counted so that the manager never has to evict:
its caller keeps within `capacity`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.engine import Deliver, EngineFailed, Sampling, Step
from serving.model_folder import ModelFolder
from serving.packed_linear import pack
from serving.sampling import draw, generator
from serving.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logging.getLogger("phikit.engine")

#: Tokens of a block of the cache: what a sequence's length is rounded up to.
PAGE = 32
#: Prompt tokens of one pass; a longer prompt is read in pieces, between which the others go on.
PIECE = 256


class TransformersEngine:
    """An engine (see serving/engine.py) on transformers' continuous batching."""

    name = "transformers"

    def __init__(self, model: ModelFolder, settings: Settings) -> None:
        """Dimension the cache; nothing is loaded yet."""
        from transformers import AutoConfig

        self._model = model
        self._threads = settings.threads or len(os.sched_getaffinity(0))
        config = AutoConfig.from_pretrained(model.weights, local_files_only=True, trust_remote_code=False)
        config = config.get_text_config()
        saved = str(config.dtype or "float32").removeprefix("torch.")
        self.precision = saved if settings.precision == "auto" else settings.precision
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        token = 2 * config.num_hidden_layers * heads * width * (4 if self.precision == "float32" else 2)
        room = int(settings.kv_memory * 2**30 // (token * PAGE))
        self.context = min(settings.context, model.context, max(2, room * PAGE))
        pages = math.ceil(self.context / PAGE)
        # a few more slots than whole contexts have room: most conversations are shorter
        self.slots = max(1, min(settings.slots, room))
        self._blocks = max(pages, min(room, self.slots * pages))
        # each sequence is rounded up to whole pages
        self.capacity = max(self.context, (self._blocks - self.slots) * PAGE)
        self._manager: Any = None
        self._deliver: Deliver = lambda steps: None
        #: Sequences in work: how many of their tokens were delivered, and what draws them.
        self._given: dict[str, int] = {}
        self._draws: dict[str, tuple[Sampling, np.random.Generator]] = {}

    def start(self, deliver: Deliver) -> None:
        """Load the weights, warm up, and begin; see Engine.start."""
        self._deliver = deliver
        try:
            self._manager = self._begin(self._load())
        except Exception as error:  # the libraries raise all kinds
            raise EngineFailed(f"{self._model.weights}: cannot be loaded ({error})") from error

    def submit(self, sequence: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Begin a sequence; see Engine.submit."""
        if not prompt or len(prompt) + sampling.max_tokens > self.context:
            raise ValueError(f"{len(prompt)} + {sampling.max_tokens} tokens in a context of {self.context}")
        key = str(sequence)
        self._given[key] = 0
        if sampling.temperature > 0:
            self._draws[key] = (sampling, generator(sampling))
        if not self.alive or not self._manager.add_request(
            list(prompt), key, sampling.max_tokens, streaming=True, eos_token_id=sorted(self._model.ends)
        ):
            self._forget(key)
            raise EngineFailed("the engine does not run")

    def cancel(self, sequence: int) -> None:
        """End a sequence; see Engine.cancel."""
        if self._forget(str(sequence)):
            # the manager frees its blocks before its next pass, and says nothing of it
            self._manager.cancel_request(str(sequence))
            self._deliver([Step(sequence, finish="cancelled")])

    @property
    def alive(self) -> bool:
        """Whether it generates."""
        manager = self._manager
        return manager is not None and manager.is_running() and manager.background_thread_status.fatal_error is None

    def stop(self) -> None:
        """End everything; see Engine.stop."""
        manager, self._manager = self._manager, None
        if manager is not None:
            left = [key for key in list(self._given) if self._forget(key)]
            manager.stop(block=True)
            self._deliver([Step(int(key), finish="cancelled") for key in left])

    def _forget(self, key: str) -> bool:
        """Let a sequence go; False when it was gone already (two threads may try)."""
        self._draws.pop(key, None)
        return self._given.pop(key, None) is not None

    def _load(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging as library

        # its warnings can hold token ids of a prompt
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
        torch.set_num_threads(self._threads)
        model = AutoModelForCausalLM.from_pretrained(
            self._model.weights,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=getattr(torch, self.precision),
            attn_implementation="sdpa",
        ).eval()
        if torch.cuda.is_available():
            return model.to("cuda")
        log.info("%d linear layers packed for oneDNN", pack(model))
        return model

    def _begin(self, model: PreTrainedModel) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig
        from transformers.generation.continuous_batching.cb_logits_processors import (
            ContinuousBatchingLogitsProcessorList,
        )
        from transformers.generation.logits_process import LogitsProcessorList

        manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=sorted(self._model.ends) or -1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=self._blocks,
                max_batch_tokens=PIECE + self.slots,
                max_requests_per_batch=self.slots,
                # shared blocks would make the count of free ones depend on what was asked before
                allow_block_sharing=False,
                use_async_batching=False,
                # the logits processor works on the host
                use_cuda_graph=False,
                safety_margin=0.0,
            ),
        )
        manager.logit_processor = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([_drawing(self._draws)]))
        manager.logit_processor.tensors_required = 1
        manager.output_router = _router(self._take)
        manager.start()
        return manager

    def _take(self, outputs: Sequence[Any]) -> None:
        """Pass on what a pass brought; on the manager's thread."""
        steps: list[Step] = []
        for output in outputs:
            key = output.request_id
            given = self._given.get(key)
            if given is None:
                continue
            tokens = output.generated_tokens[given:]
            self._given[key] = given + len(tokens)
            finish = None
            if output.is_finished() and self._forget(key):
                ended = bool(tokens) and tokens[-1] in self._model.ends
                finish = "failed" if output.error else "stop" if ended else "length"
            steps += [Step(int(key), token) for token in tokens[:-1]]
            steps.append(Step(int(key), tokens[-1] if tokens else None, finish))
        if steps:
            self._deliver(steps)


def _router(take: Any) -> Any:
    """The manager's outputs, handed on by pass instead of being queued for somebody to poll."""
    from transformers.generation.continuous_batching.continuous_api import OutputRouter

    class Router(OutputRouter):
        def deliver(self, output: Any) -> None:
            take([output])

        def deliver_batch(self, outputs: list[Any]) -> None:
            take(outputs)

    return Router()


def _drawing(draws: dict[str, tuple[Sampling, np.random.Generator]]) -> Any:
    """A logits processor that leaves only the drawn token where a request draws, and all where it is greedy."""
    import torch
    from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

    class Drawing(ContinuousBatchingLogitsProcessor):
        supported_kwargs: dict[str, type] = {}  # noqa: RUF012  # the library's own way
        ignored_kwargs: tuple[str, ...] = ()
        _rows: list[str]

        def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
            int32_tensor.zero_()

        def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
            self._rows = [request.state.request_id for request in requests_with_new_token]
            return torch.arange(len(self._rows), dtype=torch.int32)

        def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
            for row, key in enumerate(self._rows):
                if (drawn := draws.get(key)) is not None:
                    token = draw(scores[row].float().cpu().numpy(), *drawn)
                    scores[row] = -math.inf
                    scores[row, token] = 0
            return scores

    return Drawing()
