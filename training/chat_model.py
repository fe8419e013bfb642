"""The code inside the exported MLflow model: messages in, the assistant's answer out, chat template applied here.

    mlflow models serve -m runs/latest/model --env-manager local
    curl localhost:5000/invocations -H 'Content-Type: application/json' \
         -d '{"inputs": [{"messages": [{"role": "user", "content": "Who founded Microsoft?"}]}]}'

MLflow copies this one file into the model (models-from-code), so it imports nothing of the kit.
"""

from __future__ import annotations

from typing import Any, NoReturn

import jinja2
import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

#: Params of the signature with their defaults; `temperature` 0 is greedy, `seed` -1 draws anew each time.
PARAMS: dict[str, Any] = {
    "max_new_tokens": 128,
    "temperature": 0.0,
    "top_p": 1.0,
    "do_sample": True,
    "return_full_text": False,
    "seed": -1,
}

ROLES = ("system", "user", "assistant")


class ChatModel(PythonModel):
    """A causal LM with its tokenizer, answering conversations."""

    def load_context(self, context: Any) -> None:
        """Load weights (safetensors) and tokenizer from the model's own folder; never from a hub."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = context.artifacts["model"]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
        self.model = model.to(device).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[str]:
        """Answer each conversation of the column `messages`, in order.

        Raises:
            mlflow.exceptions.MlflowException: a conversation or param that cannot be used (answered with 400).
        """
        import torch
        from transformers import set_seed

        settings = PARAMS | (params or {})
        _check(settings)
        conversations = [[dict(message) for message in row] for row in model_input["messages"]]
        prompts = [self._prompt(index, messages) for index, messages in enumerate(conversations)]
        limit = self.model.config.max_position_embeddings
        for index, prompt in enumerate(prompts):
            if len(prompt) + settings["max_new_tokens"] > limit:
                _refuse(
                    f"messages: conversation {index} has {len(prompt)} tokens, with max_new_tokens "
                    f"{settings['max_new_tokens']} that is over the model's {limit}"
                )
        sample = settings["do_sample"] and settings["temperature"] > 0
        sampling = {"temperature": settings["temperature"], "top_p": settings["top_p"]} if sample else {}
        if sample and settings["seed"] >= 0:
            set_seed(settings["seed"])
        batch = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(
            self.model.device
        )
        with torch.inference_mode():
            output = self.model.generate(
                **batch, max_new_tokens=settings["max_new_tokens"], do_sample=sample, use_cache=True, **sampling
            )
        new = output[:, batch["input_ids"].shape[1] :]
        answers = [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]
        if settings["return_full_text"]:
            return [
                f"{messages[-1]['content']} {answer}" for messages, answer in zip(conversations, answers, strict=True)
            ]
        return answers

    def _prompt(self, index: int, messages: list[dict[str, str]]) -> list[int]:
        """The token ids of a conversation that waits for its answer."""
        for number, message in enumerate(messages):
            if message.get("role") not in ROLES:
                _refuse(
                    f"messages: conversation {index}, message {number}: role {message.get('role')!r} is not one of "
                    f"{', '.join(ROLES)}"
                )
        if not messages or messages[-1]["role"] != "user":
            _refuse(f"messages: conversation {index} must end with a user message")
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        except jinja2.TemplateError as error:
            _refuse(f"messages: conversation {index}: the model's chat template refuses it: {error}")


def _check(settings: dict[str, Any]) -> None:
    if not settings["temperature"] >= 0:
        _refuse(f"temperature: {settings['temperature']} must be 0 (greedy) or more")
    if not 0 < settings["top_p"] <= 1:
        _refuse(f"top_p: {settings['top_p']} must be above 0 and at most 1")
    if not -1 <= settings["seed"] < 2**32:
        _refuse(f"seed: {settings['seed']} must be -1 (drawn anew) or 0 to {2**32 - 1}")
    if settings["max_new_tokens"] < 1:
        _refuse(f"max_new_tokens: {settings['max_new_tokens']} must be at least 1")


def _refuse(message: str) -> NoReturn:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ChatModel())
