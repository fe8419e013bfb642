"""What the transformers engine hangs into the library's continuous batching: drawing, routing, cancelling.

    manager.logit_processor, manager.output_router = drawing(), Router(...)     # before manager.start()

Imported by serving/transformers_engine.py once it loads: this module imports torch and transformers at its top.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    GenerationOutput,
    RequestState,
)
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler
from transformers.generation.logits_process import LogitsProcessorList

from serving.engine import Sampling
from serving.sampling import draw, generator


class Drawing(ContinuousBatchingLogitsProcessor):
    """Leaves only the drawn token where a request draws, and every token where it is greedy.

    The library draws all rows from one random generator; here each request brings its own, which lives and ends with
    the request's state.
    """

    supported_kwargs: ClassVar[dict[str, type]] = {"sampling": Sampling, "random": np.random.Generator}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._rows: list[tuple[int, Sampling, np.random.Generator]] = []

    @staticmethod
    def arguments(sampling: Sampling) -> dict[str, Any]:
        """What `add_request` is given for a request: nothing when it is greedy."""
        return {} if sampling.temperature == 0 else {"sampling": sampling, "random": generator(sampling)}

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Nothing of ours travels in the library's tensor."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[FutureRequestState]) -> torch.Tensor:
        """Note which rows of the coming pass draw; the pass follows on the same thread."""
        arguments = [request.state.logit_processor_kwargs for request in requests_with_new_token]
        self._rows = [(row, own["sampling"], own["random"]) for row, own in enumerate(arguments) if own]
        return torch.zeros(len(arguments), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Draw, on the host; `scores` has a row for each request with a new token, then some that nobody reads."""
        for row, sampling, random in self._rows:
            token = draw(scores[row].float().cpu().numpy(), sampling, random)
            scores[row] = -math.inf
            scores[row, token] = 0.0
        return scores


def drawing() -> ContinuousBatchingLogitsProcessorList:
    """The list of logits processors that holds Drawing alone."""
    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([Drawing()]))
    # the library counts only the processors that it made itself
    processors.tensors_required = 1
    return processors


class Router(OutputRouter):
    """Hands the outputs of a pass on together, on the library's thread, instead of queueing them for a poll."""

    def __init__(self, take: Callable[[Sequence[GenerationOutput]], None], fail: Callable[[str], None]) -> None:
        super().__init__()
        self._take = take
        self._fail = fail

    def deliver(self, output: GenerationOutput) -> None:
        """One output."""
        self._take([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """The outputs of a pass."""
        self._take(outputs)

    def fail_and_deliver(self, state: RequestState, error: Exception) -> None:
        """A request that the library gave up: it died, or was stopped."""
        self._fail(state.request_id)


def scheduler(cancelled: Callable[[list[str]], None], unwanted: Callable[[str], bool]) -> str:
    """Register a scheduler that tells of cancelled requests, which the library drops in silence.

    Args:
        cancelled: called on the library's thread with ids whose blocks have just been freed.
        unwanted: whether a request that arrives was cancelled already: the library reads what is new and what is
            cancelled from two queues, and forgets a cancellation that overtakes its request.

    Returns:
        Its name, for ContinuousBatchingConfig.scheduler_type.
    """

    class Telling(FIFOScheduler):
        def add_waiting_request(self, state: RequestState) -> None:
            super().add_waiting_request(state)
            if unwanted(state.request_id):
                self.set_request_cancellation(state.request_id)

        def clear_cancelled_requests(self) -> list[RequestState]:
            states = super().clear_cancelled_requests()
            if states:
                cancelled([state.request_id for state in states])
            return states

    SCHEDULER_MAPPING["telling"] = Telling
    return "telling"


class Untouched(TorchFunctionMode):
    """Within it, big zeros on the CPU are pages that the system clears when they are first written to.

    torch writes the zeros itself: seconds at the start, and memory taken, for a cache of which little may be used.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (
            func is torch.zeros
            and isinstance(size := args[0], int)
            and size >= 2**20
            and kwargs.get("dtype") is torch.uint8
            and torch.device(kwargs.get("device", "cpu")).type == "cpu"
        ):
            pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            return torch.frombuffer(pages, dtype=torch.uint8)
        return func(*args, **kwargs)
