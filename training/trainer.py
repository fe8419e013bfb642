"""TRL's SFTTrainer, fed with the kit's batches, with a loss that suits CPUs and checkpoints known to be whole.

    python -c "from trainer import build_trainer; help(build_trainer)"

What differs from a bare SFTTrainer: batches keep their rows (see encoding.py); off the GPU the loss is computed from
logits at the positions that count (TRL's tiled, recomputing head saves GPU memory and costs a third of a CPU step);
`torch_compile` compiles the transformer in place, which leaves the names of its weights alone.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from trl import SFTTrainer, get_peft_config

from encoding import IGNORED, Collator
from errors import RunFailed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from recipe import Recipe


class Trainer(SFTTrainer):
    """SFTTrainer on encoded rows; see the module's text for what it does differently."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood over the labels that count, `num_items_in_batch` of them where it is given."""
        if inputs["input_ids"].is_cuda or return_outputs or not self._has_plain_head():
            if self.model.training:
                # TRL counts the tokens of one row, since its own packed batches are one
                self._total_train_tokens += inputs["input_ids"].numel() - inputs["input_ids"].size(1)
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        mode = "train" if self.model.training else "eval"
        targets = inputs["labels"][:, 1:]
        counts = targets != IGNORED
        # the wrapped forward, which would switch bfloat16 on, is not the one that is called here
        with self.accelerator.autocast():
            hidden = causal.base_model(
                input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
            ).last_hidden_state[:, :-1]
            logits = causal.get_output_embeddings()(hidden[counts]).float()
        targets = targets[counts]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        with torch.no_grad():
            accuracy = (logits.argmax(-1) == targets).float().mean().item() if len(targets) else 0.0
        self._metrics[mode]["mean_token_accuracy"].append(accuracy)
        if mode == "train":
            self._total_train_tokens += inputs["input_ids"].numel()
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return loss / (max(len(targets), 1) if num_items_in_batch is None else num_items_in_batch)

    def _has_plain_head(self) -> bool:
        """Whether the loss is the plain one: no scaled or capped logits, no other loss, no router to balance."""
        config = self.model.config.get_text_config()
        scaling = (
            "logit_scale",
            "logits_scaling",
            "final_logit_softcapping",
            "output_multiplier",
            "lm_head_multiplier",
        )
        plain = self.args.loss_type == "nll" and not self.args.label_smoothing_factor and not self.aux_loss_enabled
        return plain and all(getattr(config, name, None) is None for name in scaling)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is no publication."""


def build_trainer(
    recipe: Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    evaluation: Dataset,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """A trainer over encoded datasets, with LoRA adapters where the recipe asks for them."""
    args = recipe.sft
    args.dataset_kwargs = {"skip_prepare_dataset": True}
    args.remove_unused_columns = False
    length = args.max_length if args.packing else None
    # rows are packed already: with packing on, SFTTrainer would flatten the batch into one row
    args.packing, args.padding_free, args.assistant_only_loss = False, False, False
    compile_model, args.torch_compile = args.torch_compile, False
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id, length, args.train_batch_size if compile_model else None),
        peft_config=get_peft_config(recipe.model),
        callbacks=[*callbacks, unlogged := UnloggedLoss()],
    )
    unlogged.trainer = trainer
    if compile_model:
        causal = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
        causal.base_model.compile(dynamic=length is None)
    return trainer


class StopOnSignal(TrainerCallback):
    """SIGTERM: save a checkpoint after the current step and stop. `stopped` says that it happened."""

    def __init__(self) -> None:
        self.stopped = False
        self.training = False

    def install(self, otherwise: Callable[[], None]) -> None:
        """Handle SIGTERM: in training, at the next step's end; at any other time, by calling `otherwise`."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.stopped = True
            if not self.training:
                otherwise()

        signal.signal(signal.SIGTERM, handle)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """From here on there is a step to wait for."""
        self.training = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """No step will end any more."""
        self.training = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint and the end."""
        if self.stopped:
            control.should_save = control.should_training_stop = True
        return control


class SaveAfterEvaluation(TrainerCallback):
    """Checkpoints that miss nothing: one that falls on an epoch's last step waits for the epoch's evaluation.

    A run that goes on from a checkpoint does not evaluate again what lies behind it. The very last step always gets a
    checkpoint and a line in the log, so that a run killed while it is exported need not train again.
    """

    def __init__(self) -> None:
        self.owed = False

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> TrainerControl:
        """Put off the checkpoint of an epoch's last step."""
        last = state.global_step >= state.max_steps
        steps = -(-len(train_dataloader) // args.gradient_accumulation_steps)
        control.should_log |= last
        if last or (control.should_save and state.global_step % steps == 0):
            self.owed, control.should_save = True, False
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save now: the trainer evaluates first. A stop in the middle of an epoch has its checkpoint, and no time."""
        control.should_save |= self.owed
        if control.should_training_stop and not self.owed:
            control.should_evaluate = False
        self.owed = False
        return control


class UnloggedLoss(TrainerCallback, ExportableState):
    """The losses since the log's last line, kept in a checkpoint: a resumed run's next line is over the same steps."""

    trainer: Trainer | None = None

    def state(self) -> dict[str, Any]:
        """What the trainer writes into a checkpoint."""
        if not hasattr(self.trainer, "_tr_loss"):
            return {}
        return {"sum": self.trainer._tr_loss.item(), "logged": self.trainer._globalstep_last_logged}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Put back what a checkpoint kept."""
        kept = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and kept and self.trainer is not None:
            self.trainer._tr_loss += kept["sum"]
            self.trainer._globalstep_last_logged = kept["logged"]


class StopOnNan(TrainerCallback):
    """A loss or gradient that is no number any more ends the run with advice."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Look at what was just logged."""
        for key in ("loss", "grad_norm", "eval_loss"):
            value = logs.get(key)
            if value is not None and not abs(float(value)) < float("inf"):
                raise RunFailed(
                    f"{key} is {value} at step {state.global_step}: lower learning_rate (now {args.learning_rate:g}) "
                    f"or max_grad_norm (now {args.max_grad_norm:g}), or raise warmup_steps"
                )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None when there is none.

    The trainer writes `trainer_state.json` after everything else, so a checkpoint is whole once that file can be read.
    """
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            step = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        except (OSError, ValueError, KeyError):
            continue
        whole.append((step, path))
    return max(whole)[1] if whole else None
