"""The transformers engine: continuous batching by the library's own manager, on CPUs and GPUs, from the safetensors.

    PHIKIT_SERVE_ENGINE=transformers python -m serving

The manager generates greedily; what a request draws is drawn by serving/sampling.py in a logits processor, so that each
request has a temperature and a seed of its own. The cache has so many pages that the manager never has to evict: its
caller keeps within `capacity`.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.engine import Deliver, EngineFailed, Finish, Sampling, Step
from serving.model_folder import ModelFolder
from serving.settings import PREFIX, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("phikit.engine")

#: Tokens of a page of the cache: what a sequence's length is rounded up to.
PAGE = 32
#: Pages that the manager sets aside and never gives to a sequence.
ASIDE = 2
#: Prompt tokens of one pass; a longer prompt is read in pieces, between which the others go on.
PIECE = 256
#: Tokens of the sequence that warms the engine up.
WARM = 8


@dataclass(frozen=True)
class Room:
    """How the cache is divided."""

    pages: int
    slots: int
    context: int
    capacity: int
    """Tokens that `slots` sequences may hold together, however their lengths round up to pages."""


def divide(memory: float, token: int, slots: int, context: int) -> Room:
    """Divide the cache.

    Args:
        memory: bytes for all of it.
        token: bytes of one token.
        slots: sequences wanted; cut to a quarter of the pages, so that rounding costs no more than that.
        context: tokens of a sequence wanted; cut to what all pages hold.

    Raises:
        EngineFailed: not even a page fits.
    """
    pages = int(memory // (token * PAGE)) - ASIDE
    if pages < 1:
        raise EngineFailed(
            f"{PREFIX}KV_MEMORY {memory / 2**30:g}: too little for {PAGE} tokens of this model; set at least "
            f"{token * PAGE * (ASIDE + 1) / 2**30:.1g} GiB"
        )
    slots = min(slots, max(1, pages // 4))
    each = math.ceil(context / PAGE)
    if slots * each <= pages:
        return Room(slots * each, slots, context, slots * context)
    # at worst all sequences but one hold one token of their last page
    capacity = (pages - slots + 1) * PAGE + slots - 1
    return Room(pages, slots, min(context, capacity), capacity)


@dataclass
class _Open:
    """A sequence in work."""

    delivered: int = 0
    """Tokens that were passed on."""
    cancelled: bool = False


class TransformersEngine:
    """An engine (see serving/engine.py) on transformers' continuous batching."""

    name = "transformers"

    def __init__(self, model: ModelFolder, settings: Settings) -> None:
        """Dimension the cache; nothing is loaded yet.

        Raises:
            EngineFailed: the model's configuration cannot be read, or the memory is too little.
        """
        from transformers import AutoConfig

        self._weights = model.weights
        self._ends = model.ends
        self._threads = settings.threads or len(os.sched_getaffinity(0))
        try:
            config = AutoConfig.from_pretrained(model.weights, local_files_only=True, trust_remote_code=False)
            config = config.get_text_config()
            saved = str(config.dtype or "float32").removeprefix("torch.")
            self.precision = saved if settings.precision == "auto" else settings.precision
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            number = 4 if self.precision == "float32" else 2
            # keys and values, and the token's column in the mask of a pass
            token = (2 * config.num_hidden_layers * heads * width + PIECE) * number
        except Exception as error:
            raise EngineFailed(f"{model.weights}: its configuration cannot be read ({_first_line(error)})") from error
        self._room = divide(settings.kv_memory * 2**30, token, settings.slots, min(settings.context, model.context))
        self.slots, self.context, self.capacity = self._room.slots, self._room.context, self._room.capacity
        self._manager: Any = None
        self._deliver: Deliver = lambda steps: None
        self._lock = threading.Lock()
        # under _lock
        self._open: dict[str, _Open] = {}
        self._stopping = False

    def start(self, deliver: Deliver) -> None:
        """Load the weights, warm up, and begin; see Engine.start."""
        warm = threading.Event()
        self._deliver = lambda steps: warm.set() if any(step.finish for step in steps) else None
        try:
            self._manager = self._begin(self._load())
            self.submit(0, [0] * min(WARM, self.context - 2), Sampling(max_tokens=2))
        except Exception as error:  # the libraries raise all kinds
            self.stop()
            raise EngineFailed(f"{self._weights}: cannot be loaded ({_first_line(error)})") from error
        warm.wait()
        if not self.alive:
            self.stop()
            raise EngineFailed(f"{self._weights}: the first pass failed; the log says why")
        self._deliver = deliver

    def submit(self, sequence: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Begin a sequence; see Engine.submit."""
        from serving.batching import Drawing

        if not prompt or len(prompt) + sampling.max_tokens > self.context:
            raise ValueError(f"{len(prompt)} + {sampling.max_tokens} tokens in a context of {self.context}")
        name = str(sequence)
        manager = self._manager
        if manager is None or not self.alive:
            raise EngineFailed("the engine does not run")
        with self._lock:
            self._open[name] = _Open()
        ends = sorted(self._ends) or [-1]
        taken = manager.add_request(
            list(prompt), name, sampling.max_tokens, True, eos_token_id=ends, **Drawing.arguments(sampling)
        )
        # it may have died after it took the request and before it would have failed it
        if (taken is None or not self.alive) and self._close(name):
            raise EngineFailed("the engine does not run")

    def cancel(self, sequence: int) -> None:
        """End a sequence; see Engine.cancel."""
        with self._lock:
            one = self._open.get(str(sequence))
            if one is None or one.cancelled:
                return
            one.cancelled = True
        if (manager := self._manager) is not None:
            manager.cancel_request(str(sequence))

    @property
    def alive(self) -> bool:
        """Whether it generates."""
        manager = self._manager
        return (
            manager is not None
            and manager.is_running()
            and manager.background_thread_status.can_accept_new_requests() is None
        )

    def stop(self) -> None:
        """End everything; see Engine.stop."""
        with self._lock:
            self._stopping = True
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.stop(block=True, hard_stop=True)
            with self._lock:
                left = list(self._open)
            self._end(left, "cancelled")
            gc.collect()

    def _load(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.generation.continuous_batching.utils import logger as manager_log
        from transformers.utils import logging as library

        from serving.packed_linear import pack

        library.disable_progress_bar()
        library.set_verbosity_error()
        # through the server's own log; below this level it prints token ids of prompts
        manager_log.handlers.clear()
        manager_log.propagate = True
        manager_log.setLevel(logging.ERROR)
        torch.set_num_threads(self._threads)
        model = AutoModelForCausalLM.from_pretrained(
            self._weights,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=getattr(torch, self.precision),
            attn_implementation="sdpa",
        ).eval()
        if torch.cuda.is_available():
            return model.to("cuda")
        log.info("%d linear layers packed for oneDNN", pack(model, self._weights))
        return model

    def _begin(self, model: PreTrainedModel) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        from serving.batching import Router, Untouched, drawing, scheduler

        manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=self._room.pages,
                max_batch_tokens=PIECE + self.slots,
                max_requests_per_batch=self.slots,
                # `capacity` has promised the room; nothing is kept back, moved out or shared
                max_memory_percent=1.0,
                safety_margin=0.0,
                cpu_offload_space=0.0,
                allow_block_sharing=False,
                use_async_batching=False,
                # the logits processor works on the host
                use_cuda_graph=False,
                scheduler_type=scheduler(lambda names: self._end(names, "cancelled"), self._is_unwanted),
            ),
        )
        manager.logit_processor = drawing()
        manager.output_router = Router(self._take, self._fail)
        # here rather than on the manager's thread, where a lack of memory would only be logged
        with Untouched():
            manager.warmup()
        # its thread is a daemon when the one that starts it is: a program that crashes would wait for it forever
        starter = threading.Thread(target=manager.start, daemon=True)
        starter.start()
        starter.join()
        return manager

    def _take(self, outputs: Sequence[Any]) -> None:
        """Pass on what a pass brought; on the manager's thread."""
        steps: list[Step] = []
        with self._lock:
            for output in outputs:
                one = self._open.get(output.request_id)
                if one is None:
                    continue
                sequence = int(output.request_id)
                # all tokens so far
                tokens = output.generated_tokens[one.delivered :]
                one.delivered += len(tokens)
                finish: Finish | None = None
                if output.is_finished():
                    del self._open[output.request_id]
                    finish = "stop" if output.generated_tokens[-1] in self._ends else "length"
                steps += [Step(sequence, token) for token in tokens[:-1]]
                steps.append(Step(sequence, tokens[-1], finish))
        if steps:
            self._deliver(steps)

    def _fail(self, name: str) -> None:
        """The manager gave a sequence up; on its thread."""
        self._end([name], "cancelled" if self._stopping else "failed")

    def _end(self, names: list[str], finish: Finish) -> None:
        steps = [Step(int(name), finish=finish) for name in names if self._close(name)]
        if steps:
            self._deliver(steps)

    def _close(self, name: str) -> bool:
        """Let a sequence go; False when it was gone already."""
        with self._lock:
            return self._open.pop(name, None) is not None

    def _is_unwanted(self, name: str) -> bool:
        with self._lock:
            one = self._open.get(name)
            return one is None or one.cancelled


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
